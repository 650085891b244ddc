"""Each kernel against its naive twin, and what its machine code is like."""

import ctypes
import math
import os
import re
import shutil
import subprocess
from dataclasses import dataclass

import llvmlite.binding as llvm
import numpy as np
import pytest

import fastps
from fastps.errors import CompileError
from fastps.kernels.cache import image_of
from fastps.kernels.image import KernelImage
from fastps.kernels.loader import Loader, address_of
from fastps.rules import Rule
from fastps.testing import naive

RULES = [fastps.Add(), fastps.SGD(0.1), fastps.SGD(0.1, weight_decay=0.01), fastps.SGD(-3.0, weight_decay=7.5)]
DTYPES = ["float32", "float64"]
KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)


@dataclass(frozen=True)
class Clipped(Rule):
    """A rule as a user writes one."""

    lr: float
    limit: float

    @staticmethod
    def step(p: float, g: float, lr: float, limit: float) -> float:
        return p - lr * min(max(g, -limit), limit)


def run(rule, p, g, offset=0):
    """Calls the kernel on arrays that begin `offset` elements into their memory; checks that it stays inside."""
    n, dtype = len(p), p.dtype
    memory = [np.full(n + 32, 7, dtype) for _ in range(3)]
    params, grads, result = [m[8 + offset : 8 + offset + n] for m in memory]
    params[:], grads[:] = p, g
    hyper = np.array(rule.hyper, np.float64)
    KERNEL(address_of(image_of(rule, dtype.name)))(
        params.ctypes.data, grads.ctypes.data, result.ctypes.data, n, hyper.ctypes.data
    )
    assert np.array_equal(params, p, equal_nan=True)
    assert np.array_equal(grads, g, equal_nan=True)
    assert (memory[2][: 8 + offset] == 7).all()
    assert (memory[2][8 + offset + n :] == 7).all()
    return result


def same_bits(a, b):
    """Equal bit for bit; a NaN is as good as another."""
    integers = {4: np.uint32, 8: np.uint64}[a.dtype.itemsize]
    return np.array_equal(np.isnan(a), np.isnan(b)) and np.array_equal(
        a[~np.isnan(a)].view(integers), b[~np.isnan(b)].view(integers)
    )


@pytest.mark.parametrize("rule", [*RULES, Clipped(0.1, 1.0)], ids=repr)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 31, 64, 1001])
def test_a_kernel_equals_its_naive_twin_bit_for_bit(rule, dtype, n, rng):
    p, g = rng.normal(size=(2, n)).astype(dtype)
    for offset in (0, 1):
        assert same_bits(run(rule, p, g, offset), naive.apply(rule, p, g))


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_kernel_treats_extreme_numbers_as_its_naive_twin_does(rule, dtype):
    info = np.finfo(dtype)
    extremes = np.array(
        [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, info.max, info.min, info.tiny, -info.tiny,
         info.smallest_subnormal, -info.smallest_subnormal, info.tiny / 3, 1 + info.eps],
        dtype,
    )  # fmt: skip
    p, g = (m.ravel() for m in np.meshgrid(extremes, extremes))
    expected = naive.apply(rule, p.copy(), g.copy())
    found = run(rule, p.copy(), g.copy())
    assert same_bits(found, expected)
    assert np.isnan(found).any()
    assert np.isinf(found).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_adding_denormals_does_not_flush_them_to_zero(dtype):
    smallest = np.full(9, np.finfo(dtype).smallest_subnormal, dtype)
    assert (run(fastps.Add(), smallest, smallest) == 2 * smallest).all()
    assert (run(fastps.Add(), smallest, smallest) > 0).all()


needs_binutils = pytest.mark.skipif(
    os.uname().machine != "x86_64" or not shutil.which("objdump"), reason="reads x86 instructions with objdump"
)


def disassembly(image, tmp_path):
    path = tmp_path / "kernel.o"
    path.write_bytes(image.code)
    return subprocess.run(["objdump", "-d", path], capture_output=True, text=True, check=True).stdout


@needs_binutils
@pytest.mark.parametrize(
    ("rule", "dtype", "packed"),
    [
        (fastps.Add(), "float32", "addps"),
        (fastps.Add(), "float64", "addpd"),
        (fastps.SGD(0.1, 0.1), "float32", "mulps"),
        (fastps.SGD(0.1, 0.1), "float64", "mulpd"),
    ],
    ids=str,
)
def test_a_kernel_works_on_vectors_as_wide_as_the_processor_has(rule, dtype, packed, tmp_path):
    text = disassembly(image_of(rule, dtype), tmp_path)
    operations = [line for line in text.splitlines() if re.search(rf"\bv?{packed}\b", line)]
    assert operations, text
    if llvm.get_host_cpu_features().get("avx"):
        assert any("ymm" in line or "zmm" in line for line in operations), operations


@needs_binutils
def test_a_float32_kernel_does_not_compute_in_float64(tmp_path):
    text = disassembly(image_of(fastps.SGD(0.1, 0.1), "float32"), tmp_path)
    assert not re.search(r"\bv?(mul|add|sub)[ps]d\b", text)
    assert not re.search(r"\bv?cvtps2pd\b", text)


@pytest.mark.skipif(not shutil.which("nm"), reason="reads symbols with nm")
@pytest.mark.parametrize("rule", [*RULES[:2], Clipped(0.1, 1.0)], ids=repr)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_kernel_needs_no_symbol_from_outside_and_exports_one(rule, dtype, tmp_path):
    image = image_of(rule, dtype)
    path = tmp_path / "kernel.o"
    path.write_bytes(image.code)
    symbols = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line for line in symbols if line.split()[-2] == "U"] == []
    assert [line.split()[-1] for line in symbols if line.split()[-2] == "T"] == [image.symbol]


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
    first = loader.address_of(add)
    assert loader.address_of(sgd) != first
    assert loader.address_of(KernelImage(add.symbol, add.code)) == first


def test_hyper_parameters_are_arguments_and_not_part_of_the_code():
    assert image_of(fastps.SGD(0.1), "float32") == image_of(fastps.SGD(0.2, 3.0), "float32")


@dataclass(frozen=True)
class CallsPython(Rule):
    @staticmethod
    def step(p: float, g: float) -> float:
        print(p)
        return p


@dataclass(frozen=True)
class ReturnsText(Rule):
    @staticmethod
    def step(p: float, g: float) -> float:
        return "p" + "g"


@dataclass(frozen=True)
class UnknownName(Rule):
    @staticmethod
    def step(p: float, g: float) -> float:
        return p + unknown_name  # noqa: F821


@dataclass(frozen=True)
class TooFewArguments(Rule):
    lr: float = 0.1

    @staticmethod
    def step(p: float, g: float) -> float:
        return p


@dataclass(frozen=True)
class NotAFunction(Rule):
    step = math.hypot


def from_nowhere():
    """A rule whose source is in no file, as in a REPL."""
    names = {"Rule": Rule, "dataclass": dataclass}
    exec(
        "@dataclass(frozen=True)\nclass Nowhere(Rule):\n"
        "    @staticmethod\n    def step(p, g):\n        return p - g\n", names,
    )  # fmt: skip
    return names["Nowhere"]()


@pytest.mark.parametrize(
    "rule", [CallsPython(), ReturnsText(), UnknownName(), TooFewArguments(), NotAFunction()], ids=repr
)
def test_a_step_that_cannot_be_compiled_raises_compile_error(rule):
    with pytest.raises(CompileError, match=type(rule).__name__):
        image_of(rule, "float32")


def test_a_rule_without_source_is_compiled_or_raises_compile_error():
    try:
        found = run(from_nowhere(), np.full(5, 3.0), np.ones(5))
    except CompileError:
        return
    assert (found == 2).all()


def scaled(factor):
    @dataclass(frozen=True)
    class Scaled(Rule):
        @staticmethod
        def step(p: float, g: float) -> float:
            return p + factor * g

    return Scaled()


def test_rules_that_differ_in_a_closure_constant_alone_are_different_kernels():
    p, g = np.zeros(5), np.ones(5)
    assert run(scaled(2.0), p, g).tolist() == [2.0] * 5
    assert run(scaled(3.0), p, g).tolist() == [3.0] * 5


def test_rules_that_differ_in_a_global_constant_alone_are_different_kernels(monkeypatch):
    p, g = np.zeros(5), np.ones(5)
    monkeypatch.setitem(globals(), "GLOBAL_FACTOR", 2.0)
    assert run(GlobalFactor(), p, g).tolist() == [2.0] * 5
    monkeypatch.setitem(globals(), "GLOBAL_FACTOR", 3.0)
    assert run(GlobalFactor(), p, g).tolist() == [3.0] * 5


GLOBAL_FACTOR = 1.0


@dataclass(frozen=True)
class GlobalFactor(Rule):
    @staticmethod
    def step(p: float, g: float) -> float:
        return p + GLOBAL_FACTOR * g


@dataclass(frozen=True)
class Raises(Rule):
    """A step that fails for some inputs, which the core could not notice."""

    @staticmethod
    def step(p, g):
        if g < 0:
            raise ValueError("negative")
        return p + g


def test_a_step_that_can_raise_is_refused():
    with pytest.raises(CompileError, match="can raise"):
        image_of(Raises(), "float32")
