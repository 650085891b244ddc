"""How much of the long tests a run does: their short form (`make test`), or all of it (`make test-all`).

A test that repeats something says how often with `short_or_long`; one over combinations that prove little more than
their pairs, or than each value once, has them from `combinations` or `samples`. This is the one place of the
tests in Python that reads the switch, FASTPS_TEST_LONG; those in C have csrc/test/check.h.
"""

from __future__ import annotations

import itertools
import os

import pytest

LONG = os.environ.get("FASTPS_TEST_LONG", "0") not in ("", "0")


def short_or_long(short, long):
    """The value for the form of this run."""
    return long if LONG else short


def repeat(times, until=lambda: True):
    """Numbers from 0: `times` of them, and more while what has to be met by chance, `until()`, was not met."""
    for number in itertools.count():
        if number >= times and until():
            return
        yield number


def combinations(**values):
    """Parametrizes a test: every combination of the values in the long form; in the short one so many that each pair of
    values of two parameters comes at least once."""
    return parametrized(values, every_pair([len(column) for column in values.values()]))


def samples(**values):
    """The same for what costs a server each: in the short form so few that each value comes at least once."""
    counts = [len(column) for column in values.values()]
    return parametrized(values, [tuple(i % count for count in counts) for i in range(max(counts))])


def parametrized(values, short):
    names, columns = list(values), list(values.values())
    rows = list(itertools.product(*(range(len(column)) for column in columns))) if LONG else short
    chosen = [[column[number] for column, number in zip(columns, row, strict=True)] for row in rows]
    cases = [pytest.param(*case, id="-".join(map(text_of, case))) for case in chosen]
    return pytest.mark.parametrize(names if len(names) > 1 else names[0], cases)


def text_of(value) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", None) or repr(value)


def every_pair(counts):
    """Few rows of numbers below `counts`, so that each two columns have all pairs of their numbers: greedily the row
    that has most of the pairs that are missing, the first of several."""
    missing = {
        (a, i, b, j)
        for a, b in itertools.combinations(range(len(counts)), 2)
        for i in range(counts[a])
        for j in range(counts[b])
    }
    if not missing:
        return [(i,) for i in range(counts[0])]
    rows = []
    while missing:
        a, i, b, j = min(missing)
        row = {a: i, b: j}
        for column, count in enumerate(counts):
            if column not in row:
                row[column] = max(range(count), key=lambda n, c=column: (gained(row, c, n, missing), -n))
        rows.append(tuple(row[column] for column in range(len(counts))))
        missing -= {(a, rows[-1][a], b, rows[-1][b]) for a, b in itertools.combinations(range(len(counts)), 2)}
    return rows


def gained(row, column, number, missing) -> int:
    """How many missing pairs a row gets by this number in this column."""
    return sum(
        ((other, n, column, number) if other < column else (column, number, other, n)) in missing
        for other, n in row.items()
    )
