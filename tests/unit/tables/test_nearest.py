"""The nearest rows, against a sort of all of them."""

import math

import numpy as np
import pytest

from fastps.errors import OptionError
from fastps.tables.nearest import METRICS, nearest
from tests.support.extent import combinations


def naive_score(row, vector, metric):
    """Of small whole numbers, so that no order of additions matters."""
    number = row.dtype.type
    dot = number(sum(int(a) * int(b) for a, b in zip(row, vector, strict=True)))
    if metric == "dot":
        return dot
    if metric == "euclidean":
        return -np.sqrt(number(sum((int(a) - int(b)) ** 2 for a, b in zip(row, vector, strict=True))))
    lengths = [np.sqrt(number(sum(int(a) ** 2 for a in x))) for x in (row, vector)]
    length = lengths[0] * lengths[1]
    return dot / length if length > 0 else number(0)


def naive(keys, rows, vector, k, metric):
    scored = [(-naive_score(row, vector, metric), key) for key, row in zip(keys.tolist(), rows, strict=True)]
    best = sorted(scored)[:k]
    return [key for _, key in best], [-score for score, _ in best]


def batches(keys, rows, size):
    return ((keys[i : i + size], rows[i : i + size]) for i in range(0, len(keys), size))


@combinations(metric=list(METRICS), dtype=[np.float32, np.float64], k=[1, 10, 299, 300, 1000], size=[1, 7, 300])
def test_the_nearest_rows_are_those_of_a_sort_and_equal_ones_come_by_their_keys(metric, dtype, k, size, rng):
    keys = rng.choice(10**6, 300, replace=False) - 500_000
    rows = rng.integers(-2, 3, (300, 3)).astype(dtype)  # many are equal, and some are zero
    vector = np.array([1, -2, 1], dtype)
    found, scores = nearest(batches(keys, rows, size), vector, k, metric)
    expected, expected_scores = naive(keys, rows, vector, k, metric)
    assert found.tolist() == expected
    assert found.dtype == np.int64
    assert scores.tolist() == expected_scores
    assert scores.dtype == dtype


@pytest.mark.parametrize("metric", METRICS)
def test_rows_of_any_numbers_come_in_the_order_of_their_scores(metric, rng):
    keys, rows, vector = np.arange(5000), rng.normal(size=(5000, 20)), rng.normal(size=20)
    exact = {
        "dot": rows @ vector,
        "cosine": rows @ vector / np.linalg.norm(rows, axis=1) / np.linalg.norm(vector),
        "euclidean": -np.linalg.norm(rows - vector, axis=1),
    }[metric]
    found, scores = nearest(batches(keys, rows, 999), vector, 50, metric)
    assert found.tolist() == np.argsort(-exact)[:50].tolist()
    np.testing.assert_allclose(scores, exact[found], rtol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_rows_with_nan_come_last(metric):
    rows = np.array([[np.nan, 1], [0, 1], [1, np.nan], [1, 0], [np.nan, np.nan]])
    keys = np.array([5, 4, 3, 2, 1])
    found, scores = nearest([(keys, rows)], np.array([1.0, 0.5]), 5, metric)
    assert found.tolist() == [2, 4, 1, 3, 5]
    assert np.isfinite(scores[:2]).all()
    assert scores[2:].tolist() == [-math.inf] * 3
    assert nearest([(keys, rows)], np.array([1.0, 0.5]), 2, metric)[0].tolist() == [2, 4]


def test_a_vector_or_a_row_of_zeros_has_a_cosine_of_0():
    rows, keys = np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, 0.0]]), np.array([9, 8, 7])
    found, scores = nearest([(keys, rows)], np.zeros(2), 3, "cosine")
    assert (found.tolist(), scores.tolist()) == ([7, 8, 9], [0, 0, 0])
    found, scores = nearest([(keys, rows)], np.array([1.0, 0.0]), 3, "cosine")
    assert found.tolist() == [8, 9, 7]
    assert scores[1] == 0


def test_keys_in_the_upper_half_of_uint64_come_behind_those_in_the_lower():
    keys = np.array([2**64 - 1, 1, 2**63, 0], np.uint64)
    found, _ = nearest([(keys, np.ones((4, 2)))], np.ones(2), 4, "dot")
    assert found.tolist() == [0, 1, 2**63, 2**64 - 1]
    assert found.dtype == np.uint64


def test_a_table_without_rows_has_no_nearest():
    found, scores = nearest([], np.ones(2), 3, "cosine")
    assert (found.tolist(), scores.tolist()) == ([], [])


def test_the_batches_are_not_changed():
    keys, rows = np.arange(3), np.array([[1.0, np.nan], [0.0, 1.0], [2.0, 2.0]])
    kept = keys.copy(), rows.copy()
    nearest([(keys, rows)], np.ones(2), 2, "euclidean")
    assert np.array_equal(keys, kept[0])
    assert np.array_equal(rows, kept[1], equal_nan=True)


@pytest.mark.parametrize("metric", ["l2", "Cosine", "", None, 3])
def test_an_unknown_metric_raises_option_error_that_lists_the_known_ones(metric):
    with pytest.raises(OptionError, match="'dot', 'cosine', 'euclidean'"):
        nearest([], np.ones(2), 1, metric)
