"""What does a table cost: rows a second beside numpy and torch on a dense matrix, memory, row creation, growth?

The references are np.take on a dense matrix, and torch's index_add_ on one, with the numbers of the rows known; both
matrices have huge pages. What one would otherwise write is a dict of arrays in a Python loop. One process, one thread,
one shard, float32. Every batch has fresh keys, drawn uniformly or by Zipf's law (exponent 1.1) over all rows, so
nothing is warm from the last one.

What would change a decision: a pull above 1.4 of np.take's time, or a push above 1.4 of index_add_'s, says that the
index costs more than the rows; less than 5 million rows created a second, that creation needs a way of its own; more
than 32 B a row beyond its values, that the index is too large.

Subjects take turns of 131,072 keys or rows, of which the second half counts: before that a subject pays for what the
one before has left behind, dirty cache lines and caches full of another matrix's page table. Answers are checked before
times are printed. torch's columns are left out without it.
"""

from __future__ import annotations

from collections.abc import Callable

import click
import numpy as np
import ray

import fastps
from bench.harness.bars import Report, check
from bench.harness.loop import once, prepared, stamps
from bench.harness.question import SECONDS, question, sections_of
from bench.harness.raylets import local_ray
from bench.harness.sample import Times
from bench.questions import QUESTIONS

try:
    import torch
except ImportError:
    torch = None

FLOAT = np.float32
BATCHES = (4096, 65536)
TURN, LEAST = 131_072, 12  # keys or rows of a turn; operations of each subject
DIMS = (8, 16, 32, 64, 128, 256)
LR = 0.01
RULES = {"SGD": fastps.SGD(LR), "Adagrad": fastps.Adagrad(LR), "RowAdagrad": fastps.RowAdagrad(LR)}
Draw = Callable[[int], np.ndarray]


def uniform(rng: np.random.Generator, n: int) -> Draw:
    return lambda m: rng.integers(0, n, m)


def zipf(rng: np.random.Generator, n: int) -> Draw:
    def draw(m: int) -> np.ndarray:
        found = np.empty(0, np.int64)
        while len(found) < m:
            some = rng.zipf(1.1, 2 * m) - 1
            found = np.concatenate([found, some[some < n]])
        return found[:m]

    return draw


DRAWS = {"uniform": uniform, "zipf": zipf}


class Subjects:
    """A table for each rule, and the dense matrix beside it. Row i of the matrix is that of keys[i]."""

    def __init__(self, n: int, dim: int, rules: list[str], seed: int = 1) -> None:
        self.n, self.dim, self.rng = n, dim, np.random.default_rng(seed)
        self.keys = self.rng.permutation(np.arange(n, dtype=np.int64) * 7 + 3)  # created in no order
        self.dense = np.empty((n, dim), FLOAT)
        self.server = fastps.ParameterServer(
            {name: fastps.Table(dim, rule=RULES[name], init=fastps.init.Uniform(-0.1, 0.1)) for name in rules}
        )
        self.tables = {name: self.server[name] for name in rules}
        for start in range(0, n, 65536):
            some = self.keys[start : start + 65536]
            for table in self.tables.values():
                table.pull(some, out=self.dense[start : start + len(some)])
        self.torch = None if torch is None else torch.from_numpy(self.dense)

    def close(self) -> None:
        self.server.close()

    def check(self) -> None:
        """A table and the matrix go through the same pushes, with keys that come more than once."""
        table = self.tables["SGD"]
        places = self.rng.integers(0, 1000, 4096)
        grads = self.rng.normal(size=(4096, self.dim)).astype(FLOAT)
        table.push(self.keys[places], grads)
        sums = np.zeros((1000, self.dim), FLOAT)
        np.add.at(sums, places, grads)
        expected = self.dense[: len(sums)] - FLOAT(LR) * sums
        check(np.allclose(table.pull(self.keys[: len(sums)]), expected, atol=1e-5), "a push with keys that come again")
        table.set(self.keys[: len(sums)], self.dense[: len(sums)])


def turn(fresh: Draw, m: int, operation: Callable[[np.ndarray], object]) -> np.ndarray:
    """Durations of single operations in ns, each on m fresh keys."""
    half = max(1, TURN // m // 2)
    return prepared(lambda: fresh(m), [operation], rounds=2 * half)[half:, 0]


def measure(s: Subjects, draw: Draw, m: int, seconds: float) -> dict[str, Times]:
    """Fresh keys for every single operation."""
    out, grads = np.zeros((m, s.dim), FLOAT), s.rng.normal(size=(m, s.dim)).astype(FLOAT) * FLOAT(1e-3)
    subjects: dict[str, tuple[Draw, Callable[[np.ndarray], object]]] = {
        "take": (draw, lambda rows: np.take(s.dense, rows, axis=0, out=out, mode="clip"))
    }
    for name, table in s.tables.items():
        subjects[f"pull {name}"] = lambda m: s.keys[draw(m)], lambda keys, t=table: t.pull(keys, out=out)
        subjects[f"push {name}"] = lambda m: s.keys[draw(m)], lambda keys, t=table: t.push(keys, grads)
    if s.torch is not None:
        given = torch.from_numpy(grads)
        subjects["index_add_"] = (
            lambda m: torch.from_numpy(draw(m)),
            lambda rows: s.torch.index_add_(0, rows, given, alpha=-LR),
        )
    taken: dict[str, list[np.ndarray]] = {name: [] for name in subjects}

    def turns() -> None:
        for name, (fresh, operation) in subjects.items():
            taken[name].append(turn(fresh, m, operation))

    stamps(turns, seconds, at_least=-(-LEAST // max(1, TURN // m // 2)))
    return {name: Times(np.concatenate(parts)[2:]) for name, parts in taken.items()}


def rate(m: int, times: Times) -> str:
    return f"{m / times.median / 1e6:.1f} M/s"


def add_ratio(
    report: Report, section: str, m: int, what: str, ours: Times, name: str, theirs: Times, bar: float
) -> None:
    """How many times as long as a reference of that name an operation on m rows of 64 takes; rows a second of both."""
    shown = f"{rate(m, ours)}, {name} {rate(m, theirs)}"
    report.add(section, m * 256, what, shown, ours.median / theirs.median, most=bar)


def rows(report: Report, n: int, seconds: float) -> None:
    report.head(f"{n:,} rows of 64: rows a second beside numpy and torch with the numbers of the rows known")
    s = Subjects(n, 64, ["SGD"])
    torch is None or torch.set_num_threads(1)
    s.check()
    for kind, make in DRAWS.items():
        for m in BATCHES:
            times, label = measure(s, make(s.rng, n), m, seconds), f"{kind} {m:,}"
            pull, push = times["pull SGD"], times["push SGD"]
            add_ratio(report, "rows", m, f"{label}: pull / np.take", pull, "np.take", times["take"], 1.4)
            if torch is not None:
                add = times["index_add_"]
                add_ratio(report, "rows", m, f"{label}: push SGD / index_add_", push, "index_add_", add, 1.4)
    s.close()
    report.head(f"{n:,} rows of 64: rules with state beside SGD, three tables by turns")
    s = Subjects(n, 64, list(RULES))
    for kind, make in DRAWS.items():
        for m in BATCHES:
            times = measure(s, make(s.rng, n), m, seconds)
            for name in ("Adagrad", "RowAdagrad"):
                what, push = f"{kind} {m:,}: push {name} / SGD", times[f"push {name}"]
                add_ratio(report, "rules", m, what, push, "SGD", times["push SGD"], 1.5)
    s.close()


def large(report: Report, n: int, seconds: float) -> None:
    report.head(f"{n:,} rows of 64")
    s = Subjects(n, 64, ["SGD"])
    stats = s.tables["SGD"].stats()[0]
    for m in BATCHES:
        times, what = measure(s, uniform(s.rng, n), m, seconds), f"uniform {m:,}: pull / np.take"
        add_ratio(report, "large", m, what, times["pull SGD"], "np.take", times["take"], 1.6)
    shown, beyond = f"{stats.rebuilt} indexes built", stats.bytes / stats.rows - 256
    report.add("large", stats.bytes, "memory beyond the values, B a row", shown, beyond, most=32)
    s.close()


def dims(report: Report, n: int, seconds: float) -> None:
    report.head("Rows a second by dim, uniform, batches of 65,536")
    for dim in DIMS:
        s = Subjects(n if dim <= 64 else n // (dim // 64), dim, ["SGD"])
        times, m = measure(s, uniform(s.rng, s.n), 65536, seconds), 65536
        take, pull, push = times["take"], times["pull SGD"], times["push SGD"]
        what = f"pull {rate(m, pull)}, push {rate(m, push)}, np.take {rate(m, take)}"
        report.add("dims", dim * 4, f"{s.n:,} rows of {dim}: pull / np.take", what, pull.median / take.median)
        s.close()


def creation(init: object, keys: np.ndarray, m: int) -> np.ndarray:
    """Millions of rows of 64 created a second by push and by pull, in batches of m; and as many filled in an array."""
    out, zeros, unused = np.ones((m, 64), FLOAT), np.zeros((m, 64), FLOAT), np.empty((len(keys), 68), FLOAT)
    batches = iter([slice(start, start + m) for start in range(0, len(keys) - m + 1, m)])
    tables = {verb: fastps.Table(64, rule=fastps.SGD(LR), init=init) for verb in ("push", "pull")}
    with fastps.ParameterServer(tables) as server:
        by_push, by_pull = server["push"], server["pull"]
        operations = (
            lambda some: by_push.push(keys[some], zeros),
            lambda some: by_pull.pull(keys[some], out=out),
            lambda some: unused[some].fill(1),
        )
        taken = prepared(lambda: next(batches), operations, rounds=len(keys) // m)
        check(len(by_push) == len(by_pull), "as many rows were created by push as by pull")
    return np.array([m / Times(durations).median / 1e6 for durations in taken.T])


def row_creation(report: Report, n: int) -> None:
    """The best of three: memory that nothing has used since the machine came up may be slow to come, which is not about
    tables."""
    m = 65_536
    report.head(f"Row creation, {n:,} rows of 64, batches of {m:,}: by push, and by pull")
    keys = np.random.default_rng(1).permutation(np.arange(n, dtype=np.int64) * 7 + 3)
    kinds = {"constant": 0.0, "uniform": fastps.init.Uniform(-1, 1), "normal": fastps.init.Normal()}
    for name, init in kinds.items():
        by_push, by_pull, fill = np.max([creation(init, keys, m) for _ in range(3)], axis=0)
        for verb, found in (("push", by_push), ("pull", by_pull)):
            text = f"{found:.1f} M/s; np.fill of fresh memory {fill:.1f} M/s"
            report.add("creation", m * 272, f"{name}: rows created by {verb}, M/s", text, float(found), least=5)


def against_dict(report: Report, n: int, seconds: float) -> None:
    report.head("Beside a Python dict of arrays, 64 values a row")
    n = min(n, 100_000)
    s = Subjects(n, 64, ["SGD"])
    rows = {int(key): s.dense[i].copy() for i, key in enumerate(s.keys)}
    table, m = s.tables["SGD"], 4096
    grads, out = np.ones((m, 64), FLOAT) * FLOAT(1e-3), np.zeros((m, 64), FLOAT)

    def pull(keys: list[int]) -> None:
        for i, key in enumerate(keys):
            out[i] = rows[key]

    def push(keys: list[int]) -> None:
        for i, key in enumerate(keys):
            rows[key] -= FLOAT(LR) * grads[i]

    def draw() -> tuple[np.ndarray, list[int]]:
        keys = s.keys[s.rng.integers(0, n, m)]
        return keys, keys.tolist()

    operations = {
        "pull": lambda given: table.pull(given[0], out=out), "push": lambda given: table.push(given[0], grads),
        "dict pull": lambda given: pull(given[1]), "dict push": lambda given: push(given[1]),
    }  # fmt: skip
    taken = prepared(draw, list(operations.values()), seconds)
    times = {name: Times(durations) for name, durations in zip(operations, taken.T, strict=True)}
    for verb in ("pull", "push"):
        ours, theirs = times[verb], times[f"dict {verb}"]
        shown = f"{rate(m, ours)}, dict {rate(m, theirs)}"
        report.add("dict", m * 256, f"dict {verb} / {verb}", shown, theirs.median / ours.median)
    s.close()


@ray.remote
def grow(server: fastps.ParameterServer, first: int, last: int, step: int) -> float:
    """Pushes ones to keys [0, k) for growing k, all the while; returns the sum of all."""
    table, rng, pushed = server.table, np.random.default_rng(first), 0.0
    ones = np.ones((65536, 1), FLOAT)
    for k in range(first, last + 1, step):
        fresh = np.arange(max(0, k - step), k)
        again = rng.integers(0, k, 4096)
        for keys in (fresh, again):
            table.push(keys, ones[: len(keys)])
            pushed += len(keys)
    return pushed


def growth(report: Report, n: int) -> None:
    report.head(f"From 1,000 to {n:,} rows, two workers that push all the while")
    with fastps.ParameterServer(fastps.Table(1, rule=fastps.Add(), init=0.0)) as server:
        server.table.pull(np.arange(1000))
        pushed, seconds = once(lambda: sum(ray.get([grow.remote(server, 1000, n, 60_000) for _ in range(2)])))
        total = sum(float(rows.sum(dtype=np.float64)) for _, rows in server.table.items())
        stats = server.table.stats()[0]
        text = f"{stats.rows:,} rows, {stats.rebuilt} indexes, {seconds:.1f} s; {pushed:,.0f} pushed"
        report.add("growth", stats.bytes, "found / pushed", text, total / pushed, least=1)


@question(n=140_000, n_large=200_000, seconds=0.05)
@sections_of(QUESTIONS["tables"].sections)
@click.option("--rows", "n", type=click.IntRange(min=65_536), default=1_000_000, show_default=True)
@click.option("--large", "n_large", type=click.IntRange(min=65_536), default=10_000_000, show_default=True)
@click.option("--seconds", type=SECONDS, default=4.0, show_default=True, help="for each batch size and distribution")
def command(report: Report, sections: list[str], n: int, n_large: int, seconds: float) -> None:
    parts = {
        "rows": lambda: rows(report, n, seconds), "large": lambda: large(report, n_large, seconds),
        "dims": lambda: dims(report, n, seconds / 2), "creation": lambda: row_creation(report, n),
        "dict": lambda: against_dict(report, n, seconds), "growth": lambda: growth(report, n_large),
    }  # fmt: skip
    with local_ray():
        for name in sections:
            parts[name]()
