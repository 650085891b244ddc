"""What workers do with tables. Here, and not in the tests, so that workers load no test library."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from fastps import FastPSError, WaitTimeoutError


def ask(ps, table, verb, args, named):
    """(None, what a method or property of a table's handle answers), or (the error that it raises, None)."""
    try:
        found = getattr(ps[table], verb)
        answer = found(*args, **named) if callable(found) else found
        return None, list(answer) if isinstance(answer, Iterator) else answer
    except FastPSError as error:
        return error, None


def pull_into(ps, table, keys, kind, verb="pull"):
    """Pulls or peeks into an output of a kind; whether that was the object answered, and what it holds."""
    handle, n = ps[table], len(keys)
    shape, dtype = (n, handle.dim), handle.dtype
    if kind == "fine":
        out = np.full(shape, np.nan, dtype)
    elif kind == "read-only":
        out = np.full(shape, np.nan, dtype)
        out.flags.writeable = False
    elif kind == "strided":
        out = np.full((*shape, 2), np.nan, dtype)[..., 0]
    elif kind == "dtype":
        out = np.full(shape, np.nan, np.int32)
    elif kind == "shape":
        out = np.full((n + 1, handle.dim), np.nan, dtype)
    elif kind == "list":
        out = [[0.0] * handle.dim] * n
    found = getattr(handle, verb)(keys, out=out)
    return found is out, out


def push_pull_in_place(ps, table, keys, grads):
    both = grads.copy()
    return ps[table].push_pull(keys, both, out=both) is both, both


def views(ps, table, keys, grads):
    """What views hold before and after a push, and whether they can be written."""
    seen = ps[table].view(keys)
    before = [view.copy() for view in seen]
    ps[table].push(keys, grads)
    return before, [view.copy() for view in seen], [view.flags.writeable for view in seen]


def push_from_threads(ps, table, keys, threads, times):
    """Threads of this process push ones and pull at once; the errors that they met."""
    errors = []
    handle = ps[table]
    ones = np.ones((len(keys), handle.dim), handle.dtype)

    def work():
        try:
            for _ in range(times):
                handle.push(keys, ones)
                rows = handle.pull(keys)
                assert (rows == rows[:, :1]).all(), "a torn row"
        except Exception as error:
            errors.append(repr(error))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return errors


def calls_of(ps, table, verb, *args):
    """Which Ray calls one use of a table makes."""
    import ray.actor

    calls, handle = [], ps[table]
    original = ray.actor.ActorHandle._actor_method_call

    def counted(self, method_name, *positional, **named):
        calls.append(method_name)
        return original(self, method_name, *positional, **named)

    ray.actor.ActorHandle._actor_method_call = counted
    try:
        getattr(handle, verb)(*args)
    finally:
        ray.actor.ActorHandle._actor_method_call = original
    return calls


def push_pull_twice_sent(ps, table, keys, grads):
    """A push_pull whose messages arrive a second time, as after a lost connection; what it answered, and how many came
    twice."""
    import ray.actor

    original = ray.actor.ActorHandle._actor_method_call
    repeated = []

    def twice(self, method_name, *positional, **named):
        if method_name == "serve":
            original(self, method_name, *positional, **named)
            repeated.append(method_name)
        return original(self, method_name, *positional, **named)

    ray.actor.ActorHandle._actor_method_call = twice
    try:
        return ps[table].push_pull(keys, grads), len(repeated)
    finally:
        ray.actor.ActorHandle._actor_method_call = original


def use_handle(handle, keys):
    """A table's handle that travelled by itself: pushes ones to it."""
    handle.push(keys, np.ones((len(keys), handle.dim), handle.dtype))
    return handle.pull(keys)


def push_and_keep_the_error(ps, table, keys, timeout):
    """Pushes ones; None, or the text and the shards of the WaitTimeoutError, which is kept."""
    handle = ps[table]
    try:
        handle.push(keys, np.ones((len(keys), handle.dim), handle.dtype), timeout=timeout)
    except WaitTimeoutError as error:
        ps.kept = error
        return str(error), error.applied, error.partial, error.pending
    return None


def resume_kept(ps, table, keys):
    handle = ps[table]
    handle.push(keys, np.ones((len(keys), handle.dim), handle.dtype), resume=ps.kept.resume)
