"""Worker processes of a program: Ray actors for the duration of a block, and what their calls return."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray


@contextmanager
def crew(workers: list[Any]) -> Iterator[list[Any]]:
    """Actors that are killed at the end of the block."""
    try:
        yield workers
    finally:
        for worker in workers:
            ray.kill(worker)


def results_of(calls: list[Any]) -> list[Any]:
    """The results of Ray calls. An error is raised as the worker raised it, without Ray's text around it."""
    try:
        results: list[Any] = ray.get(calls)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return results
