"""Compiled kernels on disk: `~/.cache/fastps/kernels` (or $FASTPS_CACHE_DIR), one file a kernel, private to the user.

Whoever needs a kernel that is not there compiles it under a file lock, so that processes which start together compile
once. A directory that cannot be written, or belongs to somebody else, is not used: then every process compiles.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import os
import secrets
import sys
import tempfile
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

import llvmlite.binding as llvm

from fastps.kernels.image import KernelImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastps.rules.base import Rule


def image_of(rule: Rule, dtype: str) -> KernelImage:
    """The kernel of `rule` for `dtype`, from disk or newly compiled. Raises CompileError."""
    key = key_of(rule, dtype)
    if key is None:
        return compile_now(rule, dtype, f"fastps_{type(rule).__name__}_{dtype}_{secrets.token_hex(8)}")
    symbol = f"fastps_{type(rule).__name__}_{dtype}_{key[:16]}"
    directory = cache_directory()
    if directory is None:
        return compile_now(rule, dtype, symbol)
    path = directory / f"{key}.kernel"
    image = read(path)
    if image is None:
        with locked(directory / "lock"):
            image = read(path)  # somebody else may have compiled it while we waited
            if image is None:
                image = compile_now(rule, dtype, symbol)
                write(path, image)
    return image


def compile_now(rule: Rule, dtype: str, symbol: str) -> KernelImage:
    from fastps.kernels.compiler import compile_rule  # imports numba: half a second that a hit does without

    return compile_rule(rule, dtype, symbol)


def key_of(rule: Rule, dtype: str) -> str | None:
    """Everything that the machine code depends on; None when that cannot be told, and nothing must be cached.

    The values of hyper-parameters are arguments of a kernel, not part of it.
    """
    code = meaning_of(rule.scalar)
    if code is None:
        return None
    compiler = Path(__file__).with_name("compiler.py").read_text()  # its options and its templates
    features = ",".join(sorted(name for name, on in llvm.get_host_cpu_features().items() if on))
    parts = [
        code,
        str(len(rule.hyper)),
        dtype,
        compiler,
        metadata.version("numba"),
        metadata.version("llvmlite"),
        llvm.get_host_cpu_name(),
        features,
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def meaning_of(function: Any) -> str | None:
    """What a function does, as text: its code and all that it refers to. None when some of that is no plain value."""
    try:
        outside = inspect.getclosurevars(function)
    except TypeError:
        return None
    parts = [sys.version, repr(function.__defaults__), meaning_of_code(function.__code__)]
    for name, value in sorted({**outside.nonlocals, **outside.globals}.items()):
        if isinstance(value, (bool, int, float)):
            parts.append(f"{name} = {type(value).__name__} {value!r}")
        elif inspect.ismodule(value) and value.__name__ in ("math", "numpy"):
            parts.append(f"{name} = {value.__name__}")
        else:
            return None
    return "\0".join(parts)


def meaning_of_code(code: CodeType) -> str:
    """The code as it is in memory: a source file may have been edited since it was read."""
    constants = [meaning_of_code(c) if isinstance(c, CodeType) else f"{type(c).__name__} {c!r}" for c in code.co_consts]
    return repr((code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, code.co_argcount))


def cache_directory() -> Path | None:
    """The directory, made if need be; None when there is none that is ours alone."""
    chosen = os.environ.get("FASTPS_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = Path(chosen) if chosen else Path(home) / "fastps" / "kernels"
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
    """All or nothing: a reader never sees half a file."""
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
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed, also by a death
        yield
