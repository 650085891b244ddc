"""Compiled kernels, called as the core calls them but over plain arrays: no arena, no server.

`Compiled` has the interface of `fastps.testing.Naive`, so that a test runs over both.
"""

from __future__ import annotations

import ctypes
import math

import numpy as np

from fastps.kernels.cache import image_of
from fastps.kernels.compiler import MAX_UNIFORMS
from fastps.kernels.loader import addresses_of
from fastps.rules import Rule

POINTER, INT, DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
KERNEL = ctypes.CFUNCTYPE(None, POINTER, POINTER, POINTER, INT, INT, POINTER)  # fps_kernel in csrc/dense.h
PREPARE = ctypes.CFUNCTYPE(None, POINTER, DOUBLE, POINTER)


class Compiled:
    """Parameters and the slots of a rule, changed by its kernels.

    Attributes
    ----------
    params, slots, step : as those of `Naive`
    ahead : how many elements ahead the kernel asks for; 0 for not at all
    """

    def __init__(self, rule: Rule, params, *, clips: bool = False, ahead: int = 0) -> None:
        self.rule, self.params, self.step, self.clips, self.ahead = rule, np.array(params), 0, clips, ahead
        self.slots = {name: np.full_like(self.params, at) for name, at in rule.slots.items()}
        self.kernel, self.prepare = functions_of(rule, self.params.dtype.name, clips)

    def push(self, grads, pulled=None, scale: float = 1.0, limit: float = math.inf) -> None:
        assert self.clips or (scale == 1 and limit == math.inf)
        self.step += 1
        hyper = np.array([math.nan if name in self.rule.schedules else v for name, v in self.rule.hyper.items()], float)
        uniforms = np.full(MAX_UNIFORMS + 2, math.nan)
        uniforms[-2:] = limit, scale
        self.prepare(hyper.ctypes.data, self.step, uniforms.ctypes.data)
        changing = [self.params, *self.slots.values()]
        state = [*changing, np.ascontiguousarray(pulled, self.params.dtype)] if pulled is not None else changing
        grads = np.ascontiguousarray(grads, self.params.dtype)
        results = [np.full_like(array, math.nan) for array in changing]
        self.kernel(
            addresses(state), grads.ctypes.data, addresses(results), self.params.size, self.ahead, uniforms.ctypes.data
        )
        for array, result in zip(changing, results, strict=True):
            array[...] = result


def addresses(arrays):
    return (POINTER * len(arrays))(*(array.ctypes.data for array in arrays))


def functions_of(rule: Rule, dtype: str, clips: bool):
    """The kernel and its `prepare`, from this run's cache where another test has had them compiled."""
    kernel, prepare = addresses_of(image_of(rule, dtype, "dense", clips))
    return KERNEL(kernel), PREPARE(prepare)
