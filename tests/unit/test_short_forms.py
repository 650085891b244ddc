"""The short form of long tests: what `combinations` and `repeat` leave, and what they must not."""

import itertools

import pytest

from tests.support.extent import every_pair, repeat
from tests.support.run import ROOT


@pytest.mark.parametrize("counts", [[3], [2, 3], [5, 2, 9, 2], [4, 2, 4, 3, 2], [1, 1, 4]], ids=str)
def test_every_pair_of_values_comes_and_few_rows_do(counts):
    rows = every_pair(counts)
    for a, b in itertools.combinations(range(len(counts)), 2):
        assert {(row[a], row[b]) for row in rows} == {*itertools.product(range(counts[a]), range(counts[b]))}
    assert {row[0] for row in rows} == {*range(counts[0])}
    assert all(number < count for row in rows for number, count in zip(row, counts, strict=True))
    assert len(rows) == len(set(rows)) <= 1.5 * max(a * b for a, b in itertools.combinations([*counts, 1], 2))


def test_what_has_to_be_met_by_chance_is_waited_for():
    assert list(repeat(3)) == [0, 1, 2]
    chances = iter([False, False, True])
    assert list(repeat(2, lambda: next(chances))) == [0, 1, 2, 3]


def test_the_modules_that_are_scheduled_by_how_long_they_take_exist():
    pytest.importorskip("xdist")
    from tests.support.scheduling import SECONDS

    assert [module for module in SECONDS if not (ROOT / module).exists()] == []
