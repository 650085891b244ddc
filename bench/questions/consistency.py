"""What does consistency cost: a round, a view of one, a worker that is slow, and a bound on staleness?

Rounds of two workers beside an actor of Ray that is used synchronously; a view of a round's version; rounds a second
with one worker ten times slower, waited for and as a backup; and bounded staleness, where a checker looks at every pull
of a recorded history, on one node and on three raylets.

What would change a decision: a round of 80 B above 40 us says that waiting for the others costs more than the work; a
backup with less than 0.9 of the rounds of three equal workers, that dropping the slowest does not pay; one pull beyond
its bound is an error in the clocks, whatever the times.

Answers are checked before times are printed.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import click
import numpy as np
import ray

import fastps
from bench.harness.bars import Report, check
from bench.harness.loop import once, prepared, stamps
from bench.harness.question import SECONDS, question, sections_of
from bench.harness.raylets import add_raylets, live_nodes, local_raylets, on, this_node
from bench.harness.sample import Times
from bench.harness.units import human_time
from bench.peers import ray_synchronous
from bench.questions import QUESTIONS
from fastps.testing.history import Event, Recorder, check_ssp

FLOAT = np.float32
VIEWS = 5000


@ray.remote(num_cpus=0)
class Worker:
    """A process that takes part in a server's clocks."""

    def __init__(self, ps: fastps.ParameterServer, path: list[str]) -> None:
        sys.path[:0] = path
        self.ps = ps
        ps.pull()

    def rounds(self, rank: int, count: int) -> np.ndarray:
        """Nanoseconds of each round: give a gradient, see the new version."""
        grad, out = np.ones_like(self.ps.pull()), np.empty_like(self.ps.pull())
        with self.ps.worker(rank) as w:
            w.pull(out=out)

            def round_() -> None:
                w.push(grad)
                w.pull(out=out)

            return np.diff(stamps(round_, calls=count))

    def views(self, rank: int, count: int) -> np.ndarray:
        """Nanoseconds until a view is there; letting go of it is not counted."""
        opened: list[Any] = []
        with self.ps.worker(rank) as w:
            w.push(np.ones_like(self.ps.pull()))
            found = prepared(opened.clear, [lambda _: opened.append(w.view())], rounds=count)[:, 0]
            opened.clear()
        return found

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
    nodes = nodes or [this_node()]
    workers = [Worker.options(**on(nodes[i % len(nodes)])).remote(ps, sys.path) for i in range(count)]
    ray.get([worker.__ray_ready__.remote() for worker in workers])
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
    params, calls = np.zeros(n, FLOAT), max(20, min(300, count // 50))

    def round_() -> None:
        nonlocal params
        params = ray_synchronous.run_round(server, theirs, params)

    slow = np.diff(stamps(round_, calls=calls))
    check(bool((ray.get(params) == calls).all()), f"{calls} rounds of the actor")
    for actor in (server, *theirs):
        ray.kill(actor)
    ours, other = Times(taken[len(taken) // 10 :]), Times(slow[5:])
    shown = ours.shown("round")
    report.add("rounds", size, "round of two workers, us", shown, ours.median * 1e6, most=at_most_us)
    shown += f", actor {human_time(other.median)}"
    report.add("rounds", size, "actor's round / round", shown, other.median / ours.median, least=at_least)


def view(report: Report, size: int) -> None:
    with fastps.ParameterServer(np.zeros(size // 4, FLOAT), consistency=fastps.BSP()) as ps:
        workers = start(ps, 1)
        times = Times(ray.get(workers[0].views.remote(0, VIEWS)))
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
            time.sleep(for_s / 8)
            before = ps.versions[0]
            _, seconds = once(lambda: time.sleep(for_s / 2))
            found = (ps.versions[0] - before) / seconds
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
        pauses = (0.0, 0.0005, 0.001)
        histories, took = once(
            lambda: ray.get([w.steps.remote(i, -(-pulls // 3), pauses[i]) for i, w in enumerate(workers)])
        )
        events = [event for own in histories for event in own]
        found, seen = check_ssp(events, bound), sum(event.kind == "pull" for event in events)
        check(not found, f"the bound of {bound} over {seen} pulls: {found[:1]}")
        check(bool((ps.pull() == sum(event.kind == "push" for event in events)).all()), "every push is applied once")
        most = max(event.staleness for event in events)
        shown = f"{seen:,} pulls, 0 violations, {took / seen * 3e6:.0f} us a step"
        report.add(section, 24, f"largest staleness under SSP({bound})", shown, most, most=bound or 1e-9)
        stop(workers)


@question(count=400, pulls=600, seconds=0.8)
@sections_of(QUESTIONS["consistency"].sections)
@click.option(
    "--rounds",
    "count",
    type=click.IntRange(min=100),
    default=20_000,
    show_default=True,
    help="of 80 B; a hundredth of them of 8 MB",
)
@click.option(
    "--pulls", type=click.IntRange(min=1), default=100_000, show_default=True, help="for each bound of staleness"
)
@click.option(
    "--seconds", type=SECONDS, default=4.0, show_default=True, help="for each group of workers with a straggler"
)
def command(report: Report, sections: list[str], count: int, pulls: int, seconds: float) -> None:
    with local_raylets(num_cpus=4, object_store_memory=2 << 30) as cluster:
        if "rounds" in sections:
            report.head("Rounds of two workers")
            rounds(report, 80, count, 40, 50)
            rounds(report, 80_000, count // 4, 0, 0)
            rounds(report, 8_000_000, count // 100, 0, 0)
        if "view" in sections:
            report.head("A view of a version")
            view(report, 400_000_000)
        if "straggler" in sections:
            report.head("One worker ten times slower; each step computes for 3 ms")
            straggler(report, 0.003, seconds)
        if "ssp" in sections:
            report.head("Bounded staleness on one node")
            for bound in (0, 1, 4):
                staleness(report, "ssp", bound, pulls, [this_node()], [this_node()])
        if "remote" in sections:
            add_raylets(cluster, 2, num_cpus=2, object_store_memory=300 << 20)
            nodes = [node["NodeID"] for node in live_nodes()]
            report.head("Bounded staleness on three raylets of this machine")
            for bound in (0, 1, 4):
                staleness(report, "remote", bound, pulls, nodes, nodes)
