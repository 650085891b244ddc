"""What a server does with gradients before the rule sees them."""

import math

import pytest

from fastps.errors import OptionError
from fastps.spec.gradients import gradient_policy


def test_the_scale_of_gradients_is_nan_when_their_norm_is():
    assert math.isnan(gradient_policy("apply", 1.0, None).scale(math.nan))
    assert gradient_policy("apply", 1.0, None).scale(0.5) == 1
    assert gradient_policy("apply", None, None).scale(math.nan) == 1


@pytest.mark.parametrize(
    "options",
    [("never", None, None), ("skip", 0, None), ("skip", None, -1.0), ("skip", "1", None), ("skip", True, None)],
)
def test_a_policy_out_of_range_raises_option_error(options):
    with pytest.raises(OptionError, match="expected"):
        gradient_policy(*options)
