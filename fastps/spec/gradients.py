"""How gradients are treated before the rule is applied: the check for NaN and infinity, and clipping. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fastps.errors import OptionError
from fastps.scalars import choice, real

NONFINITE = ("apply", "skip", "raise")


@dataclass(frozen=True)
class GradientPolicy:
    """How gradients are treated, in this order.

    Attributes
    ----------
    nonfinite : what to do with a push that holds a NaN or an infinity: "apply", "skip" or "raise"
    clip_norm : gradients with a larger global norm, over all arrays, are scaled down to it; inf: never
    clip_value : each element is clipped to [-clip_value, clip_value]; inf: never
    """

    nonfinite: str = "apply"
    clip_norm: float = math.inf
    clip_value: float = math.inf

    @property
    def clips(self) -> bool:
        """Whether kernels scale and clip."""
        return self.clip_norm < math.inf or self.clip_value < math.inf

    @property
    def inspects(self) -> bool:
        """Whether a push begins with a pass over the gradients."""
        return self.nonfinite != "apply" or self.clip_norm < math.inf

    def scale(self, norm: float) -> float:
        """The factor for gradients of this global norm, as in torch.nn.utils.clip_grad_norm_."""
        if self.clip_norm == math.inf:
            return 1.0
        factor = self.clip_norm / (norm + 1e-6)
        return 1.0 if factor > 1 else factor  # NaN stays NaN


def gradient_policy(nonfinite: Any, clip_norm: Any, clip_value: Any) -> GradientPolicy:
    """Raises OptionError."""
    nonfinite = choice("nonfinite", nonfinite, NONFINITE)
    return GradientPolicy(nonfinite, _limit("clip_norm", clip_norm), _limit("clip_value", clip_value))


def _limit(name: str, value: Any) -> float:
    if value is None:
        return math.inf
    number = real(name, value, "a number above 0, or None")
    if not number > 0:
        raise OptionError(f"{name}: expected a number above 0, or None, got {number}")
    return number
