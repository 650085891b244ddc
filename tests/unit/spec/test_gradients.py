"""What happens to gradients first: the policy, the norm, and the look for what is not finite."""

import math

import numpy as np
import pytest

from fastps._core import all_finite, global_norm
from fastps.client.session import norm_of
from fastps.errors import OptionError
from fastps.spec.gradients import gradient_policy


def test_the_norm_of_finite_gradients_is_finite_though_their_squares_are_not():
    assert norm_of([np.array([3e200]), np.array([[4e200]])]) == pytest.approx(5e200, rel=1e-12)
    assert norm_of([np.array([3.0], np.float32), np.array([4.0])]) == 5
    assert norm_of([np.full(100, 1.7e308)]) == np.finfo(float).max
    assert norm_of([np.array([1e200, np.inf])]) == math.inf
    assert math.isnan(norm_of([np.array([1e200, np.nan])]))


def test_the_scale_of_gradients_is_nan_when_their_norm_is():
    assert math.isnan(gradient_policy("apply", 1.0, None).scale(math.nan))
    assert gradient_policy("apply", 1.0, None).scale(0.5) == 1
    assert gradient_policy("apply", None, None).scale(math.nan) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1000])
def test_norm_and_finiteness_are_those_of_numpy(dtype, n, rng):
    values = rng.normal(size=n).astype(dtype)
    assert global_norm([values, values]) == pytest.approx(np.sqrt(2 * (values.astype(float) ** 2).sum()), rel=1e-12)
    assert all_finite([values])
    for bad in (np.nan, np.inf, -np.inf):
        for at in range(0, n, max(1, n // 7)):
            spoilt = values.copy()
            spoilt[at] = bad
            assert not all_finite([values, spoilt])


@pytest.mark.parametrize(
    "options",
    [("never", None, None), ("skip", 0, None), ("skip", None, -1.0), ("skip", "1", None), ("skip", True, None)],
)
def test_a_policy_out_of_range_raises_option_error(options):
    with pytest.raises(OptionError, match="expected"):
        gradient_policy(*options)
