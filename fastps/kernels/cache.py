"""Compiled kernels on disk: `~/.cache/fastps/kernels` (or $FASTPS_CACHE_DIR), one file a kernel, private to the user.

A missing kernel is compiled under a file lock, so that processes which start together compile once. A directory that
cannot be written, or belongs to another user, is not used: then every process compiles.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import os
import re
import secrets
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastps.kernels.image import KernelImage
from fastps.kernels.loader import host_cpu

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastps.rules.base import Rule

LOCK_TRIES, LOCK_PAUSE = 1200, 0.05


def image_of(rule: Rule, dtype: str, shape: str = "dense", clips: bool = False) -> KernelImage:
    """The kernel of `rule` (see `compiler.compile_rule`), from disk or newly compiled. Raises CompileError."""
    key = key_of(rule, dtype, shape, clips)
    word = re.sub(r"\W", "_", rule.name, flags=re.ASCII)  # lambdas, letters of other alphabets
    if key is None:
        return compile_now(rule, dtype, shape, clips, f"fastps_{word}_{dtype}_{secrets.token_hex(8)}")
    symbol = f"fastps_{word}_{dtype}_{key[:16]}"
    directory = cache_directory()
    if directory is None:
        return compile_now(rule, dtype, shape, clips, symbol)
    path = directory / f"{key}.kernel"
    image = read(path)
    if image is None:
        with locked(directory / "lock"):
            image = read(path)  # another process may have compiled it during the wait
            if image is None:
                image = compile_now(rule, dtype, shape, clips, symbol)
                write(path, image)
    return image


def compile_now(rule: Rule, dtype: str, shape: str, clips: bool, symbol: str) -> KernelImage:
    from fastps.kernels.compiler import compile_rule  # imports numba: half a second that a hit saves

    return compile_rule(rule, dtype, shape, clips, symbol)


def key_of(rule: Rule, dtype: str, shape: str = "dense", clips: bool = False) -> str | None:
    """Everything that the machine code depends on; None if that is unknown, and the code must not be cached.

    The numbers of hyper-parameters are arguments of a kernel, not part of it; schedules are compiled into it.
    """
    code = [meaning_of(rule.family.function)]
    code += [meaning_of(schedule.function) for schedule in rule.schedules.values()]
    if None in code:
        return None
    ours = sorted(Path(__file__).parent.glob("*.py"))  # options and templates
    parts = [
        *map(str, code),
        repr(
            (rule.family.slot_order, rule.family.row_slots, list(rule.hyper), list(rule.schedules), dtype, shape, clips)
        ),
        *(path.read_text() for path in ours),
        metadata.version("numba"),
        metadata.version("llvmlite"),
        host_cpu(),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def meaning_of(function: Any, above: tuple[Any, ...] = ()) -> str | None:
    """A function's code and everything that it refers to, functions that it calls included, as text. None if some of
    that is neither a number, nor such a function, nor of `math` or `numpy`."""
    function = getattr(function, "py_func", function)  # numba's dispatchers
    if not isinstance(function, FunctionType) or function in above:
        return None
    parts = [sys.version, meaning_of_code(function.__code__)]
    try:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # not filled yet
        return None
    outside = dict(zip(function.__code__.co_freevars, cells, strict=True))
    outside |= {
        name: function.__globals__[name] for name in names_in(function.__code__) if name in function.__globals__
    }
    outside |= {f"default {i}": value for i, value in enumerate(function.__defaults__ or ())}
    for name, value in sorted(outside.items()):
        if isinstance(value, (bool, int, float, np.number)):
            parts.append(f"{name} = {type(value).__name__} {value!r}")
        elif inspect.ismodule(value) and value.__name__ in ("math", "numpy"):
            parts.append(f"{name} = {value.__name__}")
        elif isinstance(value, (BuiltinFunctionType, np.ufunc)) or any(value is f for f in (np.clip, np.sign)):
            parts.append(f"{name} = {getattr(value, '__module__', '')}.{value.__name__}")
        else:
            meaning = meaning_of(value, (*above, function))
            if meaning is None:
                return None
            parts.append(f"{name} = {meaning}")
    return "\0".join(parts)


def meaning_of_code(code: CodeType) -> str:
    """The code in memory: a source file may have been edited since it was read."""
    constants = [meaning_of_code(c) if isinstance(c, CodeType) else f"{type(c).__name__} {c!r}" for c in code.co_consts]
    counts = (code.co_argcount, code.co_kwonlyargcount)
    names = (code.co_names, code.co_varnames, code.co_freevars)
    return repr((code.co_code, code.co_exceptiontable, constants, names, counts))


def names_in(code: CodeType) -> set[str]:
    """The names that a function and its nested functions look up."""
    return set(code.co_names).union(*(names_in(c) for c in code.co_consts if isinstance(c, CodeType)))


def cache_directory() -> Path | None:
    """The directory, created if necessary; None if there is none that belongs to this user alone."""
    chosen = os.environ.get("FASTPS_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = Path(chosen) if chosen else Path(home) / "fastps" / "kernels"
    if not chosen and not directory.is_absolute():  # a user without a home
        return None
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError:
        return None
    private = status.st_uid == os.geteuid() and not status.st_mode & 0o022
    return directory if private and os.access(directory, os.W_OK) else None


def read(path: Path) -> KernelImage | None:
    try:
        return KernelImage.from_bytes(path.read_bytes())
    except OSError:
        return None


def write(path: Path, image: KernelImage) -> None:
    """Writes atomically: a reader never sees half a file."""
    with contextlib.suppress(OSError):  # a full disk: the kernel is compiled again next time
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix="new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(image.to_bytes())
            os.replace(name, path)
        except OSError:
            os.unlink(name)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process compiles at a time. After a minute of waiting a process compiles anyway: the other one may be
    stopped. So does one that cannot lock: some file systems have no locks, and the file may belong to another user."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file = stack.enter_context(open(path, "w"))
            for _ in range(LOCK_TRIES):
                try:
                    fcntl.flock(
                        file, fcntl.LOCK_EX | fcntl.LOCK_NB
                    )  # released when the file is closed, also by a death
                    break
                except BlockingIOError:
                    time.sleep(LOCK_PAUSE)
        yield
