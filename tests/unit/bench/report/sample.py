"""Results as a sweep makes them, from times that are made up."""

import numpy as np

from bench.sweep import results
from bench.sweep.grid import Setting
from bench.sweep.placement import Places
from bench.sweep.run import Row, compared
from fastps.machine import facts as machine

MEDIANS = {"fastps": 2_000, "memcpy": 1_000, "in_place": 1_500, "triad": 2_500, "ray_actor": 800_000}


def row(setting, op, subject, median, transports, where):
    durations = np.linspace(0.5 * median, 1.5 * median, 999)
    bins = np.floor(np.log2(durations) * 32)
    numbers, counts = np.unique(bins, return_counts=True)
    p90, p99, p999 = (int(np.percentile(durations, p)) for p in (90, 99, 99.9))
    summary = {
        "calls": 999, "min_ns": int(durations[0]), "median_ns": median, "p90_ns": p90, "p99_ns": p99, "p999_ns": p999,
        "p9999_ns": None, "max_ns": int(durations[-1]),
    }  # fmt: skip
    counters = {"lock_waits": 7, "lock_wait_ns": 8, "lock_sleeps": 9, "read_retries": 10} if subject == "fastps" else {}
    rate = setting.workers * 1e9 / median
    histogram = (np.exp2(numbers / 32).tolist(), counts.tolist())
    return Row(
        setting, op, subject, rate, summary, [float(median)] * 10, [rate] * 10, 0.1, counters, histogram, transports,
        where, 0,
    )  # fmt: skip


MORE = {"shared_array": 1_800, "torch_rpc": 500_000}


def sample(
    sizes=(80, 80_000),
    shards=(1,),
    workers=(1, 2),
    ops=("pull", "push"),
    ways=("shm",),
    peers=None,
    nodes="a",
    rule="add",
):
    """A result whose medians are MEDIANS for 80 bytes, and of fastps grow with the size's logarithm."""
    rows = []
    for nbytes in sizes:
        for count in workers:
            for cut in shards:
                for way in ways:
                    setting = Setting(nbytes, cut, count, rule, "ray" if way == "ray" else "auto")
                    where = Places((nodes[0],) * cut, tuple(nodes[i % len(nodes)] for i in range(count)))
                    factor = (1 + max(0, int(np.log10(nbytes / 80)))) * (100 if way == "ray" else 1)
                    names = MEDIANS if peers is None else ("fastps", *peers)
                    found = [
                        row(setting, op, name, (MEDIANS | MORE)[name] * (factor if name == "fastps" else 1),
                            [way] * count if name == "fastps" else [], where)
                        for op in ops for name in names
                    ]  # fmt: skip
                    rows += compared(found)
    about = {
        "machine": machine.facts(steal_seconds=0), "commit": {"id": "0123456789abcdef", "dirty": False}, "options": {},
        "overhead_ns": 61.0, "nodes": [{"id": node, "host": "10.0.0.1", "memory": 1.0} for node in nodes],
        "begun": "2026-01-02T03:04:05+00:00", "ended": "2026-01-02T03:05:05+00:00",
    }  # fmt: skip
    return results.Results(results.as_dicts(rows), about)
