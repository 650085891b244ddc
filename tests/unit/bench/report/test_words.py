"""Sentences against numbers that are known."""

import pytest

from bench.report.ratios import number
from bench.report.select import Sweep, runs
from bench.report.words import duration, findings, rate, setting_and_way
from tests.unit.bench.report.sample import sample


def said(**shape):
    return findings(Sweep(sample(**shape).rows))


def test_sentences_say_what_the_rows_say():
    pull_rival, push_rival, lacks, pull, push, workers, shards = said(shards=(1, 2))
    assert pull_rival == (
        "The strongest rival of a pull is the plain Ray actor, which takes 100 [100, 100] (80 KB) to 400 [400, 400] "
        "(80 B) times as long."
    )
    assert push_rival == pull_rival.replace("a pull", "a push")
    assert lacks.startswith("What the plain Ray actor lacks: a way without a message")
    assert pull == "A pull takes 2.00 [2.00, 2.00] (80 B) to 8.00 [8.00, 8.00] (80 KB) times as long as memcpy."
    assert (
        push == "A push takes 1.33 [1.33, 1.33] (80 B) to 5.33 [5.33, 5.33] (80 KB) times as long as the rule in place."
    )
    assert workers == "2 workers have 2.00 [2.00, 2.00] times the throughput of 1 worker (pull of 80 B)."
    assert shards == (
        "With 2 workers, 2 shards have 1.00 [1.00, 1.00] times the throughput of 1 shard (pull of 80 B). Beyond 1 "
        "shard, more add less than 5 % anywhere."
    )


def test_the_strongest_rival_comes_first_with_what_it_lacks_and_the_plain_actor_after_it():
    found = said(workers=(1,), ops=("push",), peers=("ray_actor", "torch_rpc", "shared_array", "in_place"))
    assert found[0] == (
        "The strongest rival of a push is the shared array with a lock, which takes 0.23 [0.23, 0.23] (80 KB) to 0.90 "
        "[0.90, 0.90] (80 B) times as long."
    )
    assert found[1].startswith("What the shared array with a lock lacks: safety when a process dies")
    assert found[2] == (
        "The plain Ray actor takes 400 [400, 400] times as long for a push of 80 B, 100 [100, 100] times for one of "
        "80 KB."
    )


def test_rivals_are_named_at_their_sizes_where_they_are_several():
    rows = sample(workers=(1,), ops=("pull",), peers=("ray_actor", "shared_array")).rows
    slow = [
        {**row, "median_ns": 10**9} if row["nbytes"] > 80 and row["subject"] == "shared_array" else row for row in rows
    ]
    first, second = findings(Sweep(slow))[:2]
    assert first.startswith("The strongest rival of a pull at 80 B is the shared array with a lock, which takes 0.90")
    assert second.startswith("The strongest rival of a pull at 80 KB is the plain Ray actor, which takes 100")


def test_what_does_other_work_is_held_against_nothing():
    """As in results of a version whose peers added under every rule."""
    rows = [
        {**row, "work": "add" if row["op"] == "push" and row["subject"] in ("in_place", "ray_actor") else row["work"]}
        for row in sample(rule="adam", ops=("push",), workers=(1,)).rows
    ]
    assert findings(Sweep(rows)) == ["A push takes 2 µs [2 µs, 2 µs] (80 B) to 8 µs [8 µs, 8 µs] (80 KB)."]


def test_an_interval_is_of_the_ratios_in_each_turn():
    rows = sample(sizes=(80,), workers=(1,), ops=("pull",), peers=("memcpy",)).rows
    turns = {"fastps": [100, 900, 210, 310, 420, 530, 640, 750, 860, 970], "memcpy": [100, 900, *[100] * 8]}
    (text,) = findings(Sweep([{**row, "turns_ns": turns[row["subject"]]} for row in rows]))
    # Ratios 1, 1, 2.1 to 9.7: the median is of the fifth and sixth, the interval from the second to the ninth.
    assert text == "A pull takes 4.75 [1.00, 8.60] (80 B) times as long as memcpy."


def test_too_few_turns_have_no_interval():
    rows = sample(sizes=(80,), workers=(1,), ops=("pull",), peers=("memcpy",)).rows
    (text,) = findings(Sweep([{**row, "turns_ns": row["turns_ns"][:3]} for row in rows]))
    assert text == "A pull takes 2.00 (80 B) times as long as memcpy."


def test_throughputs_whose_turns_were_not_kept_have_no_interval_and_that_is_said():
    rows = [{**row, "turns_ops_second": None} for row in sample(peers=()).rows]
    *_, workers, missing = findings(Sweep(rows))
    assert workers == "2 workers have 2.00 times the throughput of 1 worker (pull of 80 B)."
    assert missing.startswith("Throughputs have no intervals: ")


def test_sizes_that_are_at_the_reference_are_told():
    turns = {80: 3000.0, 8_000: 1090.0, 80_000: 1090.0}
    shape = {"sizes": (80, 8_000, 80_000), "workers": (1,), "ops": ("pull",), "peers": ("memcpy",)}
    rows = [
        {**row, "turns_ns": [turns[row["nbytes"]]] * 10} if row["subject"] == "fastps" else row
        for row in sample(**shape).rows
    ]
    (text,) = findings(Sweep(rows))
    assert text == (
        "A pull takes at most 1.09 [1.09, 1.09] times as long as memcpy at 8 KB to 80 KB, elsewhere up to 3.00 [3.00, "
        "3.00] times (80 B)."
    )
    near = [{**row, "turns_ns": [700.0] * 10} if row["subject"] == "fastps" else row for row in rows]
    assert findings(Sweep(near)) == ["A pull takes at most 0.70 [0.70, 0.70] times as long as memcpy, at every size."]


def test_where_throughput_stops_growing_is_told():
    rows = [
        {**row, "bytes_second": 1.04e6 if row["workers"] == 4 else 1e6 if row["workers"] == 2 else 5e5}
        for row in sample(workers=(1, 2, 4), ops=("push",)).rows
    ]
    (text,) = (text for text in findings(Sweep(rows)) if "workers" in text)
    assert text.startswith("4 workers have 4.00 [4.00, 4.00] times the throughput of 1 worker")
    assert text.endswith("Beyond 2 workers, more add less than 5 % anywhere.")


def test_large_sizes_are_held_against_the_triad():
    (text,) = (text for text in said(sizes=(8_000_000,), workers=(1,), ops=("pull", "push")) if "triad" in text)
    # 12 us for two arrays and for three, where the triad takes 2.5 us for three.
    assert text == (
        "With 8 MB, each array read or written once, a pull moves its bytes at 0.14 [0.14, 0.14] of the speed of "
        "the triad of STREAM, a push at 0.21 [0.21, 0.21]."
    )


def test_what_was_not_measured_is_not_told():
    assert said(workers=(1,), peers=()) == [
        "A pull takes 2 µs [2 µs, 2 µs] (80 B) to 8 µs [8 µs, 8 µs] (80 KB).",
        "A push takes 2 µs [2 µs, 2 µs] (80 B) to 8 µs [8 µs, 8 µs] (80 KB).",
    ]
    rival, _ = said(workers=(1,), peers=("ray_actor",), sizes=(80,), ops=("pull",))
    assert rival == (
        "The strongest rival of a pull is the plain Ray actor, which takes 400 [400, 400] (80 B) times as long."
    )


def test_two_ways_are_held_against_each_other_and_against_the_rival():
    found = said(ways=("shm", "ray"), ops=("pull",), sizes=(80,), workers=(1,))
    assert "Carried by Ray, a pull takes 100 [100, 100] (80 B) times as long as in shared memory." in found
    rival = "The strongest rival of a pull is the plain Ray actor, which takes"
    assert f"{rival} 400 [400, 400] (80 B) times as long; fastps in shared memory." in found
    assert f"{rival} 4.00 [4.00, 4.00] (80 B) times as long; fastps carried by Ray." in found


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


def test_rates_and_durations_are_short():
    assert [rate(v) for v in (999, 1e5, 2.5e8, 1.23456e10)] == ["999 B/s", "100 KB/s", "250 MB/s", "12.3 GB/s"]
    assert [duration(v) for v in (512, 1340, 2.5e6, 1e9)] == ["512 ns", "1.34 µs", "2.5 ms", "1 s"]


def test_sizes_that_are_neighbours_are_told_together():
    assert list(runs([1, 2, 3, 4, 5], [1, 2, 5])) == [(1, 2), (5, 5)]
    assert list(runs([1, 2], [])) == []
