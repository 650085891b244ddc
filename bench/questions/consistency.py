"""What consistency costs: rounds beside an actor used synchronously, views, stragglers; and bounds from histories.

    python bench/questions/consistency.py [--sections rounds,view,straggler,ssp,remote] [--pulls 100000]

Every line has a measured ratio and the bar that it is held against. Answers are checked before times are printed. Ray's
workers run at nice 0 for both sides.
"""

from __future__ import annotations

import argparse
import os
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
from bench.harness.times import Times, human_time
from bench.peers import ray_synchronous
from fastps.testing.history import Event, Recorder, check_ssp

FLOAT = np.float32


@ray.remote(num_cpus=0)
class Worker:
    """A process that takes part in a server's clocks."""

    def __init__(self, ps: fastps.ParameterServer, path: list[str]) -> None:
        sys.path[:0] = path
        self.ps = ps
        ps.pull()

    def ready(self) -> None:
        pass

    def rounds(self, rank: int, count: int) -> np.ndarray:
        """Seconds of each round: give a gradient, see the new version."""
        grad, out = np.ones_like(self.ps.pull()), np.empty_like(self.ps.pull())
        seconds = np.ones(count)
        with self.ps.worker(rank) as w:
            w.pull(out=out)
            for i in range(count):
                began = time.perf_counter()
                w.push(grad)
                w.pull(out=out)
                seconds[i] = time.perf_counter() - began
        return seconds

    def views(self, rank: int, count: int) -> np.ndarray:
        seconds = np.ones(count)
        with self.ps.worker(rank) as w:
            w.push(np.ones_like(self.ps.pull()))
            for i in range(count):
                began = time.perf_counter()
                with w.view():
                    seconds[i] = time.perf_counter() - began
        return seconds

    def train(self, rank: int, compute_s: float, for_s: float) -> tuple[int, int]:
        """Steps of which each computes for a while: (gradients that counted, dropped)."""
        grad, counted, dropped = np.ones_like(self.ps.pull()), 0, 0
        with self.ps.worker(rank) as w:
            w.pull()
            until = time.perf_counter() + for_s
            while time.perf_counter() < until:
                w.pull(timeout=60)
                time.sleep(compute_s)
                reply = w.push(grad, timeout=60)
                counted, dropped = counted + reply.counted, dropped + (not reply.counted)
        return counted, dropped

    def steps(self, rank: int, count: int, pause_s: float) -> list[Event]:
        """Steps at a speed of its own; the history."""
        rng, ones = np.random.default_rng(rank), np.ones_like(self.ps.pull())
        with Recorder(self.ps.worker(rank)) as w:
            for _ in range(count):
                w.pull(timeout=120)
                if pause_s and rng.random() < 0.1:
                    time.sleep(pause_s * rng.random())
                w.push(ones, timeout=120)
        return w.events


def start(ps: fastps.ParameterServer, count: int, nodes: list[str] | None = None) -> list[Any]:
    here = ray.get_runtime_context().get_node_id()
    nodes = nodes or [here]
    workers = [
        Worker.options(scheduling_strategy=NodeAffinitySchedulingStrategy(nodes[i % len(nodes)], soft=False)).remote(
            ps, sys.path
        )
        for i in range(count)
    ]
    ray.get([worker.ready.remote() for worker in workers])
    return workers


def stop(workers: list[Any]) -> None:
    for worker in workers:
        ray.kill(worker)


def rounds(report: Report, size: int, count: int, at_most_us: float, at_least: float) -> None:
    """Two workers: a gradient of each, one update, the new version, against the same through an actor."""
    n = size // 4
    policy = fastps.BSP(workers=2, reduce="mean")
    with fastps.ParameterServer(np.zeros(n, FLOAT), consistency=policy) as ps:
        workers = start(ps, 2)
        taken = np.concatenate(ray.get([worker.rounds.remote(i, count) for i, worker in enumerate(workers)]))
        check(bool((ps.pull() == count).all()), f"{count} rounds of ones at {size} bytes")
        stop(workers)
    server = ray_synchronous.RayActorServer.remote(n)
    theirs = [ray_synchronous.Worker.remote(n) for _ in range(2)]
    params, floor = np.zeros(n, FLOAT), np.ones(max(20, min(300, count // 50)))
    for i in range(len(floor)):
        began = time.perf_counter()
        params = ray_synchronous.run_round(server, theirs, params)
        floor[i] = time.perf_counter() - began
    check(bool((ray.get(params) == len(floor)).all()), f"{len(floor)} rounds of the actor")
    for actor in (server, *theirs):
        ray.kill(actor)
    ours, other = Times(taken[len(taken) // 10 :]), Times(floor[5:])
    shown = ours.shown("round")
    report.add("rounds", size, "round of two workers, us", shown, ours.median * 1e6, most=at_most_us)
    shown += f", actor {human_time(other.median)}"
    report.add("rounds", size, "actor's round / round", shown, other.median / ours.median, least=at_least)


def view(report: Report, size: int) -> None:
    with fastps.ParameterServer(np.zeros(size // 4, FLOAT), consistency=fastps.BSP()) as ps:
        workers = start(ps, 1)
        times = Times(ray.get(workers[0].views.remote(0, 5000)))
        shown = times.shown("view")
        report.add("view", size, "a view of a round, us", shown, times.median * 1e6, most=5)
        stop(workers)


def straggler(report: Report, compute_s: float, for_s: float) -> None:
    """Rounds a second of four workers of which one is ten times slower, against three equal ones."""

    def rate(count: int, backup: int, slow: int) -> tuple[float, int]:
        policy = fastps.BSP(backup=backup, workers=count)
        with fastps.ParameterServer(np.zeros(1000, FLOAT), num_shards=3, consistency=policy) as ps:
            workers = start(ps, count)
            slowness = [1] * (count - slow) + [10] * slow
            runs = [w.train.remote(i, compute_s * slowness[i], for_s) for i, w in enumerate(workers)]
            before, began = ps.versions[0], time.perf_counter()
            time.sleep(for_s / 8)
            before, began = ps.versions[0], time.perf_counter()
            time.sleep(for_s / 2)
            found = (ps.versions[0] - before) / (time.perf_counter() - began)
            dropped = sum(drop for _, drop in ray.get(runs))
            stop(workers)
        return found, dropped

    rates: dict[str, list[float]] = {"equal": [], "backup": [], "waited for": []}
    for _ in range(3):
        rates["equal"].append(rate(3, 0, 0)[0])
        found, dropped = rate(4, 1, 1)
        rates["backup"].append(found)
        rates["waited for"].append(rate(4, 0, 1)[0])
    equal, backup, waited = (float(np.median(values)) for values in rates.values())
    shown = f"three equal {equal:.0f}/s, one of four slow {waited:.0f}/s, as a backup {backup:.0f}/s, {dropped} dropped"
    report.add("straggler", 4000, "backup / three equal", shown, backup / equal, least=0.9)


def staleness(report: Report, section: str, bound: int, pulls: int, nodes: list[str], shards: list[str]) -> None:
    """Workers of different speed; every pull is looked at by the checker."""
    policy = fastps.SSP(bound, workers=3)
    with fastps.ParameterServer(
        np.zeros(6, FLOAT), num_shards=len(shards), placement=shards, consistency=policy, timeout=120
    ) as ps:
        workers = start(ps, 3, nodes)
        began = time.perf_counter()
        runs = [w.steps.remote(i, -(-pulls // 3), (0.0, 0.0005, 0.001)[i]) for i, w in enumerate(workers)]
        events = [event for own in ray.get(runs) for event in own]
        took = time.perf_counter() - began
        found, seen = check_ssp(events, bound), sum(event.kind == "pull" for event in events)
        check(not found, f"the bound of {bound} over {seen} pulls: {found[:1]}")
        check(bool((ps.pull() == sum(event.kind == "push" for event in events)).all()), "every push is applied once")
        most = max(event.staleness for event in events)
        shown = f"{seen:,} pulls, 0 violations, {took / seen * 3e6:.0f} us a step"
        report.add(section, 24, f"largest staleness under SSP({bound})", shown, most, most=bound or 1e-9)
        stop(workers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", default="rounds,view,straggler,ssp,remote")
    parser.add_argument("--pulls", type=int, default=100_000, help="for each bound (%(default)s)")
    parser.add_argument("--json", type=json_file)
    options = parser.parse_args()
    wanted = options.sections.split(",")
    unknown = set(wanted) - {"rounds", "view", "straggler", "ssp", "remote"}
    if unknown:
        parser.error(f"unknown sections {sorted(unknown)}")
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 4, "object_store_memory": 2 << 30, "include_dashboard": False}
    )
    ray.init(address=cluster.address, log_to_driver=False)
    report = Report()
    here = ray.get_runtime_context().get_node_id()
    if "rounds" in wanted:
        report.head("Rounds of two workers")
        rounds(report, 80, 20_000, 40, 50)
        rounds(report, 80_000, 5_000, 0, 0)
        rounds(report, 8_000_000, 200, 0, 0)
    if "view" in wanted:
        report.head("A view of a version")
        view(report, 400_000_000)
    if "straggler" in wanted:
        report.head("One worker ten times slower; each step computes for 3 ms")
        straggler(report, 0.003, 4.0)
    if "ssp" in wanted:
        report.head("Bounded staleness on one node")
        for bound in (0, 1, 4):
            staleness(report, "ssp", bound, options.pulls, [here], [here])
    if "remote" in wanted:
        for _ in range(2):
            cluster.add_node(num_cpus=2, object_store_memory=300 << 20)
        cluster.wait_for_nodes()
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        report.head("Bounded staleness on three raylets of this machine")
        for bound in (0, 1, 4):
            staleness(report, "remote", bound, options.pulls, nodes, nodes)
    ray.shutdown()
    cluster.shutdown()
    return report.end(options.json)


if __name__ == "__main__":
    sys.exit(main())
