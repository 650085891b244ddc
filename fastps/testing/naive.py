"""The update rules a second time, as numpy writes them: the naive twins of the compiled kernels.

A twin computes in the dtype of the parameters, one rounding an operation, in the order in which the rule's `step` is
written. So does a kernel, hence the two agree bit for bit: infinities and denormals included, NaN but for its payload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastps.rules import SGD, Add, Rule

Array = np.ndarray[Any, np.dtype[Any]]


def add(p: Array, g: Array) -> Array:
    return p + g


def sgd(p: Array, g: Array, lr: Any, weight_decay: Any) -> Array:
    new: Array = p - lr * (g + weight_decay * p)
    return new


TWINS: dict[type[Rule], Callable[..., Array]] = {Add: add, SGD: sgd}


def apply(rule: Rule, params: Array, grads: Array) -> Array:
    """The parameters after one push: a new array of the same shape and dtype.

    A rule without a twin is computed element by element by its own `step`, on numpy scalars.
    """
    params = np.asarray(params)
    hyper = [params.dtype.type(value) for value in rule.hyper]
    with np.errstate(all="ignore"):
        if type(rule) in TWINS:
            return np.asarray(TWINS[type(rule)](params, grads, *hyper), params.dtype)
        pairs = zip(params.ravel(), np.asarray(grads).ravel(), strict=True)
        new = [type(rule).step(p, g, *hyper) for p, g in pairs]
    return np.array(new, params.dtype).reshape(params.shape)
