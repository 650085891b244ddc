"""What stamps say of calls, with a clock that the test drives."""

import time

import numpy as np
import pytest

from bench.harness import loop
from bench.harness.loop import interleaved, once, overhead, prepared, stamps
from bench.harness.sample import PERCENTILES, Sample


class Clock:
    """Calls take what is asked for; reading it takes no time."""

    def __init__(self, takes):
        self.now, self.takes, self.calls = 5_000, takes, 0

    def perf_counter_ns(self):
        return self.now

    def operation(self):
        self.now += self.takes(self.calls)
        self.calls += 1


def run(monkeypatch, takes, seconds, **options):
    clock = Clock(takes)
    monkeypatch.setattr(loop, "time", clock)
    return clock, stamps(clock.operation, seconds, **options)


def test_every_call_has_its_duration_and_no_time_is_lost(monkeypatch):
    clock, found = run(monkeypatch, lambda i: 1000 + i % 7, 1e-2)
    assert len(found) == clock.calls + 1
    assert np.diff(found).tolist() == [1000 + i % 7 for i in range(clock.calls)]
    assert found[-1] - found[0] == clock.now - 5_000


@pytest.mark.parametrize("call_ns", [50, 3_000, 700_000, 40_000_000])
def test_it_ends_about_when_it_should(monkeypatch, call_ns):
    _, found = run(monkeypatch, lambda _: call_ns, 0.2)
    assert 0.2e9 <= found[-1] - found[0] <= 0.2e9 + max(1000 * 50, 3 * call_ns)


def test_one_call_that_is_held_up_is_recorded_whole(monkeypatch):
    _, found = run(monkeypatch, lambda i: 9_000_000 if i == 500 else 1000, 0.02)
    assert np.diff(found)[500] == 9_000_000
    assert np.diff(found).max() == 9_000_000


def test_calls_longer_than_the_time_are_made_as_often_as_asked_for(monkeypatch):
    clock, _ = run(monkeypatch, lambda _: 10**9, 0.01, at_least=4)
    assert clock.calls == 4


def test_the_record_of_a_call_is_told():
    assert 0 <= overhead(0.02) < 1e6


def regular(start, duration, calls):
    return start + duration * np.arange(calls + 1, dtype=np.int64)


def test_rates_of_workers_add_up_while_all_are_at_work():
    run = [(regular(0, 1000, 1000), 0.5), (regular(100_000, 2000, 500), 0.25)]
    sample = Sample.of([run, run])
    assert sample.rates == pytest.approx([1.5e6, 1.5e6])
    assert len(sample.durations) == 3000
    assert sample.cpu_seconds == 1.5


def test_calls_that_are_under_way_at_either_end_count_in_part():
    sample = Sample.of([[(regular(0, 1_000_000, 3), 0.0), (regular(500_000, 1_000_000, 2), 0.0)]])
    assert sample.rates == pytest.approx([2000])


def test_clocks_of_several_machines_are_not_compared():
    far = [(regular(0, 1000, 1000), 0.0), (regular(10**15, 1000, 1000), 0.0)]
    assert Sample.of([far], one_clock=False).rates == pytest.approx([2e6])
    assert Sample.of([far]).rates == pytest.approx([2e6])  # they never met: each for itself


def test_percentiles_are_durations_that_happened():
    durations = np.concatenate([np.full(9900, 100), np.full(95, 5_000), np.full(5, 70_000)])
    summary = Sample(durations, [], [1.0], 0.0).summary()
    assert summary == {
        "calls": 10_000, "min_ns": 100, "median_ns": 100, "p90_ns": 100, "p99_ns": 100, "p999_ns": 5_000,
        "p9999_ns": None, "max_ns": 70_000,
    }  # fmt: skip


def test_a_histogram_counts_every_call_within_two_per_cent():
    durations = np.random.default_rng(1).lognormal(8, 2, 10_000).astype(np.int64) + 1
    bounds, counts = Sample(durations, [], [1.0], 0.0).histogram()
    assert counts.sum() == 10_000
    assert (np.diff(bounds) > 0).all()
    for bound, count in list(zip(bounds, counts, strict=True))[::20]:
        inside = (durations >= bound * 0.9999) & (durations < bound * 2 ** (1 / 32) * 1.0001)
        assert inside.sum() >= count


def test_timing_real_calls_agrees_with_the_clock_on_the_wall():
    begun = time.perf_counter()
    found = stamps(lambda: time.sleep(0.002), 0.1)
    wall = time.perf_counter() - begun
    assert (found[-1] - found[0]) * 1e-9 <= wall
    assert np.diff(found).min() >= 2_000_000


def test_turns_have_medians_of_their_own():
    runs = [[(regular(0, 1_000, 3), 0.0)], [(regular(0, 5_000, 3), 0.0), (regular(0, 7_000, 5), 0.0)]]
    assert Sample.of(runs).turns == [1_000, 7_000]


def test_a_number_of_calls_is_kept():
    assert len(stamps(lambda: None, 0.0, calls=2500)) == 2501
    assert len(stamps(lambda: None, 10.0, calls=1)) == 2


@pytest.mark.parametrize(("calls", "told"), [(49, []), (50, [90]), (500, [90, 99]), (5_000, [90, 99, 99.9]),
                                             (49_999, [90, 99, 99.9]), (50_000, [90, 99, 99.9, 99.99])])  # fmt: skip
def test_a_percentile_is_told_of_enough_calls_only(calls, told):
    summary = Sample(np.arange(1, calls + 1), [], [1.0], 0.0).summary()
    found = [p for name, p in PERCENTILES.items() if 50 < p < 100 and summary[name] is not None]
    assert found == told
    assert (summary["min_ns"], summary["max_ns"]) == (1, calls)
    assert all(summary[name] < calls for name, p in PERCENTILES.items() if p in told)


def test_one_call_answers_what_it_does_and_its_seconds(monkeypatch):
    clock = Clock(lambda _: 2_000_000_000)
    monkeypatch.setattr(loop, "time", clock)
    assert once(lambda: (clock.operation(), "answer")[1]) == ("answer", 2.0)


def test_each_round_has_input_of_its_own_whose_preparation_is_not_counted(monkeypatch):
    clock, made, seen = Clock(lambda _: 0), iter(range(100)), []
    monkeypatch.setattr(loop, "time", clock)

    def prepare():
        clock.now += 1_000_000
        return next(made)

    def takes(ns):
        def call(given):
            seen.append(given)
            clock.now += ns + given

        return call

    found = prepared(prepare, [takes(1_000), takes(5_000)], rounds=3)
    assert found.tolist() == [[1_000, 5_000], [1_001, 5_001], [1_002, 5_002]]
    assert seen == [0, 0, 1, 1, 2, 2]


def test_with_a_time_instead_of_a_number_there_are_whole_rounds_for_so_long(monkeypatch):
    clock = Clock(lambda _: 1_000_000)
    monkeypatch.setattr(loop, "time", clock)
    found = prepared(clock.operation, [lambda _: clock.operation(), lambda _: clock.operation()], seconds=0.1)
    assert found.shape[1] == 2
    assert 30 <= len(found) <= 34
    assert prepared(lambda: None, [lambda _: None]).shape == (1, 1)


def test_operations_take_turns_and_a_short_one_is_called_more_often(monkeypatch):
    clock, called = Clock(lambda _: 0), []
    monkeypatch.setattr(loop, "time", clock)

    def takes(name, ns):
        def call():
            called.append(name)
            clock.now += ns

        return call

    times = interleaved({"slow": takes("slow", 10_000_000), "fast": takes("fast", 1_000_000)}, 1.0, turns=5)
    assert (times["slow"].median, times["fast"].median) == (0.01, 0.001)
    assert {name: len(taken.durations) for name, taken in times.items()} == {"slow": 5 * 10, "fast": 5 * 100}
    turns = "".join(name[0] for name in called)
    assert turns == "ssff" + 5 * ("s" * 11 + "f" * 101)
