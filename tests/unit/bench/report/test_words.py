"""Sentences against numbers that are known."""

import pytest

from bench.report.select import Sweep
from bench.report.words import findings, number, rate, span
from tests.unit.bench.report.sample import sample


def said(**shape):
    return findings(Sweep(sample(**shape).rows))


def test_sentences_say_what_the_rows_say():
    found = said(shards=(1, 2))
    assert found[0] == (
        "A pull takes 2.00 to 8.00 times as long as memcpy, a plain Ray actor 100 to 400 times as long as that, from "
        "80 B to 80 KB (1 worker, 1 shard, add, shm)."
    )
    assert found[1].startswith("A push takes 1.33 to 5.33 times as long as numpy in place, ")
    assert "2 workers have 2.00 (pull of 80 B) to 2.00 (push of 80 KB) times the throughput of 1 worker." in found
    assert "2 shards have 1.00 (pull of 80 B) to 1.00 (push of 80 KB) times the throughput of 1 shard." in found
    assert found[-1].startswith("Operations on 80 KB move their bytes at 0.21 to 0.31 of the speed")


def test_what_was_not_measured_is_not_told():
    assert said(workers=(1,), peers=()) == []
    assert said(workers=(1,), peers=("ray_actor",), sizes=(80,), ops=("pull",)) == [
        "A plain Ray actor takes 400 times as long as a pull, at 80 B (1 worker, 1 shard, add, shm)."
    ]


def test_two_ways_are_held_against_each_other():
    assert "Carried by Ray, a pull takes 100 times as long as in shared memory." in said(ways=("shm", "ray"))


@pytest.mark.parametrize(
    ("value", "text"), [(0.689, "0.69"), (1.0, "1.00"), (12.34, "12.3"), (99.96, "100.0"), (2128.4, "2,128")]
)
def test_numbers_have_the_digits_that_tell_something(value, text):
    assert number(value) == text


def test_spans_and_rates_are_short():
    assert span([1.001, 0.999]) == "1.00"
    assert span([3, 1, 2]) == "1.00 to 3.00"
    assert [rate(v) for v in (999, 1e5, 2.5e8, 1.23456e10)] == ["999 B/s", "100 KB/s", "250 MB/s", "12.3 GB/s"]
