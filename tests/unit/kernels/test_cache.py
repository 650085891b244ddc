"""Kernels on disk, seen by processes that start with an empty directory, a damaged file, or none at all."""

import errno
import math
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import fastps
from fastps.kernels import cache
from fastps.schedules import cosine
from tests.support.extent import short_or_long
from tests.support.waiting import GUARD_SECONDS

# Says on stdout whether it compiled, whether numba is loaded, and what 1 + 2 is by the kernel.
PROGRAM = """
import sys
import fastps
from fastps.kernels import cache
from fastps.kernels.loader import addresses_of
compiled = []
compile_now = cache.compile_now
cache.compile_now = lambda *args: compiled.append(1) or compile_now(*args)
sys.stdin.readline()
image = cache.image_of(fastps.Add(), "float64")
import ctypes, numpy as np
p, g, r = np.ones(3), np.full(3, 2.0), np.zeros(3)
pointer, number = ctypes.c_void_p, ctypes.c_int64
kernel = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, number, number, pointer)(addresses_of(image)[0])
kernel((pointer * 1)(p.ctypes.data), g.ctypes.data, (pointer * 1)(r.ctypes.data), 3, 0, None)
print(len(compiled), "numba" in sys.modules, r.tolist())
"""


def start(directory):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "FASTPS_CACHE_DIR": str(directory)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(directory, count=1):
    processes = [start(directory) for _ in range(count)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=GUARD_SECONDS)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return answers


PROCESSES = short_or_long(4, 20)
COMPILED, LOADED = "1 True [3.0, 3.0, 3.0]", "0 False [3.0, 3.0, 3.0]"


def test_the_second_process_loads_without_numba(tmp_path):
    assert run(tmp_path) == [COMPILED]
    (path,) = tmp_path.glob("*.kernel")
    before = path.read_bytes()
    assert run(tmp_path) == [LOADED]
    assert path.read_bytes() == before


@pytest.fixture(scope="module")
def image():
    """A kernel, compiled once."""
    return cache.image_of(fastps.Add(), "float64")


@pytest.fixture
def compilations(tmp_path, monkeypatch, image):
    """An empty directory for this process, in which whatever asks the compiler gets that kernel and is counted."""
    monkeypatch.setenv("FASTPS_CACHE_DIR", str(tmp_path))
    counted = []
    monkeypatch.setattr(cache, "compile_now", lambda *_: counted.append(1) or image)
    return counted


def test_processes_that_start_together_compile_once(tmp_path):
    directory = tmp_path / "new" / "deep"
    answers = run(directory, PROCESSES)
    assert sorted(answers) == [LOADED] * (PROCESSES - 1) + [COMPILED]
    assert len(list(directory.glob("*.kernel"))) == 1
    assert not list(directory.glob("new-*"))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-10], lambda data: data[:300] + b"?" + data[301:], lambda data: b""]
)
def test_a_damaged_file_is_compiled_again(damage, tmp_path, image, compilations):
    assert cache.image_of(fastps.Add(), "float64") == image
    (path,) = tmp_path.glob("*.kernel")
    good = path.read_bytes()
    path.write_bytes(damage(good))
    for _ in range(2):
        assert cache.image_of(fastps.Add(), "float64") == image
        assert len(compilations) == 2
        assert path.read_bytes() == good


def test_a_process_that_finds_a_damaged_file_compiles_and_the_next_one_loads(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTPS_CACHE_DIR", str(tmp_path))
    (tmp_path / f"{cache.key_of(fastps.Add(), 'float64')}.kernel").write_bytes(b"damaged")
    assert run(tmp_path) == [COMPILED]
    assert run(tmp_path) == [LOADED]


def test_a_directory_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "file").touch()
    assert run(tmp_path / "file" / "below") == [COMPILED]


def test_a_directory_that_others_can_write_is_not_trusted(tmp_path):
    tmp_path.chmod(0o777)
    assert run(tmp_path) == [COMPILED]
    assert list(tmp_path.iterdir()) == []


def test_the_directory_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTPS_CACHE_DIR", str(tmp_path / "a" / "b"))
    directory = cache.cache_directory()
    assert directory == tmp_path / "a" / "b"
    assert directory.stat().st_mode & 0o077 == 0


def test_without_the_variable_the_users_cache_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTPS_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_directory() == tmp_path / "fastps" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_directory() == tmp_path / ".cache" / "fastps" / "kernels"


def test_a_full_disk_costs_the_file_only(tmp_path, monkeypatch, image):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache.write(tmp_path / "x.kernel", image)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(cache.tempfile, "mkstemp", full)
    cache.write(tmp_path / "x.kernel", image)


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO], ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_used_without_them(monkeypatch, error, image, compilations):
    def flock(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(cache.fcntl, "flock", flock)
    for _ in range(2):
        assert cache.image_of(fastps.Add(), "float64") == image
        assert len(compilations) == 1


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EMFILE], ids=errno.errorcode.get)
def test_a_lock_that_cannot_be_opened_is_done_without(monkeypatch, error, image, compilations):
    def opened(path, *_):
        raise OSError(error, os.strerror(error), str(path))

    monkeypatch.setattr(cache, "open", opened, raising=False)
    for _ in range(2):
        assert cache.image_of(fastps.Add(), "float64") == image
        assert len(compilations) == 1


def test_an_error_under_the_lock_comes_out(tmp_path):
    with pytest.raises(OSError, match="mine"), cache.locked(tmp_path / "lock"):
        raise OSError("mine")


def test_a_kernel_whose_file_cannot_be_read_is_compiled(tmp_path, image, compilations):
    key = cache.key_of(fastps.Add(), "float64")
    (tmp_path / f"{key}.kernel").mkdir()
    assert cache.image_of(fastps.Add(), "float64") == image
    assert len(compilations) == 1


def test_a_user_without_a_home_has_no_cache(tmp_path, monkeypatch):
    for name in ("FASTPS_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "not/absolute")
    monkeypatch.chdir(tmp_path)
    assert cache.cache_directory() is None
    assert list(tmp_path.iterdir()) == []


def test_the_key_tells_rules_and_dtypes_apart():
    keys = {
        cache.key_of(rule, dtype, shape, clips)
        for rule in (
            fastps.Add(),
            fastps.SGD(0.1),
            fastps.SGD(cosine(0.1, steps=10)),
            fastps.SGD(cosine(0.2, steps=10)),
        )
        for dtype in ("float32", "float64")
        for shape in ("dense", "row")
        for clips in (False, True)
    }
    assert len(keys) == 32
    assert None not in keys


FACTOR = 2.0


def scaled(x, by=1.0):
    return x * by * FACTOR


def calls(function):
    @fastps.rule
    def calling(p, g, *, lr=0.1):
        return p - lr * function(g)

    return calling()


def test_the_key_follows_what_a_rule_calls_and_refers_to(monkeypatch):
    def inner(x):
        return scaled(x)

    keys = [cache.key_of(calls(f), "float32") for f in (scaled, inner, math.sqrt, np.sqrt, math.exp)]
    keys += [cache.key_of(calls(numba.njit(scaled)), "float32")]
    assert keys[0] == keys[-1]  # compiled anew all the same
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    keys += [cache.key_of(calls(f), "float32") for f in (scaled, inner)]
    monkeypatch.setattr(scaled, "__defaults__", (2.0,))
    keys += [cache.key_of(calls(scaled), "float32")]
    assert len(set(keys)) == 8
    assert None not in keys


def test_what_a_rule_refers_to_and_cannot_be_told_is_not_cached():
    table = np.ones(3)
    assert cache.key_of(calls(lambda x: x * table[0]), "float32") is None
    assert cache.key_of(calls(lambda x: [x][0] * len(CALLED)), "float32") is None


CALLED = "text"


def test_the_cache_of_this_run_is_its_own():
    assert Path(os.environ["FASTPS_CACHE_DIR"]) == cache.cache_directory()
