"""Which rows make room."""

import numpy as np
import pytest

import fastps
from fastps.rules import Add
from fastps.shard.eviction import victims
from fastps.spec.table import Life, Table, TableInfo, infos_of, with_sightings


def test_lru_takes_those_not_asked_for_for_longest_and_of_those_the_rarest():
    seen, counts = np.array([5, 1, 1, 9]), np.array([1, 7, 3, 1])
    assert victims("lru", seen, counts, 3).tolist() == [2, 1, 0]


def test_lfu_takes_the_rarest_and_of_those_the_oldest():
    seen, counts = np.array([5, 1, 4, 9]), np.array([1, 7, 1, 2])
    assert victims("lfu", seen, counts, 3).tolist() == [2, 0, 3]


def test_no_more_rows_than_there_are():
    assert len(victims("lru", np.array([1, 2]), np.array([1, 1]), 10)) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl": 0}, {"ttl": -1.0}, {"ttl": float("nan")}, {"ttl": "soon"}, {"ttl": True}, {"admit": 0}, {"admit": 1.5},
        {"evict": "fifo", "capacity": 5}, {"evict": "lru"}, {"on_evict": print}, {"ttl": 1, "on_evict": 5},
        {"ttl": 1, "init": np.zeros((2, 3))}, {"capacity": 5, "max_bytes": 5}, {"max_bytes": 0},
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_life_that_cannot_be_are_refused(wrong):
    with pytest.raises(fastps.OptionError, match="Table"):
        Table(3, **wrong)


def test_rows_that_may_end_are_tracked_and_others_are_not():
    for table, tracked in (
        (Table(2, rule=Add()), False),
        (Table(2, rule=Add(), track=True), True),
        (Table(2, rule=Add(), ttl=1), True),
    ):
        assert TableInfo.of(("t",), table, 1).tracked == tracked
    assert not Life().ends


def test_a_budget_of_bytes_is_one_of_rows():
    assert TableInfo.of(("t",), Table(64, rule=Add(), max_bytes=1_000_000), 1).capacity == 1_000_000 // (16 + 256 + 14)
    assert TableInfo.of(("t",), Table(64, rule=Add(), max_bytes=1), 1).capacity == 1


def test_a_table_that_admits_late_has_one_of_sightings_behind_it():
    infos = infos_of(with_sightings({("a",): Table(2, rule=Add(), admit=3), ("b",): Table(2, rule=Add())}), 1)
    assert [info.name for info in infos] == ["a", "b", "a/(sightings)"]
    assert [info.sightings for info in infos] == [2, None, None]
    assert [info.counts_for for info in infos] == [None, None, "a"]
