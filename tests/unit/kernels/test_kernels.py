"""Kernels against the rules as they are written, and what their machine code is like."""

import ctypes
import math
import os
import re
import shutil
import subprocess
from math import exp, sqrt

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest

import fastps
from fastps import schedules
from fastps.errors import CompileError
from fastps.kernels import functions
from fastps.kernels.cache import image_of
from fastps.kernels.compiler import SHAPES, Compilation
from fastps.kernels.image import KernelImage
from fastps.kernels.loader import Loader, addresses_of
from fastps.testing.naive import Naive
from tests.support.clipped import clipped
from tests.support.extent import combinations, samples
from tests.support.kernels import Compiled, addresses
from tests.support.references import CASES

DTYPES = ["float32", "float64"]
LIBRARY = {case.rule.name: case.rule for case in CASES}
EXACT = [fastps.Add(), fastps.SGD(0.1), fastps.SGD(0.1, weight_decay=0.01), fastps.SGD(-3.0, weight_decay=7.5)]


def same_bits(a, b):
    """Equal bit for bit; a NaN is as good as another."""
    integers = {4: np.uint32, 8: np.uint64}[a.dtype.itemsize]
    return np.array_equal(np.isnan(a), np.isnan(b)) and np.array_equal(
        a[~np.isnan(a)].view(integers), b[~np.isnan(b)].view(integers)
    )


def close(a, b):
    """Equal to some units in the last place of the largest."""
    tolerance = 32 * np.finfo(a.dtype).eps
    return np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def after(kind, rule, p, grads, **options):
    state = kind(rule, p, **options)
    for g in grads:
        state.push(g)
    return state


@combinations(rule=[*EXACT, clipped(0.1, 1.0)], dtype=DTYPES, n=[0, 1, 2, 3, 7, 8, 31, 64, 1001], ahead=[0, 512])
def test_a_kernel_equals_the_rule_bit_for_bit(rule, dtype, n, ahead, rng):
    p, g = rng.normal(size=(2, n)).astype(dtype)
    assert same_bits(after(Compiled, rule, p, [g], ahead=ahead).params, after(Naive, rule, p, [g]).params)


@pytest.mark.parametrize("rule", EXACT, ids=repr)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_kernel_treats_extreme_numbers_as_the_rule_does(rule, dtype):
    info = np.finfo(dtype)
    extremes = np.array(
        [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, info.max, info.min, info.tiny, -info.tiny,
         info.smallest_subnormal, -info.smallest_subnormal, info.tiny / 3, 1 + info.eps],
        dtype,
    )  # fmt: skip
    p, g = (m.ravel() for m in np.meshgrid(extremes, extremes))
    found = after(Compiled, rule, p, [g]).params
    assert same_bits(found, after(Naive, rule, p, [g]).params)
    assert np.isnan(found).any()
    assert np.isinf(found).any()


@pytest.mark.parametrize("name", [name for name, rule in LIBRARY.items() if not rule.family.uses_pulled])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_kernel_gives_the_same_whatever_it_prefetches_and_however_many_elements_it_has(name, dtype, rng):
    rule = LIBRARY[name]
    p, *grads = rng.normal(size=(4, 1001)).astype(dtype)
    whole = after(Compiled, rule, p, grads)
    assert same_bits(after(Compiled, rule, p, grads, ahead=256).params, whole.params)
    for stop in (1, 5, 67):
        part = after(Compiled, rule, p[:stop], [g[:stop] for g in grads])
        assert close(part.params, whole.params[:stop])
        for slot, values in part.slots.items():
            assert close(values, whole.slots[slot][:stop])


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_scaled_then_cut_and_nan_stays_nan(dtype):
    rule = fastps.Add()
    g = np.array([4.0, -4.0, 0.5, np.nan, np.inf, -np.inf, -0.0], dtype)
    found = Compiled(rule, np.zeros(7, dtype), clips=True)
    found.push(g, scale=0.5, limit=1.0)
    assert found.params.tolist()[:3] == [1, -1, 0.25]
    assert np.isnan(found.params[3])
    assert found.params.tolist()[4:6] == [1, -1]
    free = Compiled(rule, np.zeros(7, dtype), clips=True)
    free.push(g, scale=1.0, limit=math.inf)
    assert same_bits(free.params, np.zeros(7, dtype) + g)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 5, 8, 64, 77])
@pytest.mark.parametrize("clips", [False, True])
def test_a_rule_of_rows_keeps_one_value_a_row_and_sees_the_mean_of_squares(dtype, dim, clips, rng):
    rule = fastps.RowAdagrad(lr=0.1, eps=0.0)
    row, grad = rng.normal(size=(2, dim)).astype(dtype)
    total, results = np.array([2.0], dtype), [np.zeros(dim, dtype), np.zeros(1, dtype)]
    kernel, prepare = addresses_of(image_of(rule, dtype, "row", clips))
    hyper, uniforms = np.array(rule.values), np.zeros(34)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    ctypes.CFUNCTYPE(None, pointer, ctypes.c_double, pointer)(prepare)(hyper.ctypes.data, 2.0, uniforms.ctypes.data)
    uniforms[32:] = 1.0, 0.5
    ctypes.CFUNCTYPE(None, pointer, pointer, pointer, number, number, pointer)(kernel)(
        addresses([row, total]), grad.ctypes.data, addresses(results), dim, 0, uniforms.ctypes.data
    )
    g = np.clip(grad * 0.5, -1, 1) if clips else grad
    expected = total[0] + np.mean(g.astype(np.float64) ** 2)
    assert close(results[1], np.array([expected], dtype))
    assert close(results[0], (row - 0.1 * g / np.sqrt(expected)).astype(dtype))


# What the functions of elements promise


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_is_right_to_two_units_in_the_last_place(dtype, rng):
    info = np.finfo(dtype)
    low, high = (-87.0, 88.7) if dtype == "float32" else (-708.0, 709.7)
    x = np.concatenate([rng.uniform(low, high, 100_000), rng.normal(size=100_000), [0.0, -0.0, 1.0]]).astype(dtype)
    found = vectorised(functions.EXP[dtype])(x)
    exact = np.exp(x.astype(np.longdouble))
    assert np.max(np.abs(found - exact) / exact) <= 2 * info.eps
    ends = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, low * 1.15], dtype)
    with np.errstate(all="ignore"):
        assert np.allclose(vectorised(functions.EXP[dtype])(ends), np.exp(ends), rtol=1e-2, atol=0, equal_nan=True)


def vectorised(function):
    @numba.njit(error_model="numpy")
    def loop(x):
        y = np.empty_like(x)
        for i in range(len(x)):
            y[i] = function(x[i])
        return y

    return loop


def test_clip_and_sign_keep_nan():
    assert [functions.clip(x, -1.0, 1.0) for x in (-2.0, 0.5, 2.0)] == [-1.0, 0.5, 1.0]
    assert [functions.sign(x) for x in (-2.0, 0.0, 2.0)] == [-1.0, 0.0, 1.0]
    assert math.isnan(functions.clip(math.nan, -1.0, 1.0))
    assert math.isnan(functions.sign(math.nan))


# What the machine code is like

GLOBAL_FACTOR = 1.0


def twice(x):
    return 2 * x if x > 0.5 else x / 3


@fastps.rule(slots={"a": 1, "b": 0.5})
def everything(p, g, a, b, *, step, lr=0.1, beta=0.9, flag=False, eps=1e-8):
    """Literals, integers, branches, functions: all that could promote to float64 or keep a loop scalar."""
    a = beta * a + (1 - beta) * g**2
    b = max(min(b * 0.5 + 2 * abs(g), 10), -1.5)
    if g > 0:
        b = b + 1
    if flag:
        b = b * 2
    g = np.clip(g, -1, 1) + np.sign(p) + exp(-abs(g)) + twice(g)
    return p - lr * (3 * g / (1 - beta**step)) / (sqrt(a / (1 - beta**step)) + eps) * GLOBAL_FACTOR, a, b


def float64_in(step):
    """The variables of a compiled function, and of those that it calls, that are float64."""
    found = {}
    for overload in step.overloads.values():
        found |= {name: kind for name, kind in overload.type_annotation.typemap.items() if "float64" in str(kind)}
    return found


@pytest.mark.parametrize("rule", [*LIBRARY.values(), everything()], ids=lambda rule: rule.name)
def test_no_float64_is_left_in_a_rule_on_float32(rule):
    compilation = Compilation(rule, "float32", SHAPES["dense"], False, "unused")
    assert float64_in(compilation.step) == {}
    for inner in compilation.elemental.values():
        assert inner.overloads
        assert float64_in(inner) == {}


needs_objdump = pytest.mark.skipif(
    os.uname().machine != "x86_64" or not shutil.which("objdump"), reason="reads x86 instructions with objdump"
)


def disassembly(image, tmp_path):
    """The instructions of the loop over elements."""
    path = tmp_path / "kernel.o"
    path.write_bytes(image.code)
    text = subprocess.run(["objdump", "-d", path], capture_output=True, text=True, check=True).stdout
    return text.split("<kernel_outer>:")[1].split("\n\n")[0]


@needs_objdump
@pytest.mark.parametrize("rule", [*LIBRARY.values(), everything()], ids=lambda rule: rule.name)
@pytest.mark.parametrize(("dtype", "packed"), [("float32", "ps"), ("float64", "pd")])
def test_a_kernel_works_on_vectors_as_wide_as_the_processor_has(rule, dtype, packed, tmp_path):
    text = disassembly(image_of(rule, dtype), tmp_path)
    operations = [line for line in text.splitlines() if re.search(rf"\bv?(add|sub|mul|sqrt|div){packed}\b", line)]
    assert operations, text
    if llvm.get_host_cpu_features().get("avx"):
        assert any("ymm" in line or "zmm" in line for line in operations), operations


@needs_objdump
@pytest.mark.parametrize("rule", [*LIBRARY.values(), everything()], ids=lambda rule: rule.name)
def test_a_float32_kernel_computes_nothing_in_float64_and_calls_nothing(rule, tmp_path):
    text = disassembly(image_of(rule, "float32"), tmp_path)
    assert not re.search(r"\bv?(mul|add|sub|div|sqrt)[ps]d\b", text)
    assert not re.search(r"\bv?cvt[sp]s2[sp]d\b", text)  # the other way round uniforms arrive
    assert "call" not in text, "a power or a function of the C library for each element"


@pytest.mark.skipif(not shutil.which("nm"), reason="reads symbols with nm")
@pytest.mark.parametrize("rule", [*LIBRARY.values(), everything()], ids=lambda rule: rule.name)
def test_an_object_file_exports_two_functions_and_needs_mathematics_at_most(rule, tmp_path):
    image = image_of(rule, "float64")
    path = tmp_path / "kernel.o"
    path.write_bytes(image.code)
    symbols = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
    assert {line.split()[-1] for line in symbols if line.split()[-2] == "U"} <= {"pow", "exp", "expm1", "log", "cos"}
    exported = {line.split()[-1] for line in symbols if line.split()[-2] == "T"}
    assert exported == {image.symbol, f"{image.symbol}_prepare"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_equals_the_rule_as_it_is_written(dtype, rng):
    for flag in (False, True):
        p, *grads = rng.normal(size=(6, 200)).astype(dtype)
        found, expected = (after(kind, everything(flag=flag), p, grads) for kind in (Compiled, Naive))
        assert close(found.params, expected.params)
        for slot, values in found.slots.items():
            assert close(values, expected.slots[slot])


def test_uniforms_are_computed_in_float64(rng):
    """1 - 0.999 in float32 is wrong by 5e-5."""
    p, g = np.zeros(10, np.float32), np.ones(10, np.float32)
    found = after(Compiled, fastps.Adam(beta2=0.999), p, [g])
    assert np.allclose(found.slots["v"], 0.001, rtol=1e-7, atol=0)


# Images and their loading


def test_an_image_survives_its_bytes_and_damaged_bytes_are_no_image():
    image = image_of(fastps.Add(), "float32")
    data = image.to_bytes()
    assert KernelImage.from_bytes(data) == image
    assert KernelImage.from_bytes(data[:-1]) is None
    assert KernelImage.from_bytes(b"") is None
    assert KernelImage.from_bytes(b"something else") is None
    for at in (0, 20, 90, len(data) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[at] ^= 0x80
        assert KernelImage.from_bytes(bytes(damaged)) is None


def test_the_loader_loads_a_kernel_once():
    loader = Loader()
    add, sgd = image_of(fastps.Add(), "float32"), image_of(fastps.SGD(0.1), "float32")
    first = loader.addresses_of(add)
    assert loader.addresses_of(sgd) != first
    assert loader.addresses_of(KernelImage(add.symbol, add.code)) == first


def test_hyper_parameters_are_arguments_and_not_part_of_the_code():
    assert image_of(fastps.SGD(0.1), "float32") == image_of(fastps.SGD(0.2, weight_decay=3.0), "float32")


@fastps.rule
def names_of_our_own(p, g, *, step, version=7.0, v0=3.0, k0=5.0, s=2.0, hyper=0.5, h_s=1.5, lr=0.1):
    return p - lr * (v0 * 2 + 1) * g + (k0 * s - 1) * g / (hyper + h_s) + version * step


@fastps.rule
def with_a_loop(p, g, *, lr=0.1):
    total = p * 0
    for i in range(3):
        total = total + g / (i + 1)
    return p - lr * total


def doubled_to_one(a):
    """Does not end for 0."""
    while a < 1:
        a = a * 2
    return a


@fastps.rule
def guarded_call(p, g, *, lr=0.0):
    if lr > 0:
        return p - doubled_to_one(lr) * g
    return p - g


@fastps.rule
def uniform_assigned_twice(p, g, *, lr=0.9):
    x = lr
    p = p - x * g
    x = lr * 2
    return p - x * g


@fastps.rule
def hyper_parameter_in_a_branch(p, g, *, lr=0.9):
    lr = lr if g > 0 else 0.0
    p = p - lr * g
    lr = lr / 2
    return p - lr * g


@fastps.rule
def constant_assigned_twice(p, g):
    x = 2
    p = p * x
    x = 3
    return p * x - g**-2


@fastps.rule
def été(p, g):
    return p + keyword(g)


ANY = [
    names_of_our_own, with_a_loop, guarded_call, uniform_assigned_twice, hyper_parameter_in_a_branch,
    constant_assigned_twice, été,
]  # fmt: skip


@samples(family=ANY, dtype=DTYPES)
def test_a_rule_may_be_written_in_many_ways(family, dtype, rng):
    p, *grads = rng.normal(size=(4, 100)).astype(dtype)
    found, expected = (after(kind, family(), p, grads).params for kind in (Compiled, Naive))
    assert np.allclose(found, expected, rtol=64 * np.finfo(dtype).eps, atol=64 * np.finfo(dtype).eps)
    assert image_of(family(), dtype)


def test_a_schedule_gets_the_version_whatever_hyper_parameters_are_called(rng):
    rule = names_of_our_own(lr=lambda version: 1 / (version + 1))
    p, *grads = rng.normal(size=(4, 10))
    assert close(after(Compiled, rule, p, grads).params, after(Naive, rule, p, grads).params)


def keyword_only(x, *, c=0.5):
    return x + c


def keyword(x, k=2.0, c=0.5):
    return x * k + c


@fastps.rule
def calls_with_keywords(p, g, *, lr=0.1):
    return p - lr * keyword(g, lr, c=lr * 2) - keyword(c=g, x=lr) + np.clip(lr, 0, 0.05)


def test_functions_are_called_with_keywords_and_defaults(rng):
    p, *grads = rng.normal(size=(4, 100))
    found, expected = (after(kind, calls_with_keywords(), p, grads) for kind in (Compiled, Naive))
    assert close(found.params, expected.params)


@pytest.mark.parametrize("on_elements", [True, False])
def test_a_keyword_only_argument_of_a_function_that_is_called_is_refused(on_elements):
    @fastps.rule
    def calls(p, g, *, lr=0.1):
        return p - (keyword_only(g, c=lr) if on_elements else keyword_only(lr, c=lr) * g)

    with pytest.raises(CompileError, match=r"(?s)expected `c` to be a plain argument.*def keyword_only"):
        image_of(calls(), "float64")


@samples(
    schedule=[
        schedules.constant(0.1),
        schedules.step_decay(1.0, every=2, factor=0.5),
        schedules.cosine(0.1, steps=5),
        schedules.warmup(schedules.step_decay(1.0, every=2), steps=3),
        schedules.warmup(schedules.cosine(0.1, steps=3), steps=2),
    ],
    dtype=DTYPES,
)
def test_a_schedule_is_compiled_and_gives_what_it_gives_in_python(schedule, dtype):
    p, grads = np.zeros(3, dtype), [np.ones(3, dtype)] * 8
    rule = fastps.SGD(schedule)
    assert close(after(Compiled, rule, p, grads).params, after(Naive, rule, p, grads).params)


def test_a_lambda_is_a_rule():
    found = after(Compiled, fastps.rule(lambda p, g: p + 2 * g)(), np.zeros(3), [np.ones(3)])
    assert found.params.tolist() == [2.0] * 3


# What is refused, with the user's line


@fastps.rule
def adds_text(p, g):
    return p + "g"


@fastps.rule
def unknown_name(p, g):
    q = p * 2
    return q + nowhere  # noqa: F821


@fastps.rule
def calls_python(p, g):
    print(p)
    return p


@fastps.rule(slots={"m": 0.0})
def forgets_a_slot(p, g, m, *, lr=0.1):
    m = m + g
    return p - lr * m


@fastps.rule
def returns_too_much(p, g):
    return p, g


@fastps.rule
def raises(p, g):
    if g < 0:
        raise ValueError("negative")
    return p + g


def endless(x):
    return endless(x)


@fastps.rule
def calls_itself(p, g):
    return p - endless(g)


@fastps.rule
def calls_what_numba_has_not(p, g):
    return p - math.fmod(g, 2.0)


@fastps.rule
def calls_what_numba_has_not_once_a_push(p, g, *, lr=0.1):
    return p - math.fmod(lr, 2.0) * g


REFUSED = [
    (calls_what_numba_has_not, "", "it calls `fmod`, which numba does not have"),
    (calls_what_numba_has_not_once_a_push, "", "it calls `fmod`, which numba does not have"),
    (calls_itself, "def calls_itself", "calls itself"),
    (adds_text, 'return p + "g"', "no implementation"),
    (unknown_name, "return q + nowhere", "nowhere"),
    (calls_python, "print(p)", ""),
    (forgets_a_slot, "return p - lr * m", "the new parameter, m, got 1 value"),
    (returns_too_much, "return p, g", "the new parameter, got 2 values"),
    (raises, "raise ValueError", "can raise"),
]


@pytest.mark.parametrize(("family", "line", "reason"), REFUSED, ids=lambda value: getattr(value, "name", None))
def test_a_rule_that_cannot_be_compiled_is_refused_with_its_line(family, line, reason):
    with pytest.raises(CompileError, match=family.name) as caught:
        image_of(family(), "float32")
    assert reason in str(caught.value)
    if line not in ("print(p)", ""):
        assert line in str(caught.value)
        assert "test_kernels.py" in str(caught.value)


def from_nowhere(factor):
    """A rule whose source is in no file, as in a REPL."""
    names = {"fastps": fastps}
    exec(f"@fastps.rule\ndef nowhere(p, g, *, lr=1.0):\n    return p - {factor} * lr * g\n", names)
    return names["nowhere"]()


def scaled(factor):
    @fastps.rule
    def scaled(p, g):
        return p + factor * g

    return scaled()


@fastps.rule
def global_factor(p, g):
    return p + GLOBAL_FACTOR * g


def test_a_rule_without_source_is_compiled_and_known_by_its_code():
    for factor in (1, 2):
        found = after(Compiled, from_nowhere(factor), np.full(5, 3.0), [np.ones(5)])
        assert found.params.tolist() == [3.0 - factor] * 5
    assert image_of(from_nowhere(1), "float64") != image_of(from_nowhere(2), "float64")


def test_rules_that_differ_in_a_constant_alone_are_different_kernels(monkeypatch):
    assert image_of(scaled(2.0), "float64") != image_of(scaled(3.0), "float64")
    assert after(Compiled, scaled(2.0), np.zeros(5), [np.ones(5)]).params.tolist() == [2.0] * 5
    first = image_of(global_factor(), "float64")
    monkeypatch.setitem(globals(), "GLOBAL_FACTOR", 3.0)
    assert image_of(global_factor(), "float64") != first
