"""Operations under way: `Future`, and the thread of a process that runs a server's asynchronous operations in order."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from typing import TYPE_CHECKING, Any

from fastps.errors import WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Future:
    """The result of an operation that was started with `pull_async` or `push_async`. Awaitable."""

    def __init__(self, inner: concurrent.futures.Future[Any]) -> None:
        self._inner = inner

    def result(self, timeout: float | None = None) -> Any:
        """What the operation returned; raises what it raised, or WaitTimeoutError after `timeout` seconds."""
        concurrent.futures.wait([self._inner], timeout)
        if not self._inner.done():
            raise WaitTimeoutError(f"result: the operation did not end within {timeout:g} s; it goes on")
        return self._inner.result()

    def done(self) -> bool:
        """Whether it has ended, with a result or an error."""
        return self._inner.done()

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.wrap_future(self._inner).__await__()


class Queue:
    """Runs calls one after the other on a thread of its own, started at first need. A fork starts with an empty one."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._executor: concurrent.futures.ThreadPoolExecutor | None = None
        self._pending: set[concurrent.futures.Future[Any]] = set()

    def submit(self, call: Callable[[], Any]) -> Future:
        if self._process != os.getpid():
            self._begin()  # the thread and what it does are the parent's
        with self._lock:
            if self._executor is None:
                self._executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="fastps")
            inner = self._executor.submit(call)
            self._pending.add(inner)
        inner.add_done_callback(self._pending.discard)
        return Future(inner)

    def flush(self, timeout: float) -> None:
        """Waits for all that was submitted; raises the first error among it, or WaitTimeoutError."""
        if self._process != os.getpid():
            return
        with self._lock:
            pending = list(self._pending)
        done, late = concurrent.futures.wait(pending, timeout)
        if late:
            raise WaitTimeoutError(f"flush: {len(late)} operations did not end within {timeout:g} s; they go on")
        for inner in pending:
            if inner in done and (error := inner.exception()) is not None:
                raise error

    def close(self) -> None:
        """Lets what was submitted end; the thread goes with it."""
        if self._process != os.getpid():
            return
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)
