"""A sweep: for each setting the server, its peers and its workers; every operation of each by turns; the answer checked
before any time is told."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray

import fastps
from bench.sweep.grid import Setting
from bench.sweep.loop import Sample
from bench.sweep.worker import Worker

RULES = {"add": fastps.Add, "sgd": lambda: fastps.SGD(1e-3), "adam": lambda: fastps.Adam(1e-3)}
STEPS = {"add": (1.0, 0.0), "sgd": (-1e-3, 1e-5), "adam": (-1e-3, 2e-2)}  # and how far from that the answer may be
ACCUMULATED = 1 << 20
ROOFS = {"pull": "memcpy", "push": "numpy_in_place", "push_pull": "numpy_in_place"}
FLOOR = "ray_actor"
PEERS = ("memcpy", "numpy_in_place", "shared_array", "ray_actor")
COUNTED = ("lock_waits", "lock_wait_ns", "lock_sleeps", "read_retries")
TURNS = 5
LEAD_SECONDS = 0.02  # from the call of the workers to their common start


class WrongAnswer(Exception):
    """What the server holds is not what was pushed: no times are reported."""


@dataclass(frozen=True)
class Row:
    """One operation of one subject in one setting.

    Attributes
    ----------
    setting, op, subject : what was measured
    rate : operations a second of all workers
    summary : of single operations, in ns
    cpu_seconds : of all workers' processes
    counters : of the server meanwhile; empty for peers
    histogram : (lower bounds in ns, counts), of `Sample.histogram`
    transports : of each worker: "shm", "ray" or "mixed"; empty for peers
    to_roof, to_floor : its median beside that of the roof, and that of the floor beside its own; None for themselves
    """

    setting: Setting
    op: str
    subject: str
    rate: float
    summary: dict[str, int]
    cpu_seconds: float
    counters: dict[str, int]
    histogram: tuple[list[float], list[int]]
    transports: list[str]
    to_roof: float | None = None
    to_floor: float | None = None

    def flat(self) -> dict[str, Any]:
        """For a table: one value a column."""
        counted = {name: self.counters.get(name) for name in COUNTED}
        return {
            **asdict(self.setting), "op": self.op, "subject": self.subject, "ops_second": self.rate,
            "bytes_second": self.rate * self.setting.nbytes, "ops_second_worker": self.rate / self.setting.workers,
            **self.summary, "cpu_seconds": self.cpu_seconds, **counted, "to_roof": self.to_roof,
            "to_floor": self.to_floor,
        }  # fmt: skip


def sweep(
    settings: Iterable[Setting], ops: tuple[str, ...], seconds: float, peers: tuple[str, ...] = PEERS
) -> Iterator[list[Row]]:
    """The rows of one setting after the other; `seconds` are those of each operation of each subject."""
    workers: list[Any] = []
    for setting in settings:
        while len(workers) < setting.workers:
            workers.append(Worker.remote())
        yield list(measure(setting, ops, workers[: setting.workers], seconds, peers))


def measure(
    setting: Setting, ops: tuple[str, ...], workers: list[Any], seconds: float, peers: tuple[str, ...]
) -> Iterator[Row]:
    rule = RULES[setting.rule]()
    with fastps.ParameterServer(np.zeros(setting.elements, np.float32), rule=rule, num_shards=setting.shards) as server:
        reached = transports(server, ray.get([worker.where.remote() for worker in workers]))
        servers = {name: importlib.import_module(f"bench.peers.{name}").create(setting.elements) for name in peers}
        subjects = {"fastps": server, **servers}
        ray.get([worker.take.remote(setting.elements, subjects) for worker in workers])
        runs: dict[tuple[str, str], list[list[tuple[np.ndarray, float]]]] = {}
        counters: dict[str, dict[str, int]] = {op: dict.fromkeys(COUNTED, 0) for op in ops}
        pushed = 0
        for _ in range(TURNS):
            for op in ops:
                for name in subjects:
                    before = server.stats().total
                    start = time.monotonic() + LEAD_SECONDS
                    found = ray.get([w.run.remote(name, op, seconds / TURNS, start) for w in workers])
                    runs.setdefault((op, name), []).append([(stamps, cpu) for stamps, cpu, _ in found])
                    if name == "fastps":
                        after = server.stats().total
                        for counter in COUNTED:
                            counters[op][counter] += after[counter] - before[counter]
                        pushed += sum(calls for _, _, calls in found) if op != "pull" else 0
        check(server, setting, pushed)
        ray.get([worker.drop.remote() for worker in workers])
        for peer in servers.values():
            if hasattr(peer, "close"):
                peer.close()
        rows = [row_of(setting, op, name, taken, counters, reached) for (op, name), taken in runs.items()]
    medians = {(row.op, row.subject): row.summary["median_ns"] for row in rows}
    for row in rows:
        roof, floor = medians.get((row.op, ROOFS[row.op])), medians.get((row.op, FLOOR))
        mine = row.summary["median_ns"]
        yield Row(**{
            **{name: getattr(row, name) for name in Row.__dataclass_fields__},
            "to_roof": mine / roof if roof else None, "to_floor": floor / mine if floor else None,
        })  # fmt: skip


def transports(server: fastps.ParameterServer, nodes: list[str]) -> list[str]:
    """By which way each worker reaches the shards, from where it and they are."""
    shards = set(server.node_ids)
    return ["shm" if {node} == shards else "mixed" if node in shards else "ray" for node in nodes]


def row_of(
    setting: Setting, op: str, name: str, taken: Any, counters: dict[str, dict[str, int]], reached: list[str]
) -> Row:
    sample = Sample.of(taken)
    bounds, counts = sample.histogram()
    return Row(
        setting, op, name, sample.rate, sample.summary(), sample.cpu_seconds, counters[op] if name == "fastps" else {},
        (bounds.tolist(), counts.tolist()), reached if name == "fastps" else [],
    )  # fmt: skip


def after(pushes: int, step: float) -> float:
    """What float32 makes of so many steps, one after the other: from some point on it rounds them away."""
    value = np.float32(0)
    for start in range(0, pushes, ACCUMULATED):
        steps = np.full(1 + min(ACCUMULATED, pushes - start), step, np.float32)
        steps[0] = value
        value = np.add.accumulate(steps)[-1]
    return float(value)


def check(server: fastps.ParameterServer, setting: Setting, pushed: int) -> None:
    """Every push was of ones, and each rule makes equal steps of equal gradients. Raises WrongAnswer."""
    found = server.pull().astype(np.float64)
    if server.versions != (pushed,) * setting.shards:
        raise WrongAnswer(f"{setting}: {pushed} pushes, and the shards have counted {server.versions}")
    step, tolerance = STEPS[setting.rule]
    expected = after(pushed, step)
    if not np.allclose(found, expected, rtol=tolerance, atol=0):
        raise WrongAnswer(
            f"{setting}: {pushed} pushes of ones, and the parameters are {found.min():g} to {found.max():g} where they "
            f"should be {expected:g}"
        )
