"""A sweep: for each setting the server, its peers and its workers; every operation of each by turns; the answer is
checked before any time is reported."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import ray

import fastps
from bench import peers
from bench.harness.arguments import ArgumentError
from bench.harness.raylets import on
from bench.harness.sample import Sample
from bench.sweep.grid import Setting
from bench.sweep.placement import Node, Places, places, require_memory
from bench.sweep.worker import Worker

RULES = {"add": fastps.Add, "sgd": lambda: fastps.SGD(1e-3), "adam": lambda: fastps.Adam(1e-3)}
# What a push of a gradient g does to each parameter when all gradients are equal, and the tolerance of the result.
STEPS: dict[str, tuple[Callable[[float], float], float]] = {
    "add": (lambda g: g, 0.0), "sgd": (lambda g: -1e-3 * g, 1e-5), "adam": (lambda g: -1e-3, 2e-2),
}  # fmt: skip
# Arrays that an operation reads or writes, each once.
STREAMS = {"add": {"pull": 2, "push": 3, "push_pull": 4}, "adam": {"pull": 2, "push": 7, "push_pull": 8}}
STREAMS["sgd"] = STREAMS["add"]
TRIAD_STREAMS = {"pull": 3, "push": 3, "push_pull": 6}
ACCUMULATED = 1 << 20
COUNTED = ("lock_waits", "lock_wait_ns", "lock_sleeps", "read_retries")
TURNS = 10
LEAD_SECONDS = 0.01  # from the call of the workers to their common start
START_SECONDS = 60.0
CALL_SECONDS = 60.0  # beside what it was asked for: a group of torch may take long to come together

Runs = list[list[tuple[np.ndarray, float, int]]]  # each turn has of each worker: stamps, CPU seconds, calls


class StuckError(Exception):
    """A subject does not reply."""


class WrongAnswer(Exception):
    """What the server holds is not what was pushed: no times are reported."""


@dataclass(frozen=True)
class Row:
    """One operation of one subject in one setting.

    Attributes
    ----------
    setting, op, subject : what was measured
    rate : operations a second of all workers
    summary : of single operations, in ns; None where there were too few for a percentile
    turns : of each turn the median of its operations, in ns; the subjects of an operation go one after the other
    turn_rates : of each turn, operations a second of all workers
    cpu_seconds : of all workers' processes
    counters : of the server meanwhile; empty for peers
    histogram : (lower bounds in ns, counts), of `Sample.histogram`
    transports : of each worker: "shm", "ray" or "mixed"; empty for peers
    places : the nodes of shards and workers
    crossed_bytes : of parameters and gradients, that went from node to node
    to_reference : its median beside that of the reference; None where that does other work
    to_actor : the plain Ray actor's median beside its own; None where that does other work
    of_bandwidth : what it reads and writes in its median, beside what the triad does in its own
    """

    setting: Setting
    op: str
    subject: str
    rate: float
    summary: dict[str, int | None]
    turns: list[float]
    turn_rates: list[float]
    cpu_seconds: float
    counters: dict[str, int]
    histogram: tuple[list[float], list[int]]
    transports: list[str]
    places: Places
    crossed_bytes: int
    to_reference: float | None = None
    to_actor: float | None = None
    of_bandwidth: float | None = None

    @property
    def work(self) -> str:
        """What it does to memory."""
        return peers.work_of(self.subject, self.op, self.setting.rule)

    def flat(self) -> dict[str, Any]:
        """For a table: one value, or one list, a column."""
        counted = {name: self.counters.get(name) for name in COUNTED}
        bounds, counts = self.histogram
        return {
            **asdict(self.setting), "op": self.op, "subject": self.subject, "work": self.work, "ops_second": self.rate,
            "bytes_second": self.rate * self.setting.nbytes, "ops_second_worker": self.rate / self.setting.workers,
            **self.summary, "cpu_seconds": self.cpu_seconds, **counted, "to_reference": self.to_reference,
            "to_actor": self.to_actor, "of_bandwidth": self.of_bandwidth, "crossed_bytes": self.crossed_bytes,
            "transports": self.transports, "worker_nodes": list(self.places.workers),
            "shard_nodes": list(self.places.shards), "turns_ns": self.turns,
            "turns_ops_second": self.turn_rates, "bins_ns": bounds, "bin_counts": counts,
        }  # fmt: skip


@dataclass
class Crew:
    """The workers, started as they are needed; each stays on its node."""

    nodes: Sequence[Node]
    workers: dict[tuple[int, str], Any] = field(default_factory=dict)

    def on(self, nodes: Sequence[str], fresh: bool) -> list[Any]:
        """One on each of these nodes; `fresh`: new processes. Raises ArgumentError where the cluster starts none."""
        if fresh:
            while self.workers:
                ray.kill(self.workers.popitem()[1])
        for key in enumerate(nodes):
            if key not in self.workers:
                self.workers[key] = Worker.options(**on(key[1])).remote()
        found = [self.workers[key] for key in enumerate(nodes)]
        try:
            ray.get([worker.__ray_ready__.remote() for worker in found], timeout=START_SECONDS)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError) as error:
            raise ArgumentError(
                f"--workers: the cluster has not started {len(nodes)} within {START_SECONDS:g} s "
                f"({type(error).__name__}); ask for fewer"
            ) from None
        return found

    def drop(self, workers: Sequence[Any]) -> None:
        """Releases the subjects; workers that do not reply are replaced."""
        _, stuck = ray.wait([w.drop.remote() for w in workers], num_returns=len(workers), timeout=START_SECONDS)
        if stuck:
            for worker in self.workers.values():
                ray.kill(worker)
            self.workers.clear()


def sweep(
    settings: Iterable[Setting],
    ops: tuple[str, ...],
    seconds: float,
    names: tuple[str, ...],
    nodes: Sequence[Node],
) -> Iterator[list[Row]]:
    """The rows of one setting after the other; `seconds` are those of each operation of each subject. When a setting
    does not fit the nodes, raises ArgumentError before it measures anything."""
    settings = list(settings)
    for setting in settings:
        where = places(setting.placement, nodes, setting.shards, setting.workers)
        needs = dict.fromkeys((node.id for node in nodes), 0)
        for node in where.shards:
            needs[node] += setting.server_memory // setting.shards
        for node in where.workers:
            needs[node] += setting.worker_memory
        require_memory(nodes, needs)
    crew = Crew(nodes)
    for setting in settings:
        yield list(measure(setting, ops, crew, seconds, names))


def measure(setting: Setting, ops: tuple[str, ...], crew: Crew, seconds: float, names: tuple[str, ...]) -> list[Row]:
    """Raises WrongAnswer."""
    where = places(setting.placement, crew.nodes, setting.shards, setting.workers)
    names = tuple(name for name in names if where.local() or not peers.PEERS[name].one_node)
    workers = crew.on(where.workers, fresh=any(peers.PEERS[name].joins for name in names))
    limit = CALL_SECONDS + 20 * seconds
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            fastps.ParameterServer(
                np.zeros(setting.elements, np.float32), rule=RULES[setting.rule](), num_shards=setting.shards,
                placement=list(where.shards),
            )
        )  # fmt: skip
        subjects = {"fastps": server}
        for name in names:
            subjects[name] = peers.module(name).create(setting.elements, setting.workers, where.shards[0], setting.rule)
            stack.callback(getattr(subjects[name], "close", lambda: None))
        ray.get(
            [worker.take.remote(setting.elements, subjects, setting.transport) for worker in workers], timeout=limit
        )
        stack.callback(crew.drop, workers)
        runs: dict[tuple[str, str], Runs] = {(op, name): [] for op in ops for name in subjects}
        counters = {op: dict.fromkeys(COUNTED, 0) for op in ops}
        for _ in range(TURNS):
            for op, name in runs:
                before = server.stats().total if name == "fastps" else None
                start = time.time() + LEAD_SECONDS
                calls = [worker.run.remote(name, op, seconds / TURNS, start) for worker in workers]
                try:
                    runs[op, name].append(ray.get(calls, timeout=limit))
                except ray.exceptions.GetTimeoutError:
                    raise StuckError(f"{setting}: {op} of {name} has not ended within {limit:.0f} s") from None
                if before is not None:
                    after = server.stats().total
                    for counter in COUNTED:
                        counters[op][counter] += after[counter] - before[counter]
        check(server, setting, workers, subjects, runs)
    hosts = {node.host for node in crew.nodes if node.id in where.workers}
    return compared([row_of(setting, where, key, taken, counters, len(hosts) == 1) for key, taken in runs.items()])


def row_of(
    setting: Setting,
    where: Places,
    key: tuple[str, str],
    runs: Runs,
    counters: dict[str, dict[str, int]],
    one_clock: bool,
) -> Row:
    op, name = key
    sample = Sample.of([[(stamps, cpu) for stamps, cpu, _ in run] for run in runs], one_clock)
    bounds, counts = sample.histogram()
    ours = name == "fastps"
    return Row(
        setting, op, name, float(np.mean(sample.rates)), sample.summary(), sample.turns, sample.rates,
        sample.cpu_seconds, counters[op] if ours else {}, (bounds.tolist(), counts.tolist()),
        transports(where, setting.transport) if ours else [], where, crossed(setting, where, op, name, runs),
    )  # fmt: skip


def transports(where: Places, transport: str) -> list[str]:
    """How each worker reaches the shards."""
    if transport == "ray":
        return ["ray"] * len(where.workers)
    shares = [where.share_elsewhere(worker) for worker in range(len(where.workers))]
    return ["shm" if share == 0 else "ray" if share == 1 else "mixed" for share in shares]


def crossed(setting: Setting, where: Places, op: str, name: str, runs: Runs) -> int:
    """Bytes of parameters and gradients between nodes, in all calls; none for gloo, whose way is its own."""
    if name in peers.PEERS and (peers.PEERS[name].private or peers.PEERS[name].in_step):
        return 0
    total = 0.0
    for worker in range(setting.workers):
        elsewhere = float(where.shards[0] != where.workers[worker])
        share = where.share_elsewhere(worker) if name == "fastps" else elsewhere
        calls = sum(run[worker][2] for run in runs)
        total += calls * share * setting.nbytes * (2 if op == "push_pull" else 1)
    return round(total)


def compared(rows: list[Row]) -> list[Row]:
    """The same, with their ratios to the reference and the plain Ray actor, as far as these do the same work, and to
    the memory's bandwidth."""
    medians = {(row.op, row.subject): (row.work, row.summary["median_ns"]) for row in rows}

    def median(row: Row, subject: str, work: str) -> float | None:
        found = medians.get((row.op, subject))
        return found[1] if found and found[0] == work else None

    def with_ratios(row: Row) -> Row:
        mine = medians[row.op, row.subject][1]
        reference, actor = (median(row, name, row.work) for name in (peers.REFERENCES[row.op], peers.ACTOR))
        triad = median(row, peers.MEMORY, "triad") if row.subject == "fastps" else None
        moved = STREAMS[row.setting.rule][row.op] / TRIAD_STREAMS[row.op]
        ratios = reference and mine / reference, actor and actor / mine, triad and moved * triad / mine
        return replace(row, **dict(zip(("to_reference", "to_actor", "of_bandwidth"), ratios, strict=True)))

    return [with_ratios(row) for row in rows]


def after(pushes: int, step: float) -> float:
    """Steps added one after the other in float32, which rounds them away from some point on."""
    value = np.float32(0)
    for start in range(0, pushes, ACCUMULATED):
        steps = np.full(1 + min(ACCUMULATED, pushes - start), step, np.float32)
        steps[0] = value
        value = np.add.accumulate(steps)[-1]
    return float(value)


def check(
    server: fastps.ParameterServer,
    setting: Setting,
    workers: Sequence[Any],
    subjects: dict[str, Any],
    runs: dict[tuple[str, str], Runs],
) -> None:
    """Every push was of ones, and each rule makes equal steps of equal gradients: what all workers pull in the end is
    known, of the server and of its peers. Raises WrongAnswer."""
    for name in subjects:
        if name in peers.PEERS and peers.PEERS[name].private:
            continue
        taken = [run for (op, subject), turns in runs.items() if subject == name and op != "pull" for run in turns]
        pushed = sum(calls for run in taken for _, _, calls in run)
        if name == "fastps" and server.versions != (pushed,) * setting.shards:
            raise WrongAnswer(f"{setting}: {pushed} pushes, and the shards have counted {server.versions}")
        step, tolerance = STEPS[setting.rule]
        # Workers in step make one push together, of the sum of their gradients.
        together = setting.workers if name in peers.PEERS and peers.PEERS[name].in_step else 1
        expected = after(pushed // together, step(together))
        for low, high in ray.get([worker.look.remote(name) for worker in workers]):
            if not np.allclose([low, high], expected, rtol=tolerance, atol=0):
                raise WrongAnswer(
                    f"{setting}: {pushed} pushes of ones to {name}, and the parameters are {low:g} to {high:g} where "
                    f"they should be {expected:g}"
                )
