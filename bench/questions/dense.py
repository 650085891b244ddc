"""Dense operations beside the same work unshared (memcpy, numpy in place) and a plain Ray actor, in one run.

    python bench/questions/dense.py [--sections single,actor,scaling,attach,remote] [--sizes 80,8K,80K,800K,8M,80M,400M]

Every line has a measured ratio and the bar that it is held against. Answers are checked before times are printed: the
sum of all pushes is in the parameters. Ray's workers run at nice 0 for both sides.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_worker_niceness", "0")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import fastps
from bench.harness.bars import Report, check, json_file
from bench.harness.times import Times, enough, human_time, interleaved
from bench.peers import ray_actor

SIZES = {"80": 80, "8K": 8_000, "80K": 80_000, "800K": 800_000, "8M": 8_000_000, "80M": 80_000_000, "400M": 400_000_000}
FLOAT = np.float32


def single(report: Report, size: int, largest: bool, seconds: float) -> None:
    """One process on the shard's node against memcpy and numpy in place. The bars grant 2 us for the call itself."""
    n = size // 4
    with fastps.ParameterServer(np.zeros(n, FLOAT)) as ps:
        out, grad = np.empty(n, FLOAT), np.ones(n, FLOAT)
        source, target, params = np.ones(n, FLOAT), np.zeros(n, FLOAT), np.zeros(n, FLOAT)

        def look() -> None:
            with ps.view() as view:
                np.asarray(view)

        times = interleaved(
            {
                "copyto": lambda: np.copyto(target, source),
                "pull": lambda: ps.pull(out=out),
                "add": lambda: np.add(params, grad, out=params),
                "push": lambda: ps.push(grad),
                "push_pull": lambda: ps.push_pull(grad, out=out),
                "view": look,
            },
            seconds,
        )
        ps.pull(out=out)
        check(bool((out == ps.versions[0]).all()), f"{ps.versions[0]} pushes of ones at {size} bytes")
    copy, add = times["copyto"], times["add"]
    pull, push, both = times["pull"], times["push"], times["push_pull"]
    slack = 2e-6
    report.add(
        "single", size, "(pull - 2 us) / copyto", f"{pull.shown('pull')}, {copy.shown('copyto')}",
        max(0, pull.median - slack) / copy.median, most=1.15,
    )  # fmt: skip
    report.add(
        "single", size, "(push - 2 us) / np.add", f"{push.shown('push')}, {add.shown('add')}",
        max(0, push.median - slack) / add.median, most=1.3,
    )  # fmt: skip
    if size >= 8_000_000:
        report.add(
            "single", size, "push_pull / (push + pull)", both.shown("push_pull"),
            both.median / (push.median + pull.median), most=0.85,
        )  # fmt: skip
    if largest:
        report.add("single", size, "view, in us", times["view"].shown("view"), times["view"].median * 1e6, most=10)


ACTOR_BARS = {80: (500.0, 500.0), 80_000: (100.0, 100.0), 80_000_000: (1.2, 2.0)}


def actor(report: Report, size: int, seconds: float) -> None:
    """Against the plain actor on the same node."""
    n = size // 4
    server = ray_actor.RayActorServer.remote(n)
    pushes = 0
    with fastps.ParameterServer(np.zeros(n, FLOAT)) as ps:
        out, grad = np.empty(n, FLOAT), np.ones(n, FLOAT)

        def push_there() -> None:
            nonlocal pushes
            pushes += 1
            ray_actor.push(server, grad)

        times = interleaved(
            {
                "pull": lambda: ps.pull(out=out),
                "actor pull": lambda: ray_actor.pull(server),
                "push": lambda: ps.push(grad),
                "actor push": push_there,
            },
            seconds,
        )
        check(bool((ps.pull() == ps.versions[0]).all()), "pushes of ones to fastps")
        check(bool((ray_actor.pull(server) == pushes).all()), "pushes of ones to the actor")
    ray.kill(server)
    for name, bar in zip(("pull", "push"), ACTOR_BARS.get(size, (1.0, 1.0)), strict=True):
        ours, theirs = times[name], times[f"actor {name}"]
        report.add(
            "actor", size, f"actor {name} / {name}", f"{ours.shown(name)}, {theirs.shown('actor')}",
            theirs.median / ours.median, least=bar,
        )  # fmt: skip


@ray.remote(num_cpus=0)
class Worker:
    """Pushes and pulls by turns in a process of its own."""

    def __init__(self, ps: fastps.ParameterServer, n: int) -> None:
        self.ps, self.out, self.grad = ps, np.empty(n, FLOAT), np.ones(n, FLOAT)
        self.round()

    def round(self) -> None:
        self.ps.push(self.grad)
        self.ps.pull(out=self.out)

    def ready(self) -> int:
        return os.getpid()

    def run(self, start: float, seconds: float) -> tuple[np.ndarray, bool]:
        """Durations of the rounds that end within `seconds` of the wall clock's `start`; were all pulls whole?"""
        durations = np.empty(4_000_000)
        clock, count, whole = time.perf_counter, 0, True
        while time.time() < start:
            pass
        end = clock() + seconds
        now = clock()
        while now < end and count < len(durations):
            self.ps.push(self.grad)
            self.ps.pull(out=self.out)
            then, now = now, clock()
            durations[count] = now - then
            count += 1
            whole = whole and self.out[0] == self.out[-1] == self.out[len(self.out) // 2]
        return durations[:count], bool(whole)


def scaling(report: Report, sizes: list[int], seconds: float, repeats: int = 3) -> None:
    """Workers that push and pull by turns on one shard; rounds a second in all, against one worker's."""
    report.head("workers on one shard, pushing and pulling by turns: throughput against one worker")
    least_for_two = {800_000: 1.2, 8_000_000: 1.5, 80_000_000: 1.5}
    for size in sizes:
        n = size // 4
        rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
        tails: dict[int, list[float]] = {1: [], 2: [], 4: []}
        fairness: list[float] = []
        length = seconds if size < 80_000_000 else 2 * seconds
        with fastps.ParameterServer(np.zeros(n, FLOAT)) as ps:
            workers = [Worker.remote(ps, n) for _ in range(4)]
            ray.get([w.ready.remote() for w in workers])
            for _ in range(repeats):
                for count in rates:
                    start = time.time() + 0.1
                    done = ray.get([w.run.remote(start, length) for w in workers[:count]])
                    check(all(whole for _, whole in done), "a torn pull")
                    rates[count].append(sum(len(d) for d, _ in done) / length)
                    if all(enough(len(d), 99) for d, _ in done):
                        tails[count].append(max(np.percentile(d, 99) / np.median(d) for d, _ in done))
                    if count == 4:
                        fairness.append(min(len(d) for d, _ in done) / max(len(d) for d, _ in done))
            check(bool((ps.pull() == ps.versions[0]).all()), "pushes of ones")
            waits = ps.stats().total
            for worker in workers:
                ray.kill(worker)
        one, two, four = (float(np.median(rates[count])) for count in (1, 2, 4))
        measured = f"{one:,.0f} rounds/s alone, {two:,.0f} with two, {four:,.0f} with four"
        if size in least_for_two:
            report.add("scaling", size, "two workers / one", measured, two / one, least=least_for_two[size])
            if tails[2]:
                report.add(
                    "scaling", size, "two workers: p99 / median", f"lock sleeps {waits['lock_sleeps']:,}",
                    float(np.median(tails[2])), most=3,
                )  # fmt: skip
        report.add("scaling", size, "four workers / one", measured, four / one, least=1.0)
        report.add("scaling", size, "four workers: slowest / fastest", "", float(np.median(fairness)), least=0.5)


ATTACH = """
import pickle, sys, time
import numpy, ray
ray.init(address=sys.argv[1], log_to_driver=False)
handle = sys.stdin.buffer.read()
start = time.perf_counter()
ps = pickle.loads(handle)
ps.pull()
end = time.perf_counter()
assert "numba" not in sys.modules
print(end - start)
"""


def attach(report: Report) -> None:
    """A process that has ray and numpy: from a handle's bytes to its first pull."""
    report.head("a fresh process: from a handle's bytes to the first pull, imports of fastps and llvmlite included")
    import pickle

    size = 1_000_000
    with fastps.ParameterServer(np.zeros(size // 4, FLOAT)) as ps:
        handle = pickle.dumps(ps)
        taken = []
        for _ in range(5):
            done = subprocess.run(
                [sys.executable, "-c", ATTACH, ray.get_runtime_context().gcs_address],
                input=handle, capture_output=True, check=True, timeout=120,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
            taken.append(float(done.stdout.split()[-1]))
    report.add(
        "attach", size, "attach, in ms", f"{len(handle)} bytes of handle", float(np.median(taken)) * 1e3, most=150
    )


@ray.remote(num_cpus=0)
def compare_remote(ps: Any, server: Any, n: int, seconds: float) -> tuple[dict[str, Times], bool]:
    out, grad = np.empty(n, FLOAT), np.ones(n, FLOAT)
    operations = {"pull": lambda: ps.pull(out=out), "push": lambda: ps.push(grad)}
    if server is not None:
        operations["actor pull"] = lambda: ray_actor.pull(server)
        operations["actor push"] = lambda: ray_actor.push(server, grad)
    times = interleaved(operations, seconds)
    return times, bool((ps.pull() == ps.versions[0]).all())


def remote(report: Report, sizes: list[int], seconds: float) -> None:
    """A worker on one raylet, the shards and the plain actor on another."""
    report.head("a worker on another raylet: time of the plain actor there / time of fastps")
    bars = {80: 1 / 1.1, 8_000: 1 / 1.1, 80_000: 1 / 1.1, 800_000: 2.0, 8_000_000: 1.3}
    here = ray.get_runtime_context().get_node_id()
    there = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here)
    away = {"scheduling_strategy": NodeAffinitySchedulingStrategy(there, soft=False)}
    at_home = {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}
    for size in [s for s in sizes if s <= 80_000_000]:
        n = size // 4
        server = ray_actor.RayActorServer.options(**away).remote(n)
        with fastps.ParameterServer(np.zeros(n, FLOAT), placement=[there]) as ps:
            times, right = ray.get(compare_remote.options(**at_home).remote(ps, server, n, seconds))
        check(right, "pushes of ones over Ray")
        ray.kill(server)
        for name in ("pull", "push"):
            ours, theirs = times[name], times[f"actor {name}"]
            report.add(
                "remote", size, f"actor {name} / {name}", f"{ours.shown(name)}, {theirs.shown('actor')}",
                theirs.median / ours.median, least=bars.get(size, 1.0),
            )  # fmt: skip
    n = 20_000
    with (
        fastps.ParameterServer(np.zeros(n, FLOAT), placement=[there]) as one,
        fastps.ParameterServer(np.zeros(n, FLOAT), num_shards=8, placement=[there] * 8) as eight,
    ):
        both = {1: [], 8: []}
        for _ in range(3):
            for shards, ps in ((1, one), (8, eight)):
                times, right = ray.get(compare_remote.options(**at_home).remote(ps, None, n, seconds / 2))
                check(right, "pushes of ones over Ray")
                both[shards].append(times)
    for name in ("pull", "push"):
        medians = {k: float(np.median([t[name].median for t in v])) for k, v in both.items()}
        report.add(
            "remote", 4 * n, f"{name}: 8 shards / 1 shard", f"{human_time(medians[8])}, {human_time(medians[1])}",
            medians[8] / medians[1], most=1.2,
        )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", default="single,actor,scaling,attach,remote")
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--seconds", type=float, default=3.0, help="measuring time a point (default: %(default)s)")
    parser.add_argument("--json", type=json_file, help="write the machine and the lines here as well")
    options = parser.parse_args()
    unknown = [s for s in options.sizes.split(",") if s not in SIZES]
    known_sections = {"single", "actor", "scaling", "attach", "remote"}
    unknown_sections = set(options.sections.split(",")) - known_sections
    if unknown or unknown_sections:
        parser.error(
            f"unknown {unknown or sorted(unknown_sections)}; sizes are {list(SIZES)}, sections are {known_sections}"
        )
    sizes, sections = [SIZES[s] for s in options.sizes.split(",")], options.sections.split(",")

    report = Report()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "object_store_memory": 2 << 30})
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        if "single" in sections:
            report.head("one process, one shard: ratio to memcpy or numpy in place; the bar grants 2 us on top")
            for size in sizes:
                single(report, size, size == max(sizes), options.seconds)
        if "actor" in sections:
            report.head("one process, one shard: how many times faster than the plain Ray actor on the same node")
            for size in [s for s in sizes if s <= 80_000_000]:
                actor(report, size, options.seconds)
        if "scaling" in sections:
            scaling(report, sizes, options.seconds / 3)
        if "attach" in sections:
            attach(report)
        if "remote" in sections:
            # Not before: Ray would put workers and peers of the other sections there, too.
            cluster.add_node(num_cpus=4, object_store_memory=2 << 30)
            cluster.wait_for_nodes()
            remote(report, sizes, options.seconds)
    finally:
        ray.shutdown()
        cluster.shutdown()
    return report.end(options.json)


if __name__ == "__main__":
    sys.exit(main())
