"""A user's line of code, for messages."""

from __future__ import annotations

import hashlib
import inspect
import linecache
from collections.abc import Callable
from typing import Any


def at_line_of(function: Callable[..., Any]) -> str:
    """Where a function begins, and its text if there is any."""
    code = function.__code__
    lines = [linecache.getline(code.co_filename, code.co_firstlineno + i) for i in range(8)]
    ahead = next((i for i, line in enumerate(lines) if line.lstrip().startswith(("def ", "async def "))), 0)
    return at_line(code.co_filename, code.co_firstlineno + ahead)


def at_line(filename: str, line: int) -> str:
    text = linecache.getline(filename, line).strip()
    return f"\n  {filename}:{line}" + (f"\n    {text}" if text else "")


def hash_of_source(function: Callable[..., Any]) -> str:
    """SHA-256 of the function's text, or where there is none of its code."""
    try:
        text = inspect.getsource(function).encode()
    except (OSError, TypeError):
        code = function.__code__
        text = code.co_code + repr((code.co_consts, code.co_names, code.co_varnames)).encode()
    return hashlib.sha256(text).hexdigest()
