"""How near are dense operations to the same work unshared, and how far ahead of a plain Ray actor?

Single operations beside memcpy and numpy in place, several workers on one shard beside one, the start of a process, and
a worker on another raylet beside the plain actor there. All of it is measured in one run, and each ratio is held
against its bar.

What would change a decision: pull / copyto above 1.15 or push / np.add above 1.3 at 8 MB and more says that the core
loses time that memory does not; less than 500 times the plain actor at 80 B, that a call costs too much; two workers
with less than 1.5 times the throughput of one at 8 MB, that locks, not memory, are the limit.

Answers are checked before times are printed: the sum of all pushes is in the parameters.
"""

from __future__ import annotations

import time
from typing import Any

import click
import numpy as np
import ray

import fastps
from bench.harness.arguments import sizes as sizes_of
from bench.harness.attach import attach
from bench.harness.bars import Report, check
from bench.harness.loop import interleaved, stamps, wait_until
from bench.harness.question import SECONDS, Parsed, question, sections_of
from bench.harness.raylets import add_raylets, live_nodes, local_raylets, on, this_node
from bench.harness.sample import Sample, Times, enough
from bench.harness.units import human_time
from bench.peers import ray_actor
from bench.questions import QUESTIONS

FLOAT = np.float32
MOST_BYTES = 80_000_000  # of what Ray carries here


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
    shown = f"{pull.shown('pull')}, {copy.shown('copyto')}"
    report.add("single", size, "(pull - 2 us) / copyto", shown, max(0, pull.median - 2e-6) / copy.median, most=1.15)
    shown = f"{push.shown('push')}, {add.shown('add')}"
    report.add("single", size, "(push - 2 us) / np.add", shown, max(0, push.median - 2e-6) / add.median, most=1.3)
    if size >= 8_000_000:
        ratio = both.median / (push.median + pull.median)
        report.add("single", size, "push_pull / (push + pull)", both.shown("push_pull"), ratio, most=0.85)
    if largest:
        report.add("single", size, "view, in us", times["view"].shown("view"), times["view"].median * 1e6, most=10)


ACTOR_BARS = {80: (500.0, 500.0), 80_000: (100.0, 100.0), 80_000_000: (1.2, 2.0)}


def by_turns(ps: fastps.ParameterServer, server: Any, n: int, seconds: float) -> tuple[dict[str, Times], bool]:
    """Pulls and pushes of a server, and of the plain actor unless it is None; is all there that was pushed?"""
    out, grad, pushes = np.empty(n, FLOAT), np.ones(n, FLOAT), 0

    def push_there() -> None:
        nonlocal pushes
        pushes += 1
        ray_actor.push(server, grad)

    operations = {"pull": lambda: ps.pull(out=out), "push": lambda: ps.push(grad)}
    if server is not None:
        operations |= {"actor pull": lambda: ray_actor.pull(server), "actor push": push_there}
    times = interleaved(operations, seconds)
    right = bool((ps.pull() == ps.versions[0]).all())
    return times, right and (server is None or bool((ray_actor.pull(server) == pushes).all()))


def actor(
    report: Report, section: str, size: int, seconds: float, bars: tuple[float, float], there: str | None = None
) -> None:
    """Against the plain actor on the same node: this one, or a worker on this one and both on another. A bar for a
    pull, one for a push."""
    n = size // 4
    server = ray_actor.RayActorServer.options(**on(there or this_node())).remote(n)
    with fastps.ParameterServer(np.zeros(n, FLOAT), placement=there and [there]) as ps:
        times, right = by_turns(ps, server, n, seconds) if there is None else by_worker(ps, server, n, seconds)
    check(right, "pushes of ones to fastps and to the actor")
    ray.kill(server)
    for name, bar in zip(("pull", "push"), bars, strict=True):
        ours, theirs = times[name], times[f"actor {name}"]
        shown = f"{ours.shown(name)}, {theirs.shown('actor')}"
        report.add(section, size, f"actor {name} / {name}", shown, theirs.median / ours.median, least=bar)


def by_worker(*arguments: Any) -> tuple[dict[str, Times], bool]:
    """The same in another process of this node."""
    return ray.get(ray.remote(num_cpus=0)(by_turns).options(**on(this_node())).remote(*arguments))


@ray.remote(num_cpus=0)
class Worker:
    """Pushes and pulls by turns in a process of its own."""

    def __init__(self, ps: fastps.ParameterServer, n: int) -> None:
        self.ps, self.out, self.grad, self.whole = ps, np.empty(n, FLOAT), np.ones(n, FLOAT), True
        self.round()

    def round(self) -> None:
        self.ps.push(self.grad)
        self.ps.pull(out=self.out)
        self.whole = self.whole and bool(self.out[0] == self.out[-1] == self.out[len(self.out) // 2])

    def run(self, start: float, seconds: float) -> tuple[np.ndarray, bool]:
        """Stamps of rounds from the wall clock's `start` on; were all pulls whole?"""
        wait_until(start)
        return stamps(self.round, seconds), self.whole


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
            ray.get([w.__ray_ready__.remote() for w in workers])
            for _ in range(repeats):
                for count in rates:
                    start = time.time() + 0.1
                    done = ray.get([w.run.remote(start, length) for w in workers[:count]])
                    check(all(whole for _, whole in done), "a torn pull")
                    rates[count] += Sample.of([[(found, 0.0) for found, _ in done]]).rates
                    single = [Times(np.diff(found)) for found, _ in done]
                    if all(enough(len(times.durations), 99) for times in single):
                        tails[count].append(max(times.percentile(99) / times.median for times in single))
                    if count == 4:
                        calls = [len(times.durations) for times in single]
                        fairness.append(min(calls) / max(calls))
            check(bool((ps.pull() == ps.versions[0]).all()), "pushes of ones")
            waits = ps.stats().total
            for worker in workers:
                ray.kill(worker)
        one, two, four = (float(np.median(rates[count])) for count in (1, 2, 4))
        measured = f"{one:,.0f} rounds/s alone, {two:,.0f} with two, {four:,.0f} with four"
        if size in least_for_two:
            report.add("scaling", size, "two workers / one", measured, two / one, least=least_for_two[size])
            if tails[2]:
                sleeps, tail = f"lock sleeps {waits['lock_sleeps']:,}", float(np.median(tails[2]))
                report.add("scaling", size, "two workers: p99 / median", sleeps, tail, most=3)
        report.add("scaling", size, "four workers / one", measured, four / one, least=1.0)
        report.add("scaling", size, "four workers: slowest / fastest", "", float(np.median(fairness)), least=0.5)


def attached(report: Report) -> None:
    report.head("a fresh process: from a handle's bytes to the first pull, imports of fastps and llvmlite included")
    size = 1_000_000
    with fastps.ParameterServer(np.zeros(size // 4, FLOAT)) as ps:
        seconds, handle_bytes = attach(ps, "ps.pull()", 0)
    report.add("attach", size, "attach, in ms", f"{handle_bytes} bytes of handle", seconds * 1e3, most=150)


def remote(report: Report, sizes: list[int], seconds: float) -> None:
    """A worker on one raylet, the shards and the plain actor on another."""
    report.head("a worker on another raylet: time of the plain actor there / time of fastps")
    bars = {80: 1 / 1.1, 8_000: 1 / 1.1, 80_000: 1 / 1.1, 800_000: 2.0, 8_000_000: 1.3}
    there, n = live_nodes()[1]["NodeID"], 20_000
    for size in [s for s in sizes if s <= MOST_BYTES]:
        actor(report, "remote", size, seconds, (bars.get(size, 1.0),) * 2, there)
    with (
        fastps.ParameterServer(np.zeros(n, FLOAT), placement=[there]) as one,
        fastps.ParameterServer(np.zeros(n, FLOAT), num_shards=8, placement=[there] * 8) as eight,
    ):
        both: dict[int, list[dict[str, Times]]] = {1: [], 8: []}
        for _ in range(3):
            for shards, ps in ((1, one), (8, eight)):
                times, right = by_worker(ps, None, n, seconds / 2)
                check(right, "pushes of ones over Ray")
                both[shards].append(times)
    for name in ("pull", "push"):
        medians = {k: float(np.median([t[name].median for t in v])) for k, v in both.items()}
        shown = f"{human_time(medians[8])}, {human_time(medians[1])}"
        report.add("remote", 4 * n, f"{name}: 8 shards / 1 shard", shown, medians[8] / medians[1], most=1.2)


@question(sizes="80,80K", seconds=0.05)
@sections_of(QUESTIONS["dense"].sections)
@click.option("--sizes", type=Parsed(sizes_of), default="80,8K,80K,800K,8M,80M,400M", show_default=True)
@click.option("--seconds", type=SECONDS, default=3.0, show_default=True, help="measuring time a point")
def command(report: Report, sections: list[str], sizes: list[int], seconds: float) -> None:
    with local_raylets(num_cpus=4, object_store_memory=2 << 30) as cluster:
        if "single" in sections:
            report.head("one process, one shard: ratio to memcpy or numpy in place; the bar grants 2 us on top")
            for size in sizes:
                single(report, size, size == max(sizes), seconds)
        if "actor" in sections:
            report.head("one process, one shard: how many times faster than the plain Ray actor on the same node")
            for size in [s for s in sizes if s <= MOST_BYTES]:
                actor(report, "actor", size, seconds, ACTOR_BARS.get(size, (1.0, 1.0)))
        if "scaling" in sections:
            scaling(report, sizes, seconds / 3)
        if "attach" in sections:
            attached(report)
        if "remote" in sections:
            # Not before: Ray would put workers and peers of the other sections there, too.
            add_raylets(cluster, 1, num_cpus=4, object_store_memory=2 << 30)
            remote(report, sizes, seconds)
