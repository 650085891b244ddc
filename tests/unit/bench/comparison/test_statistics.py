"""Verdicts on results whose truth is known."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.comparison.statistics import ComparisonError, compare, interval, median_interval, rejected_ranks
from bench.sweep.results import Results

MACHINE = {"machine": {"processor": {"model": "A", "cores": 2}}, "nodes": [{"host": "h"}], "begun": "2026-01-01"}


def row(op, subject, turns, nbytes=80, work=None):
    work = work or ("copy" if op == "pull" else "add")
    setting = {"nbytes": nbytes, "shards": 1, "workers": 1, "rule": "add", "transport": "auto", "placement": "local"}
    return {**setting, "op": op, "subject": subject, "work": work, "turns_ns": list(turns)}


def result(rng, factor=1.0, spread=0.02, drift=1.0, settings=8, turns=10, reference=True):
    """Turns around 1,000 ns times `factor` and a drift, which the reference has as well."""
    rows = []
    for i in range(settings):
        rows.append(row("pull", "fastps", 1000 * factor * drift * np.exp(spread * rng.standard_normal(turns)), 80 + i))
        if reference:
            rows.append(row("pull", "memcpy", 500 * drift * np.exp(spread * rng.standard_normal(turns)), 80 + i))
    return Results(rows, MACHINE)


def verdicts(before, after, **options):
    return [one.verdict for one in compare([before], [after], **options)]


def test_what_is_alike_is_hardly_ever_called_slower_or_faster(rng):
    """Of 400 comparisons of 8 settings each, whatever the noise."""
    wrong = 0
    for i in range(400):
        spread = 0.01 * 2 ** (i % 5)
        found = verdicts(result(rng, spread=spread), result(rng, spread=spread, drift=1.3))
        wrong += bool({"slower", "faster"} & set(found))
    assert wrong <= 20


@pytest.mark.parametrize(("factor", "verdict"), [(1.2, "slower"), (1 / 1.2, "faster"), (1.0, "same")])
def test_a_difference_of_a_fifth_is_found_and_none_is_called_the_same(rng, factor, verdict):
    assert set(verdicts(result(rng, spread=0.005), result(rng, factor, spread=0.005))) == {verdict}


def test_the_reference_takes_out_what_the_machine_did(rng):
    before, after = result(rng, spread=0.005), result(rng, spread=0.005, drift=1.5)
    assert set(verdicts(before, after)) == {"same"}
    before, after = result(rng, spread=0.01, reference=False), result(rng, spread=0.01, drift=1.5, reference=False)
    found = compare([before], [after])
    assert {(one.verdict, one.to_reference) for one in found} == {("slower", False)}


def test_a_difference_of_the_reference_alone_is_none_that_one_can_tell(rng):
    """The times are the same to the last bit: drawn anew, one setting of 160 would be called slower by chance."""
    before = result(rng, spread=0.005)
    rows = [dict(one) for one in before.rows]
    for one in rows:
        if one["subject"] == "memcpy":
            one["turns_ns"] = [turn / 1.3 for turn in one["turns_ns"]]
    assert set(verdicts(before, Results(rows, MACHINE))) == {"too noisy"}


def test_noise_is_called_noise_and_not_a_win(rng):
    found = verdicts(result(rng, spread=0.5, settings=20), result(rng, 0.9, spread=0.5, settings=20))
    assert found.count("too noisy") >= 18


def test_one_disturbed_turn_changes_nothing(rng):
    before, after = result(rng, spread=0.005), result(rng, spread=0.005)
    for one in after.rows:
        if one["subject"] == "fastps":
            one["turns_ns"][3] *= 100
    assert set(verdicts(before, after)) == {"same"}


def test_too_few_turns_tell_nothing(rng):
    found = compare([result(rng, spread=0, turns=2)], [result(rng, 3.0, spread=0, turns=2)])
    assert {(one.low, one.high, one.verdict) for one in found} == {(0.0, math.inf, "too noisy")}


def test_several_results_of_a_side_are_taken_together(rng):
    few = [result(rng, spread=0.01, turns=3)]
    assert set(verdicts(few[0], result(rng, 1.2, spread=0.01, turns=3))) == {"too noisy"}
    many = [result(rng, spread=0.01, turns=3) for _ in range(4)]
    found = compare(many, [result(rng, 1.2, spread=0.01, turns=3) for _ in range(4)])
    assert {one.verdict for one in found} == {"slower"}


def test_what_only_one_side_has_is_left_out_and_nothing_in_common_is_refused(rng):
    before, after = result(rng, settings=3), result(rng, settings=2)
    assert len(compare([before], [after])) == 2
    after.rows[:] = [{**one, "workers": 2} for one in after.rows]
    with pytest.raises(ComparisonError, match="no setting"):
        compare([before], [after])


def test_results_of_different_machines_are_refused(rng):
    other = Results(result(rng).rows, {**MACHINE, "machine": {"processor": {"model": "B", "cores": 2}}})
    with pytest.raises(ComparisonError, match="A, 2 cores; B, 2 cores"):
        compare([result(rng)], [other])


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.5, 0.2, 0.1, 0.05, 0.01]))
def test_ranks_are_those_of_all_arrangements(n, m, alpha):
    sums = [sum(chosen) - n * (n + 1) // 2 for chosen in itertools.combinations(range(1, n + m + 1), n)]
    k = rejected_ranks(n, m, alpha)
    assert sum(u < k for u in sums) <= alpha / 2 * len(sums) * (1 + 1e-12)
    assert sum(u <= k for u in sums) > alpha / 2 * len(sums) * (1 - 1e-12)


def test_intervals_hold_the_truth_as_often_as_they_say(rng):
    held = 0
    for _ in range(1000):
        low, high = interval(rng.standard_t(3, 10), rng.standard_t(3, 12) + 1, 0.9)[1:]
        held += low <= 1 <= high
    assert held >= 870  # 900 are expected, with a deviation of 9.5


def test_an_interval_of_one_sample_holds_its_median_as_often_as_it_says(rng):
    held = 0
    for _ in range(2000):
        middle, low, high = median_interval(list(rng.standard_exponential(10)))
        assert low <= middle <= high
        held += low <= math.log(2) <= high
    assert held >= 1900  # 1957 are expected, with a deviation of 6


@pytest.mark.parametrize(("n", "ends"), [(5, (-math.inf, math.inf)), (6, (0, 5)), (10, (1, 8))])
def test_an_interval_of_one_sample_is_between_two_of_its_values_where_there_are_enough(n, ends):
    assert median_interval(list(range(n)))[1:] == ends


def test_turns_of_a_reference_that_did_other_work_are_not_beside_what_is_compared(rng):
    rows = [
        row("push", "fastps", [1000.0] * 10) | {"rule": "adam", "work": "adam"},
        row("push", "in_place", [500.0] * 10) | {"rule": "adam", "work": "add"},
    ]
    (one,) = compare([Results(rows, MACHINE)], [Results(rows, MACHINE)])
    assert not one.to_reference
