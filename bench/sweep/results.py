"""Where the rows of a sweep are kept: one Parquet file, a row for each operation of each subject, with its histogram,
and the machine in the file's metadata. Beside it the same as pytest-benchmark writes it."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.harness.sample import PERCENTILES, enough
from bench.peers import ACTOR, REFERENCES, work_of
from bench.sweep.grid import Setting

if TYPE_CHECKING:  # comparing and reporting need no Ray
    from bench.sweep.run import Row

FORMAT, OLDER = "fastps sweep 3", "fastps sweep 2"
SETTING = [field.name for field in fields(Setting)]
IDENTITY = [*SETTING, "op", "subject"]
EXTRA = (
    "p90_ns", "p99_ns", "p999_ns", "p9999_ns", "work", "ops_second", "to_reference", "to_actor", "of_bandwidth",
    "crossed_bytes",
)  # fmt: skip


class ResultsError(ValueError):
    """Not a file of a sweep: one line that says what and why."""


@dataclass(frozen=True)
class Results:
    """Rows as dicts by column, and what they were measured with: `machine` as `fastps.machine.facts` has it, `commit`,
    `options`, `nodes` of Ray, `overhead_ns` of the record of a call, `begun` and `ended`."""

    rows: list[dict[str, Any]]
    about: dict[str, Any]

    def settings(self) -> set[Setting]:
        """Those that have been measured."""
        return {Setting(*(row[name] for name in SETTING)) for row in self.rows}


def as_dicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [row.flat() for row in rows]


def save(results: Results, path: str | os.PathLike[str]) -> None:
    """Writes atomically: an existing file stays until the new one is complete."""
    table = pa.Table.from_pylist(results.rows)
    metadata = {"format": FORMAT, "about": json.dumps(results.about)}
    with replacing(Path(path)) as partial:
        pq.write_table(table.replace_schema_metadata(metadata), partial)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` for the block to write to, which then takes its place; what a failed block wrote goes."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Results:
    """Raises ResultsError."""
    path = Path(path)
    if path.is_dir():
        raise ResultsError(f"{path}: a directory; name a file in it")
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise ResultsError(f"{path}: there is no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise ResultsError(f"{path}: no Parquet file that can be read ({str(error).splitlines()[0][:100]})") from None
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if metadata.get("format") not in (FORMAT, OLDER):
        raise ResultsError(f"{path}: not a result of `bench sweep`, or one of another version")
    rows = table.to_pylist()
    if metadata["format"] == OLDER:
        rows = [upgraded(row) for row in rows]
    return Results(rows, json.loads(metadata["about"]))


def upgraded(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the format before, in which every peer added whatever the rule, percentiles were kept of any number of
    calls, and the rates of turns were not kept."""
    subject = "in_place" if row["subject"] == "numpy_in_place" else row["subject"]
    work = work_of(subject, row["op"], row["rule"] if subject == "fastps" else "add")
    named = {**row, "subject": subject, "work": work, "p9999_ns": None, "turns_ops_second": None}
    for name, older, other in (
        ("to_reference", "to_roof", REFERENCES[row["op"]]), ("to_actor", "to_floor", ACTOR),
    ):  # fmt: skip
        ratio = named.pop(older)
        named[name] = ratio if work == work_of(other, row["op"], "add") else None
    for name, percentile in PERCENTILES.items():
        if not enough(row["calls"], percentile):
            named[name] = None
    return named


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def as_pytest_benchmark(results: Results) -> dict[str, Any]:
    """For ``pytest-benchmark compare``. Quartiles and deviations are of the histogram, whose bins are 2 % wide."""
    machine = results.about["machine"]
    processor = machine["processor"]
    return {
        "machine_info": {"node": "", "machine": processor["architecture"], "cpu": processor, **machine},
        "commit_info": results.about.get("commit", {}),
        "benchmarks": [_benchmark(row) for row in results.rows],
        "datetime": results.about["ended"],
        "version": "5.1.0",
    }  # fmt: skip


def save_pytest_benchmark(results: Results, path: Path) -> None:
    """As `as_pytest_benchmark` has it; whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(as_pytest_benchmark(results), indent=1), encoding="utf-8")


def is_pytest_benchmark(path: Path) -> bool:
    """Whether a file is what `save_pytest_benchmark` writes."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
        return all(one["fullname"].startswith("bench/sweep[") for one in found)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _benchmark(row: dict[str, Any]) -> dict[str, Any]:
    params = {name: row[name] for name in IDENTITY}
    name = "-".join(str(value) for value in params.values())
    return {
        "group": "-".join(str(row[name]) for name in (*SETTING, "op")),
        "name": f"sweep[{name}]",
        "fullname": f"bench/sweep[{name}]",
        "params": params,
        "param": name,
        "extra_info": {name: row[name] for name in EXTRA},
        "options": {"timer": "perf_counter_ns", "warmup": True},
        "stats": _stats(row),
    }


def _stats(row: dict[str, Any]) -> dict[str, Any]:
    bins, counts, calls = row["bins_ns"], row["bin_counts"], row["calls"]

    def quantile(share: float) -> float:
        seen = 0
        for bound, count in zip(bins, counts, strict=True):
            seen += count
            if seen >= share * calls:
                return float(bound) * 1e-9
        return float(bins[-1]) * 1e-9

    mean = sum(b * c for b, c in zip(bins, counts, strict=True)) / calls
    deviation = (sum(c * (b - mean) ** 2 for b, c in zip(bins, counts, strict=True)) / calls) ** 0.5
    q1, q3 = quantile(0.25), quantile(0.75)
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    return {
        "min": row["min_ns"] * 1e-9, "max": row["max_ns"] * 1e-9, "mean": mean * 1e-9, "stddev": deviation * 1e-9,
        "rounds": calls, "median": row["median_ns"] * 1e-9, "iqr": q3 - q1, "q1": q1, "q3": q3, "iqr_outliers": 0,
        "stddev_outliers": 0, "outliers": "0;0", "ld15iqr": max(low, row["min_ns"] * 1e-9),
        "hd15iqr": min(high, row["max_ns"] * 1e-9), "ops": 1e9 / mean, "total": mean * calls * 1e-9, "iterations": 1,
    }  # fmt: skip
