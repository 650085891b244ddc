"""Asynchronous operations: `Future`, and the thread that runs those of one server in this process in order."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import math
import os
import threading
from typing import TYPE_CHECKING, Any

from fastps._core import Job, Queue, life_generation
from fastps.deadline import deadline_after, left_until, seconds
from fastps.errors import ClosedError, FastPSError, QueueFullError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

KEPT = 8  # errors that were not retrieved; each keeps its gradients in memory
NAMED = 4  # operations that a message names
MOST = 1024  # operations that have not ended; each may keep a copy of its gradients,
MOST_BYTES = 1 << 30  # of which one may be larger
IDLE_SECONDS = 5.0  # after which the thread of a queue ends


class Future(concurrent.futures.Future[Any]):
    """An operation that `pull_async`, `push_async` or `push_pull_async` has started.

    A `concurrent.futures.Future`, so that ``concurrent.futures.wait`` and ``as_completed`` take it, and awaitable:
    `asyncio.gather`, `wait`, `wait_for`, `shield` and `ensure_future` take it, too. `asyncio.create_task` takes only
    coroutines; use ``asyncio.ensure_future(future)`` instead.

    `cancel`, and so a timeout of ``asyncio.wait_for``, prevents an operation that has not begun: it is not applied, and
    `cancelled` is True. One that is under way continues: its push is applied, and `cancelled` is False.

    Attributes
    ----------
    what : str
        How messages name the operation: "push number 3".
    number : int
        Of the operation, among those of this process on this server.
    job : Job or None
        What the queue has of it, until it ends.
    """

    def __init__(self, verb: str, number: int, told: Callable[[Future], None], job: Job) -> None:
        super().__init__()
        self.what, self.number, self._told, self._process = f"{verb} number {number}", number, told, os.getpid()
        self.job: Job | None = job
        self._in_loops: set[Any] = set()  # callbacks for event loops to call

    def result(self, timeout: float | None = None) -> Any:
        """What the operation returned.

        Raises what the operation raised, WaitTimeoutError after `timeout` seconds, or, if it was cancelled,
        concurrent.futures.CancelledError. Without `timeout` it waits until the operation ends, which is bounded by the
        operation's own timeout, counted from its start.
        """
        self._wait(timeout, "result")
        try:
            return super().result()
        finally:
            del self  # the exception refers to this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the operation raised, or None; otherwise as `result`."""
        self._wait(timeout, "exception")
        return super().exception()

    def ended(self, timeout: float) -> bool:
        """Waits this many seconds for its end, whatever that is; its error stays one that nobody has retrieved."""
        return self.done() or not concurrent.futures.wait([self], min(timeout, threading.TIMEOUT_MAX))[1]

    def _wait(self, timeout: float | None, verb: str) -> None:
        if not self.done():
            if self._process != os.getpid():
                raise ClosedError(
                    f"{verb} of {self.what}: it is under way in process {self._process}, of which this one is a fork; "
                    f"start operations here"
                )
            limit = seconds(timeout)
            _, late = concurrent.futures.wait([self], None if limit is None else min(limit, threading.TIMEOUT_MAX))
            if late:
                raise WaitTimeoutError(f"{verb} of {self.what}: it did not end within {limit:g} s; it continues")
        self._told(self)

    def cancel(self) -> bool:
        """Prevents the operation if it has not begun. Returns whether it was cancelled."""
        job = self.job
        return (job is None or job.cancel() or job.cancelled) and super().cancel()

    def running(self) -> bool:
        """Whether the operation has begun and not ended."""
        job = self.job
        return super().running() or (job is not None and job.begun and not self.done())

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from asyncio.wrap_future(self).__await__())
        except asyncio.CancelledError as error:
            error.add_note(self._fate())  # `wait_for` makes it the cause of its TimeoutError
            raise

    def _fate(self) -> str:
        if self.cancelled():
            return f"{self.what} was cancelled before it began: nothing was done"
        if self.done():
            return f"{self.what} has ended all the same"
        return f"{self.what} is under way and continues: flush() waits for it"

    def add_done_callback(self, fn: Callable[[Any], object], *, context: Any = None) -> None:
        """Calls ``fn(future)`` when the operation has ended: from an event loop, in that loop, as asyncio expects it;
        otherwise as `concurrent.futures` does."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            super().add_done_callback(fn)
            return

        def call() -> None:
            if self.remove_done_callback(fn):
                fn(self)

        def pass_on(_: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(call, context=context)

        self._in_loops.add(fn)
        super().add_done_callback(pass_on)

    def remove_done_callback(self, fn: Callable[[Any], object]) -> int:
        """Removes a callback that an event loop would call. Returns how many there were."""
        found = fn in self._in_loops
        self._in_loops.discard(fn)
        return int(found)

    def __reduce__(self) -> Any:
        raise TypeError("a Future cannot be pickled: send the server, or what result() returns")

    def __repr__(self) -> str:
        state = (
            "cancelled" if self.cancelled() else "ended" if self.done() else "running" if self.running() else "queued"
        )
        # asyncio.create_task shows this when it refuses what is no coroutine.
        return f"<fastps.Future of {self.what}, {state}: await it, or pass it to asyncio.ensure_future()>"


class Calls:
    """Runs operations one after the other on a thread of its own, started when first needed. Empty after a fork."""

    def __init__(self) -> None:
        self._of_process: dict[int, CallsOfProcess] = {}

    def _calls(self) -> CallsOfProcess:
        """Those of this process: after a fork, the thread and its calls belong to the parent. Without a lock, which
        another thread of the parent might have held: threads agree on one by `setdefault`."""
        generation = life_generation()
        calls = self._of_process.get(generation)
        return self._of_process.setdefault(generation, CallsOfProcess()) if calls is None else calls

    def submit(
        self, verb: str, call: Callable[[], Any], timeout: float = math.inf, job: Job | None = None, nbytes: int = 0
    ) -> Future:
        """`job`: what the thread does in C, without the GIL, before it calls `call`; `nbytes` of copies are kept until
        it has ended. Raises QueueFullError when there is no room for it after `timeout` seconds."""
        return self._calls().submit(verb, call, timeout, job, nbytes)

    def flush(self, timeout: float) -> None:
        """Waits for every operation that was submitted and not cancelled.

        Raises the first error that was not retrieved, with notes on the others; WaitTimeoutError, with notes on all of
        them, when operations are still under way.
        """
        self._calls().flush(timeout)

    def close(self) -> None:
        """Ends the thread, once the submitted operations have ended. What is submitted later runs after them."""
        self._calls().close()


class CallsOfProcess:
    """The calls of one process. A signal handler may raise anywhere in `submit`, and may submit, too: what was not
    submitted is never run, and nothing else is changed by it. Hence the locks and queues that are single calls of C,
    which an executor's are not.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._turn = threading.Lock()  # held by the thread that runs calls, of which there is one at most
        self._submitted = 0
        self._waiting = Queue()  # jobs without a call are not run, those without a future end the thread
        self._pending: dict[Future, int] = {}  # with the bytes that each keeps
        self._bytes = 0
        self._runner: int | None = None  # the thread that runs calls,
        self._submitter: int | None = None  # and the one that holds the lock to submit
        # Errors that were not retrieved: the first few, and the numbers of further operations.
        self._failed: dict[Future, BaseException] = {}
        self._more_failed = set[int]()

    def submit(self, verb: str, call: Callable[[], Any], timeout: float, job: Job | None, nbytes: int) -> Future:
        job = Job() if job is None else job
        # The queue's thread, or a signal handler in the middle of this, would wait for itself.
        if self._is_full(nbytes) and threading.get_ident() not in (self._runner, self._submitter):
            self._wait_for_room(verb, nbytes, timeout)
        with self._lock:
            self._submitted += 1
            future = Future(verb, self._submitted, self._told, job)
            job.future, job.call = future, call
            try:
                self._submitter = threading.get_ident()
                self._pending[future] = nbytes
                self._bytes += nbytes
                self._waiting.put(job)
                if not self._turn.locked():
                    atexit.register(self._finish)
                    threading.Thread(target=self._run, name="fastps", daemon=True).start()
            except BaseException as error:
                if job.cancel() or job.cancelled:
                    job.call = None
                    self._forget(future)
                else:
                    error.add_note(f"{future.what} was started, and continues")
                raise
            finally:
                self._submitter = None
        return future

    def _is_full(self, nbytes: int) -> bool:
        return len(self._pending) >= MOST or (self._bytes > 0 and self._bytes + nbytes > MOST_BYTES)

    def _wait_for_room(self, verb: str, nbytes: int, timeout: float) -> None:
        deadline = deadline_after(timeout)
        while self._is_full(nbytes):
            with self._lock:
                oldest = next(iter(self._pending), None)
            _, late = concurrent.futures.wait([oldest] if oldest else [], min(left_until(deadline), 1.0))
            if late and left_until(deadline) == 0:
                raise QueueFullError(
                    f"{verb}: {len(self._pending):,} operations are under way, with {self._bytes:,} bytes of copies, "
                    f"and none ended within {timeout:g} s; nothing was started; wait for their futures, or call flush()"
                )

    def _run(self) -> None:
        if self._turn.acquire(blocking=False):  # else another thread runs what waits
            self._runner = threading.get_ident()
            while self._run_next():
                pass

    def _run_next(self) -> bool:
        """False when there was nothing to do for a while, or after `close`: the thread ends."""
        jobs = self._waiting.take(IDLE_SECONDS)
        if jobs and all(self._end(job) for job in jobs):
            return True
        with self._lock:
            if not self._waiting.is_empty:
                return True
            atexit.unregister(self._finish)
            self._runner = None
            self._turn.release()
            return False

    def _end(self, job: Job) -> bool:
        """Does what is left to do of a job. False if it closes the queue."""
        with self._lock:  # `submit` has ended
            future, call = job.future, job.call
            job.future = job.call = None
        if call is None:  # it was not submitted, or closes
            return future is not None
        if job.cancelled:  # perhaps by a `cancel` that has come no further
            concurrent.futures.Future.cancel(future)
        begins = future.set_running_or_notify_cancel()
        future.job = None
        # `_ended` comes before the future's result: whoever waits for the future finds the lists up to date.
        if not begins:
            self._ended(future, None)
            return True
        with contextlib.suppress(BaseException):  # of callbacks
            try:
                result = call()
            except BaseException as error:
                self._ended(future, error)
                future.set_exception(error)
                del future, call  # the error refers to this frame: it would keep both alive
            else:
                self._ended(future, None)
                future.set_result(result)
        return True

    def _finish(self) -> None:
        """At the end of the program: waits for what was submitted."""
        if self._process == os.getpid():
            concurrent.futures.wait(list(self._pending))

    def _forget(self, future: Future) -> None:
        self._bytes -= self._pending.pop(future, 0)

    def _ended(self, future: Future, error: BaseException | None) -> None:
        with self._lock:
            self._forget(future)
            if error is not None and len(self._failed) < KEPT:
                self._failed[future] = error
            elif error is not None:
                self._more_failed.add(future.number)

    def _told(self, future: Future) -> None:
        self._failed.pop(future, None)
        self._more_failed.discard(future.number)

    def flush(self, timeout: float) -> None:
        """As `Calls.flush`."""
        with self._lock:
            pending = list(self._pending)
        _, late = concurrent.futures.wait(pending, min(timeout, threading.TIMEOUT_MAX))
        with self._lock:
            failed, self._failed = list(self._failed.items()), {}
            more, self._more_failed = len(self._more_failed), set()
        if late:
            names = [future.what for future in pending if future in late]
            listed = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
            error: BaseException = WaitTimeoutError(f"flush: {listed} did not end within {timeout:g} s; they continue")
        elif failed:
            (future, error), *failed = failed
            error.add_note(f"flush: raised by {future.what}")
        elif more:
            raise FastPSError(f"flush: {more} operations failed, whose errors were not kept; ask their futures")
        else:
            return
        for future, other in failed:
            error.add_note(f"flush: {future.what} failed, too: {type(other).__name__}: {other}")
        if more:
            error.add_note(f"flush: {more} more failed")
        raise error

    def close(self) -> None:
        """As `Calls.close`."""
        self._waiting.put(Job())
