"""The timing loop: every duration that a benchmark reports of single calls is the difference of two of its stamps.

It records when each call ended; the next call begins there, so no time falls between two calls. `interleaved` gives
several subjects turns of it, so that a drifting machine affects all of them equally; `prepared` makes new input before
each call, in a call of the same loop whose duration is not counted.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from bench.harness.sample import Times

T = TypeVar("T")
Operation = Callable[[], object]
BLOCK = 1000  # stamps between two looks at the time that is left
TURN_CALLS = (3, 400)  # the fewest and the most calls of a turn of `interleaved`


def stamps(operation: Operation, seconds: float = 0.0, at_least: int = 3, calls: int | None = None) -> np.ndarray:
    """Calls an operation for `seconds`, or `calls` times: when it began, and when each call ended, int64[calls + 1],
    ns.

    A call that is held up delays the next one in the record as it does in use (no coordinated omission). Cost of the
    record: about 50 ns a call (`overhead`). Stamps go to a list that exists before the calls: storing a number in an
    array of numpy takes longer than reading the clock.
    """
    clock = time.perf_counter_ns
    start = clock()
    end, found = start + round(seconds * 1e9), [start]
    block = calls or 1
    while True:
        part = [0] * block
        for i in range(block):
            operation()
            part[i] = clock()
        found += part
        done, now = len(found) - 1, part[-1]
        if done == calls or (now >= end and done >= at_least):
            return np.array(found, np.int64)
        pace = (now - start) / done
        block = max(1, min(BLOCK, int((end - now) / pace / 2), 2 * block)) if now < end else 1


def once(operation: Callable[[], T]) -> tuple[T, float]:
    """What one call returns, and its seconds."""
    results: list[T] = []
    begun, ended = stamps(lambda: results.append(operation()), calls=1)
    return results[0], float(ended - begun) / 1e9


def interleaved(operations: Mapping[str, Operation], seconds: float, turns: int = 9) -> dict[str, Times]:
    """Each operation in short runs by turns, for about `seconds` in all. The first two calls of each are warm-up, and
    so is the first of every turn: it brings the operation's memory back into the caches, as in a loop of its own."""
    least, most = TURN_CALLS
    calls = {}
    for name, operation in operations.items():
        operation()
        pace = max(once(operation)[1], 1e-7)
        calls[name] = int(max(least, min(most, seconds / len(operations) / turns / pace)))
    taken: dict[str, list[np.ndarray]] = {name: [] for name in operations}
    for _ in range(turns):
        for name, operation in operations.items():
            operation()
            taken[name].append(np.diff(stamps(operation, calls=calls[name])))
    return {name: Times(np.concatenate(parts)) for name, parts in taken.items()}


def prepared(
    prepare: Callable[[], T],
    operations: Sequence[Callable[[T], object]],
    seconds: float = 0.0,
    rounds: int | None = None,
) -> np.ndarray:
    """Operations one after the other, each on what `prepare` has made for that round, for a time or a number of rounds:
    their durations without those of `prepare`, int64[rounds, operations] in ns."""
    made: list[T] = []

    def make() -> None:
        made[:] = [prepare()]

    steps = [make, *(lambda call=operation: call(made[0]) for operation in operations)]
    order = itertools.cycle(steps)
    calls = None if rounds is None else rounds * len(steps)
    found = np.diff(stamps(lambda: next(order)(), seconds, at_least=len(steps), calls=calls))
    return found[: len(found) // len(steps) * len(steps)].reshape(-1, len(steps))[:, 1:]


def wait_until(start: float) -> None:
    """Spins until a time of the wall clock: for processes that begin together."""
    while time.time() < start:
        pass


def _nothing() -> None:
    pass


def overhead(seconds: float = 0.05) -> float:
    """What the record of a call costs here, in ns: calls that do nothing, less the same calls without a record."""
    recorded = float(np.median(np.diff(stamps(_nothing, seconds))))
    count, bare = 20_000, math.inf
    for _ in range(5):
        start = time.perf_counter_ns()
        for _ in range(count):
            _nothing()
        bare = min(bare, (time.perf_counter_ns() - start) / count)
    return max(0.0, recorded - bare)
