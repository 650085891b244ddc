"""Compiled kernels, called as the core calls them but over plain arrays: no arena, no server.

`Compiled` has the interface of `fastps.testing.Naive`, so that a test runs over both.
"""

from __future__ import annotations

import ctypes
import functools
import math

import llvmlite.binding as llvm
import numpy as np

from fastps.kernels.compiler import MAX_UNIFORMS, compile_rule
from fastps.rules import Rule

POINTER, INT, DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
KERNEL = ctypes.CFUNCTYPE(None, POINTER, POINTER, POINTER, INT, INT, POINTER)  # fps_kernel in csrc/dense.h
PREPARE = ctypes.CFUNCTYPE(None, POINTER, DOUBLE, POINTER)
COMPILED = {}


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


@functools.cache
def engine():
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def functions_of(rule: Rule, dtype: str, clips: bool):
    """The kernel and its `prepare`. Rules that differ in numbers alone share them."""
    key = (rule.family, tuple(rule.schedules.items()), dtype, clips)
    if key not in COMPILED:
        symbol = f"kernel_for_tests_{len(COMPILED)}"
        image = compile_rule(rule, dtype, "dense", clips, symbol)
        engine().add_object_file(llvm.ObjectFileRef.from_data(image.code))
        engine().finalize_object()
        kernel, prepare = (engine().get_function_address(name) for name in (symbol, f"{symbol}_prepare"))
        assert kernel != 0
        assert prepare != 0
        COMPILED[key] = KERNEL(kernel), PREPARE(prepare)
    return COMPILED[key]
