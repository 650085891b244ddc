"""Sentences against numbers that are known."""

import pytest

from bench.report.select import Sweep, runs
from bench.report.words import duration, findings, number, rate, setting_and_way, span
from tests.unit.bench.report.sample import sample


def said(**shape):
    return findings(Sweep(sample(**shape).rows))


def test_sentences_say_what_the_rows_say():
    pull, push, actor, workers, shards = said(shards=(1, 2))
    assert pull == "A pull takes 2.00 (80 B) to 8.00 (80 KB) times as long as memcpy."
    assert push == "A push takes 1.33 (80 B) to 5.33 (80 KB) times as long as numpy in place."
    assert actor == (
        "The plain Ray actor takes 400 times as long for a pull of 80 B, 100 times for one of 80 KB; for a push 400 "
        "and 100 times."
    )
    assert workers == "2 workers have 2.00 times the throughput of 1 worker (pull of 80 B)."
    assert shards == (
        "With 2 workers, 2 shards have 1.00 times the throughput of 1 shard (pull of 80 B). Beyond 1 shard, more add "
        "less than 5 % anywhere."
    )


def test_sizes_that_are_at_the_roof_are_told():
    rows = [{**row, "to_roof": 1.09 if row["nbytes"] >= 8_000 else 3.0} for row in
            sample(sizes=(80, 8_000, 80_000), workers=(1,), ops=("pull",)).rows]  # fmt: skip
    first = findings(Sweep(rows))[0]
    assert (
        first
        == "A pull takes at most 1.09 times as long as memcpy at 8 KB to 80 KB, elsewhere up to 3.00 times (80 B)."
    )
    near = [{**row, "to_roof": 0.7} for row in rows]
    assert findings(Sweep(near))[0] == "A pull takes at most 0.70 times as long as memcpy, at every size."


def test_where_throughput_stops_growing_is_told():
    rows = [
        {**row, "bytes_second": 1.04e6 if row["workers"] == 4 else 1e6 if row["workers"] == 2 else 5e5}
        for row in sample(workers=(1, 2, 4), ops=("push",)).rows
    ]
    (text,) = (text for text in findings(Sweep(rows)) if "workers" in text)
    assert text.startswith("4 workers have 2.08 times the throughput of 1 worker")
    assert text.endswith("Beyond 2 workers, more add less than 5 % anywhere.")


def test_large_sizes_are_held_against_the_triad():
    (text,) = (text for text in said(sizes=(8_000_000,), workers=(1,), ops=("pull", "push")) if "triad" in text)
    # 12 us for two arrays and for three, where the triad takes 2.5 us for three.
    assert text == (
        "With 8 MB, each array read or written once, a pull moves its bytes at 0.14 of the speed of the triad of "
        "STREAM, a push at 0.21."
    )


def test_what_was_not_measured_is_not_told():
    assert said(workers=(1,), peers=()) == [
        "A pull takes 2 µs (80 B) to 8 µs (80 KB).", "A push takes 2 µs (80 B) to 8 µs (80 KB).",
    ]  # fmt: skip
    assert said(workers=(1,), peers=("ray_actor",), sizes=(80,), ops=("pull",)) == [
        "The plain Ray actor takes 400 times as long for a pull of 80 B."
    ]


def test_two_ways_are_held_against_each_other_and_against_the_actor():
    found = said(ways=("shm", "ray"), ops=("pull",), sizes=(80,), workers=(1,))
    assert "Carried by Ray, a pull takes 100 times as long as in shared memory." in found
    assert "The plain Ray actor takes 400 times as long for a pull of 80 B; fastps in shared memory." in found
    assert "The plain Ray actor takes 4.00 times as long for a pull of 80 B; fastps carried by Ray." in found


def test_a_setting_says_how_its_workers_reach_the_shards():
    assert setting_and_way(Sweep(sample(ways=("ray",)).rows)) == "1 worker, 1 shard, add, carried by Ray"
    assert setting_and_way(Sweep(sample(ways=("shm", "ray")).rows)) == "1 worker, 1 shard, add"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00"), (0.000234, "0.00023"), (0.689, "0.69"), (1.0, "1.00"), (12.34, "12.3"), (99.96, "100.0"),
     (2128.4, "2,128")],
)  # fmt: skip
def test_numbers_have_the_digits_that_tell_something(value, text):
    assert number(value) == text


def test_spans_rates_and_durations_are_short():
    assert span([1.001, 0.999]) == "1.00"
    assert span([3, 1, 2]) == "1.00 to 3.00"
    assert [rate(v) for v in (999, 1e5, 2.5e8, 1.23456e10)] == ["999 B/s", "100 KB/s", "250 MB/s", "12.3 GB/s"]
    assert [duration(v) for v in (512, 1340, 2.5e6, 1e9)] == ["512 ns", "1.34 µs", "2.5 ms", "1 s"]


def test_sizes_that_are_neighbours_are_told_together():
    assert list(runs([1, 2, 3, 4, 5], [1, 2, 5])) == [(1, 2), (5, 5)]
    assert list(runs([1, 2], [])) == []
