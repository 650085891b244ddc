"""What a table costs: pull, push and birth of rows, beside numpy, torch and a Python dict of arrays.

    python bench/questions/tables.py [--rows 1000000] [--large 10000000] [--seconds 4] [--sections
    rows,dims,large,births,dict,growth]

One process, one thread, one shard, float32. Every batch has fresh keys, drawn uniformly or by Zipf's law (exponent 1.1)
over all rows, so nothing is warm from the last one. The references are np.take on a dense matrix, and torch's
index_add_ on one, with the numbers of the rows known; both matrices have huge pages. What one would otherwise write is
a dict of arrays in a Python loop. Subjects take turns of 131,072 keys or rows, of which the second half counts: before
that a subject pays for what the one before has left behind, dirty cache lines and caches full of another matrix's page
table. Answers are checked before times are printed. torch's columns are left out without it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("RAY_worker_niceness", "0")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import ray

import fastps
from bench.harness.bars import Report, check, json_file
from bench.harness.times import Times

try:
    import torch
except ImportError:
    torch = None

FLOAT = np.float32
BATCHES = (4096, 65536)
TURN = 131_072
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
        self.keys = self.rng.permutation(np.arange(n, dtype=np.int64) * 7 + 3)  # born in no order
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
        places = self.rng.integers(0, min(self.n, 1000), 4096)
        grads = self.rng.normal(size=(4096, self.dim)).astype(FLOAT)
        table.push(self.keys[places], grads)
        sums = np.zeros((self.n if self.n < 1000 else 1000, self.dim), FLOAT)
        np.add.at(sums, places, grads)
        expected = self.dense[: len(sums)] - FLOAT(LR) * sums
        check(np.allclose(table.pull(self.keys[: len(sums)]), expected, atol=1e-5), "a push with keys that come again")
        table.set(self.keys[: len(sums)], self.dense[: len(sums)])


def timed(operation: Callable[[], object]) -> float:
    start = time.perf_counter()
    operation()
    return time.perf_counter() - start


def turn(draw: Draw, m: int, operation: Callable[[np.ndarray], object]) -> list[float]:
    half, taken = max(1, TURN // m // 2), []
    for _ in range(2 * half):
        fresh = draw(m)
        start = time.perf_counter()
        operation(fresh)
        taken.append(time.perf_counter() - start)
    return taken[half:]


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
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken["take"]) < 12:
        for name, (fresh, operation) in subjects.items():
            taken[name] += turn(fresh, m, operation)
    return {name: Times(np.array(values[2:])) for name, values in taken.items()}


def rate(m: int, times: Times) -> str:
    return f"{m / times.median / 1e6:.1f} M/s"


def report_rows(report: Report, section: str, s: Subjects, seconds: float, bar: float) -> None:
    torch is None or torch.set_num_threads(1)
    s.check()
    for kind, make in DRAWS.items():
        draw = make(s.rng, s.n)
        for m in BATCHES:
            times, size = measure(s, draw, m, seconds), m * s.dim * 4
            take, pull, sgd = times["take"], times["pull SGD"], times["push SGD"]
            label = f"{kind} {m:,}"
            report.add(
                section, size, f"{label}: pull / np.take", f"{rate(m, pull)}, np.take {rate(m, take)}",
                pull.median / take.median, most=bar,
            )  # fmt: skip
            if "index_add_" in times:
                add = times["index_add_"]
                report.add(
                    section, size, f"{label}: push SGD / index_add_", f"{rate(m, sgd)}, index_add_ {rate(m, add)}",
                    sgd.median / add.median, most=bar,
                )  # fmt: skip
            for name in ("Adagrad", "RowAdagrad"):
                if f"push {name}" in times:
                    push = times[f"push {name}"]
                    report.add(
                        section, size, f"{label}: push {name} / SGD", f"{rate(m, push)}, SGD {rate(m, sgd)}",
                        push.median / sgd.median, most=1.5,
                    )  # fmt: skip


def rows(report: Report, n: int, seconds: float) -> None:
    report.head(f"{n:,} rows of 64: rows a second beside numpy and torch with the numbers of the rows known")
    s = Subjects(n, 64, ["SGD"])
    report_rows(report, "rows", s, seconds, 1.4)
    s.close()
    report.head(f"{n:,} rows of 64: rules with state beside SGD, three tables by turns")
    s = Subjects(n, 64, list(RULES))
    for kind, make in DRAWS.items():
        for m in BATCHES:
            times = measure(s, make(s.rng, n), m, seconds)
            for name in ("Adagrad", "RowAdagrad"):
                push, sgd = times[f"push {name}"], times["push SGD"]
                report.add(
                    "rules", m * 256, f"{kind} {m:,}: push {name} / SGD", f"{rate(m, push)}, SGD {rate(m, sgd)}",
                    push.median / sgd.median, most=1.5,
                )  # fmt: skip
    s.close()


def large(report: Report, n: int, seconds: float) -> None:
    report.head(f"{n:,} rows of 64")
    s = Subjects(n, 64, ["SGD"])
    stats = s.tables["SGD"].stats()[0]
    for m in BATCHES:
        times = measure(s, uniform(s.rng, n), m, seconds)
        take, pull = times["take"], times["pull SGD"]
        report.add(
            "large", m * 256, f"uniform {m:,}: pull / np.take", f"{rate(m, pull)}, np.take {rate(m, take)}",
            pull.median / take.median, most=1.6,
        )  # fmt: skip
    over = stats.bytes / stats.rows - 256
    report.add(
        "large", stats.bytes, "memory beyond the values, B a row", f"{stats.rebuilt} indexes built", over, most=32
    )
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


def births(report: Report, n: int) -> None:
    """Twice: memory that nothing has used since the machine came up may be slow to come, which is not about tables."""
    report.head(f"Births, {n:,} rows of 64, batches of 65,536: by push, and by pull")
    keys = np.random.default_rng(1).permutation(np.arange(n, dtype=np.int64) * 7 + 3)
    out, zeros = np.ones((65536, 64), FLOAT), np.zeros((65536, 64), FLOAT)
    kinds = {"constant": 0.0, "uniform": fastps.init.Uniform(-1, 1), "normal": fastps.init.Normal()}
    for name, init in kinds.items():
        best: dict[str, float] = {}
        for _ in range(3):
            server = fastps.ParameterServer(
                {verb: fastps.Table(64, rule=fastps.SGD(LR), init=init) for verb in ("push", "pull")}
            )
            times: dict[str, list[float]] = {"push": [], "pull": [], "fill": []}
            fresh = np.empty((n, 68), FLOAT)
            for start in range(0, n - 65535, 65536):
                some = keys[start : start + 65536]
                push = timed(lambda k=some, s=server: s["push"].push(k, zeros))
                pull = timed(lambda k=some, s=server: s["pull"].pull(k, out=out))
                fill = timed(lambda b=start, f=fresh: f[b : b + 65536].fill(1))
                for verb, value in (("push", push), ("pull", pull), ("fill", fill)):
                    times[verb].append(value)
            check(len(server["push"]) == len(server["pull"]), "as many rows were born by push as by pull")
            server.close()
            for verb, values in times.items():
                best[verb] = max(best.get(verb, 0.0), 65536 / float(np.median(values)) / 1e6)
        for verb in ("push", "pull"):
            text = f"{best[verb]:.1f} M/s; np.fill of fresh memory {best['fill']:.1f} M/s"
            report.add("births", 65536 * 272, f"{name}: births by {verb}, M/s", text, best[verb], least=5)


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

    taken: dict[str, list[float]] = {"pull": [], "push": [], "dict pull": [], "dict push": []}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        keys = s.keys[s.rng.integers(0, n, m)]
        listed = keys.tolist()
        taken["pull"].append(timed(lambda k=keys: table.pull(k, out=out)))
        taken["push"].append(timed(lambda k=keys: table.push(k, grads)))
        taken["dict pull"].append(timed(lambda k=listed: pull(k)))
        taken["dict push"].append(timed(lambda k=listed: push(k)))
    times = {name: Times(np.array(values)) for name, values in taken.items()}
    for verb in ("pull", "push"):
        ours, theirs = times[verb], times[f"dict {verb}"]
        report.add(
            "dict", m * 256, f"dict {verb} / {verb}", f"{rate(m, ours)}, dict {rate(m, theirs)}",
            theirs.median / ours.median,
        )  # fmt: skip
    s.close()


@ray.remote
def grow(server: fastps.ParameterServer, first: int, last: int, step: int) -> float:
    """Pushes ones to keys [0, k) for growing k, all the while; answers how much in all."""
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
        start = time.perf_counter()
        pushed = sum(ray.get([grow.remote(server, 1000, n, 60_000) for _ in range(2)]))
        seconds = time.perf_counter() - start
        total = sum(float(rows.sum(dtype=np.float64)) for _, rows in server.table.items())
        stats = server.table.stats()[0]
        text = f"{stats.rows:,} rows, {stats.rebuilt} indexes, {seconds:.1f} s; {pushed:,.0f} pushed"
        report.add("growth", stats.bytes, "found / pushed", text, total / pushed, least=1)


SECTIONS = ("rows", "large", "dims", "births", "dict", "growth")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--large", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each batch size and distribution")
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--json", type=json_file)
    options = parser.parse_args()
    wanted = options.sections.split(",")
    if set(wanted) - set(SECTIONS):
        parser.error(f"--sections: expected some of {','.join(SECTIONS)}, got {options.sections}")
    ray.init("local", log_to_driver=False, include_dashboard=False)
    report = Report()
    if "rows" in wanted:
        rows(report, options.rows, options.seconds)
    if "large" in wanted:
        large(report, options.large, options.seconds)
    if "dims" in wanted:
        dims(report, options.rows, options.seconds / 2)
    if "births" in wanted:
        births(report, options.rows)
    if "dict" in wanted:
        against_dict(report, options.rows, options.seconds)
    if "growth" in wanted:
        growth(report, options.large)
    return report.end(options.json)


if __name__ == "__main__":
    sys.exit(main())
