"""Descriptions that may hold anything: whatever is wrong with one is a CheckpointError."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from fastps.errors import CheckpointError, FastPSError
from fastps.messages import brief

F = TypeVar("F", bound=Callable[..., Any])
DEEPEST = 64  # containers, and schedules, in each other


def refusing(what: str) -> Callable[[F], F]:
    """A decorator of functions that read a description: whatever is wrong with it is a CheckpointError."""

    def decorate(function: F) -> F:
        @wraps(function)
        def read(described: Any, *more: Any) -> Any:
            try:
                return function(described, *more)
            except FastPSError:
                raise
            except Exception as error:
                raise CheckpointError(
                    f"{what}: the manifest says what cannot be: {type(error).__name__} {brief(error)}"
                ) from error

        return read  # type: ignore[return-value]

    return decorate
