"""Asynchronous operations on the arrays: plain ones are run in C by the thread of the queue, which needs no GIL for
them; others as the synchronous operations that they are."""

from __future__ import annotations

from copy import copy as copy_of
from typing import Any

import numpy as np

from fastps._core import GroupJob, Outcome, job_if_fits
from fastps.arrays.interchange import as_array, is_torch
from fastps.client.arrays import ArraySession
from fastps.client.future import Future
from fastps.client.grad_buffer import GradBuffer
from fastps.errors import DtypeError, WaitTimeoutError
from fastps.spec.tree import children_of, is_container


def pull_async(arrays: ArraySession, out: Any, names: Any, timeout: float | None) -> Future:
    """See `ParameterServer.pull_async`."""
    structure, wanted = (arrays.structure, None) if names is None else arrays.named(names, "pull_async")
    fresh = out is None and arrays.direct is not None
    target = structure.assemble(structure.empty()) if fresh else out
    job = _job(arrays, False, None, True, target, timeout, wanted is not None, wanted, False)
    if job is not None:
        return _submit(arrays, "pull_async", job, target, timeout)
    return arrays.session.calls.submit(
        "pull_async", lambda: arrays.pull(out, timeout, names)[0], arrays.session.limit(timeout)
    )


def push_async(
    arrays: ArraySession, grads: Any, pulled: Any, timeout: float | None, partial: bool, copy: bool
) -> Future:
    """See `ParameterServer.push_async`."""
    if isinstance(grads, GradBuffer):
        pulled = copied(pulled, []) if copy else pulled
        return grads.hand_over(lambda given: push_async(arrays, given, pulled, timeout, partial, False))
    job = _job(arrays, True, grads, False, None, timeout, partial, None, copy) if pulled is None else None
    if job is not None:
        return _submit(arrays, "push_async", job, None, timeout)
    sizes: list[int] = []
    grads, pulled = (copied(grads, sizes), copied(pulled, sizes)) if copy else (grads, pulled)

    def push() -> None:
        outcome = Outcome()
        try:
            arrays.push(grads, pulled, timeout, None, outcome, partial)
        except BaseException as error:
            outcome.tell(error)
            raise

    return arrays.session.calls.submit("push_async", push, arrays.session.limit(timeout), nbytes=sum(sizes))


def push_pull_async(
    arrays: ArraySession, grads: Any, pulled: Any, out: Any, timeout: float | None, partial: bool, copy: bool
) -> Future:
    """See `ParameterServer.push_pull_async`."""
    if isinstance(grads, GradBuffer):
        pulled = copied(pulled, []) if copy else pulled
        return grads.hand_over(lambda given: push_pull_async(arrays, given, pulled, out, timeout, partial, False))
    fresh = out is None and not partial and arrays.direct is not None
    target = arrays.structure.assemble(arrays.structure.empty()) if fresh else out
    plain = pulled is None and target is not None
    job = _job(arrays, True, grads, True, target, timeout, partial, None, copy) if plain else None
    if job is not None:
        return _submit(arrays, "push_pull_async", job, target, timeout)
    sizes: list[int] = []
    grads, pulled = (copied(grads, sizes), copied(pulled, sizes)) if copy else (grads, pulled)

    def push_pull() -> Any:
        outcome = Outcome()
        try:
            return arrays.push_pull(grads, pulled, out, timeout, None, outcome, partial)[0]
        except BaseException as error:
            outcome.tell(error)
            raise

    return arrays.session.calls.submit("push_pull_async", push_pull, arrays.session.limit(timeout), nbytes=sum(sizes))


def _job(
    arrays: ArraySession, pushes: bool, grads: Any, pulls: bool, target: Any, timeout: float | None, partial: bool,
    wanted: tuple[int, ...] | None, copy: bool,
) -> GroupJob | None:  # fmt: skip
    direct = arrays.direct
    if direct is None:
        return None
    return job_if_fits(direct, pushes, grads, pulls, target, timeout, partial, wanted, copy)


def _submit(arrays: ArraySession, verb: str, job: GroupJob, target: Any, timeout: float | None) -> Future:
    session, pushes = arrays.session, verb != "pull_async"

    def end() -> Any:
        """After it has run."""
        outcome = Outcome()
        try:
            job.finish(outcome)
        except WaitTimeoutError as error:
            late = session.late(error, pushes)
            outcome.tell(late)
            raise late from None
        except BaseException as error:
            if pushes:
                outcome.tell(error)
            raise
        return target

    return session.calls.submit(verb, end, session.limit(timeout), job, job.nbytes)


def copied(value: Any, sizes: list[int]) -> Any:
    """The same with copies of its arrays, whose bytes are added to `sizes`; what has still to come, such as references
    and futures, as it is."""
    if value is None or isinstance(value, (int, float, complex, str, bytes, np.generic)):
        return value
    if type(value) in (list, tuple):
        return [copied(item, sizes) for item in value]
    if is_container(value):
        return {name: copied(child, sizes) for name, child in children_of(value, (), "push")}
    if callable(getattr(value, "result", None)):
        return value
    try:
        array = np.array(as_array(value, "push"))
    except DtypeError:
        return value  # the operation says what is wrong with it
    sizes.append(array.nbytes)
    return array


def copied_keys(keys: Any, sizes: list[int]) -> Any:
    """The same of the keys of rows, which may be of more kinds. Arrow arrays and tuples do not change."""
    if isinstance(keys, (np.ndarray, list, set)):
        sizes.append(getattr(keys, "nbytes", 8 * len(keys)))
        return copy_of(keys)
    return keys.clone() if is_torch(keys) else keys
