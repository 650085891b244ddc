"""Functions of elements that LLVM does not vectorise, rewritten so that it does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic


@intrinsic
def to_int(typing: Any, value: Any) -> Any:
    """A float's integer part in an integer of the same width."""
    to = types.int32 if value == types.float32 else types.int64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fptosi(arguments[0], context.get_value_type(to))

    return to(value), generate


@intrinsic
def powers_of_two(typing: Any, n: Any) -> Any:
    """Two powers of two whose product is 2**n: n may exceed the exponent's range by one or, for subnormal results, be
    far below it. In LLVM, because numba's integers grow to 64 bits."""
    to, shift, bias = (types.float32, 23, 127) if n == types.int32 else (types.float64, 52, 1023)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        half = builder.ashr(arguments[0], kind(1))
        parts = [half, builder.sub(arguments[0], half)]
        bits = [builder.shl(builder.add(part, kind(bias)), kind(shift)) for part in parts]
        floats = [builder.bitcast(b, context.get_value_type(to)) for b in bits]
        return context.make_tuple(builder, signature.return_type, floats)

    return types.UniTuple(to, 2)(n), generate


@intrinsic
def sqrt(typing: Any, value: Any) -> Any:
    """One instruction, also where the loop is not vectorised: `math.sqrt` may become a call of the C library."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = builder.module.declare_intrinsic("llvm.sqrt", [arguments[0].type])
        return builder.call(function, arguments)

    return value(value), generate


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Prefetches the cache line of an element, which may be outside of the array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        import llvmlite.ir as ll

        view = context.make_array(array)(context, builder, arguments[0])
        address = builder.bitcast(builder.gep(view.data, [arguments[1]]), ll.IntType(8).as_pointer())
        kind = ll.FunctionType(ll.VoidType(), [ll.IntType(8).as_pointer()] + [ll.IntType(32)] * 3)
        function = builder.module.globals.get("llvm.prefetch.p0") or ll.Function(
            builder.module, kind, "llvm.prefetch.p0"
        )
        one, three = ll.Constant(ll.IntType(32), 1), ll.Constant(ll.IntType(32), 3)
        builder.call(function, [address, ll.Constant(ll.IntType(32), 0), three, one])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def clip(x, low, high):  # type: ignore[no-untyped-def]
    """NaN stays NaN."""
    x = low if x < low else x
    return high if x > high else x


def sign(x):  # type: ignore[no-untyped-def]
    """-1, 0 or 1; NaN stays NaN."""
    y = 1.0 if x > 0 else x * 0
    return -1.0 if x < 0 else y


# exp(x) = 2**n * exp(r), |r| <= log(2) / 2: the method and its split of log(2) are W. Cody and W. Waite's (Software
# Manual for the Elementary Functions, 1980). exp(r) is its Taylor series, as far as the dtype sees it.
LOG2E = 1 / math.log(2)
HIGH32, LOW32 = 0.693359375, -2.12194440e-4
HIGH64, LOW64 = 6.93145751953125e-1, 1.42860682030941723212e-6
TERMS32 = [np.float32(1 / math.factorial(k)) for k in range(8)]
TERMS64 = [1 / math.factorial(k) for k in range(14)]


def _exp(dtype: str) -> Any:
    element: Any
    terms: list[Any]
    if dtype == "float32":
        element, terms, upper, lower, least, most = np.float32, TERMS32, HIGH32, LOW32, -110.0, 89.0
    else:
        element, terms, upper, lower, least, most = np.float64, TERMS64, HIGH64, LOW64, -760.0, 710.0
    series = f"c{len(terms) - 1}"
    for k in range(len(terms) - 2, -1, -1):
        series = f"({series} * r + c{k})"
    names = {
        "to_int": to_int, "powers_of_two": powers_of_two, "element": element, "zero": element(0), "half": element(0.5),
        "log2e": element(LOG2E), "upper": element(upper), "lower": element(lower), "least": element(least),
        "most": element(most), **{f"c{k}": element(term) for k, term in enumerate(terms)},
    }  # fmt: skip
    source = f"""
def exp(x):
    y = least if x < least else x
    y = most if y > most else y
    y = y if y == y else zero
    t = y * log2e
    n = to_int(t + (half if t > zero else -half))
    m = element(n)
    r = (y - m * upper) - m * lower
    one, other = powers_of_two(n)
    return {series} * one * other if x == x else x
"""
    exec(compile(source, "<fastps exp>", "exec"), names)
    return names["exp"]


def on_elements(function: Any, dtype: str) -> Any:
    """The replacement of a function that a rule calls on elements; the function itself if there is none."""
    table: dict[Any, Any] = {
        math.exp: EXP[dtype], np.exp: EXP[dtype], math.sqrt: sqrt, np.sqrt: sqrt, np.clip: clip, np.sign: sign,
        np.abs: abs, math.fabs: abs,
    }  # fmt: skip
    return table.get(function, function)


EXP = {dtype: njit(error_model="numpy")(_exp(dtype)) for dtype in ("float32", "float64")}
