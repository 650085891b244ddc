"""Which rows are evicted, how many at a time, and when."""

import numpy as np
import pytest

from fastps.shard.victims import TICKS_PER_SECOND, expiry_tick, rows_at_a_time, sweep_seconds, victims


def test_lru_takes_the_least_recently_used_and_of_those_the_least_frequently_used():
    seen, counts = np.array([5, 1, 1, 9]), np.array([1, 7, 3, 1])
    assert victims("lru", seen, counts, 3).tolist() == [2, 1, 0]


def test_lfu_takes_the_least_frequently_used_and_of_those_the_least_recently_used():
    seen, counts = np.array([5, 1, 4, 9]), np.array([1, 7, 1, 2])
    assert victims("lfu", seen, counts, 3).tolist() == [2, 0, 3]


def test_no_more_rows_are_taken_than_there_are():
    assert len(victims("lru", np.array([1, 2]), np.array([1, 1]), 10)) == 2


def test_a_sixteenth_of_the_capacity_makes_room_unless_more_is_needed_or_few_can_be_taken():
    assert rows_at_a_time(wanted=1, capacity=160, candidates=160) == 10
    assert rows_at_a_time(wanted=20, capacity=160, candidates=160) == 20
    assert rows_at_a_time(wanted=1, capacity=160, candidates=8) == 4
    assert rows_at_a_time(wanted=1, capacity=8, candidates=8) == 1


@pytest.mark.parametrize("ttl", [0.01, 0.5, 1.0, 3.3])
def test_no_row_expires_before_its_time_to_live_is_over(ttl):
    for used in (0.0, 0.03, 1.99, 2.0):
        for now in np.arange(used, used + ttl, 0.01):
            ticks = [int(time * TICKS_PER_SECOND) for time in (used, now)]
            assert ticks[0] > expiry_tick(ticks[1], ttl)
    assert expiry_tick(10_000, ttl) > 10_000 - (ttl * TICKS_PER_SECOND + 3)


def test_sweeps_come_eight_times_per_ttl_but_at_most_once_a_tick_and_at_least_once_a_minute():
    assert sweep_seconds(8.0) == 1.0
    assert sweep_seconds(0.001) == 1 / TICKS_PER_SECOND
    assert sweep_seconds(1e8) == 60.0
