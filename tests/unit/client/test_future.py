"""Futures and the queue that makes them, without a server."""

import asyncio
import concurrent.futures
import copy
import gc
import os
import pickle
import threading
import time
import weakref

import pytest

from fastps.client.future import KEPT
from fastps.errors import ClosedError, FastPSError, NonfiniteError, OptionError, ShapeError, WaitTimeoutError

LONG = 30.0  # a guard against hanging


def failing(error):
    def call():
        raise error

    return call


def test_a_future_is_one_of_concurrent_futures_with_its_results_errors_and_timeouts(queue, gate):
    good = queue.submit("pull_async", lambda: 3)
    bad = queue.submit("push_async", failing(ShapeError("no")))
    assert isinstance(good, concurrent.futures.Future)
    for ask in (good.result, good.exception):
        with pytest.raises(WaitTimeoutError, match=r"pull_async number 2.*within 0.01 s; it continues"):
            ask(timeout=0.01)
        with pytest.raises(OptionError, match="timeout"):
            ask(timeout="soon")
    gate.set()
    done, late = concurrent.futures.wait([good, bad], LONG)
    assert (done, late) == ({good, bad}, set())
    assert set(concurrent.futures.as_completed([good, bad, gate.future], LONG)) == {good, bad, gate.future}
    assert good.result(float("inf")) == 3
    assert good.exception() is None
    with pytest.raises(ShapeError, match="no"):
        bad.result()
    assert isinstance(bad.exception(), ShapeError)


def test_an_operation_that_was_cancelled_before_it_began_is_not_run_and_one_under_way_goes_on(queue, gate):
    ran = []
    waiting = queue.submit("push_async", lambda: ran.append("cancelled"))
    behind = queue.submit("push_async", lambda: ran.append("behind"))
    assert waiting.cancel()
    assert not gate.future.cancel()
    gate.set()
    queue.flush(LONG)  # skips what was cancelled
    assert ran == ["behind"]
    assert (waiting.cancelled(), gate.future.cancelled(), behind.cancelled()) == (True, False, False)
    assert gate.future.done()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result()


def test_flush_raises_the_first_error_and_tells_the_others(queue, gate):
    queue.submit("push_async", failing(ShapeError("the first")))
    queue.submit("push_async", lambda: 1).cancel()
    queue.submit("pull_async", failing(OptionError("the second")))
    queue.submit("push_async", lambda: 1)
    gate.set()
    with pytest.raises(ShapeError, match="the first") as caught:
        queue.flush(LONG)
    assert caught.value.__notes__ == [
        "flush: raised by push_async number 2",
        "flush: pull_async number 4 failed, too: OptionError: the second",
    ]
    queue.flush(LONG)  # they were told


def test_flush_raises_what_had_failed_before_it_was_called_unless_somebody_was_told(queue):
    for ask in (lambda f: f.exception(), result_of, lambda f: asyncio.run(awaited(f))):
        ask(queue.submit("push_async", failing(ShapeError("told"))))
        queue.flush(LONG)
    concurrent.futures.wait([queue.submit("push_async", failing(ShapeError("not told")))], LONG)
    with pytest.raises(ShapeError, match="not told"):
        queue.flush(LONG)
    queue.flush(LONG)


def result_of(future):
    with pytest.raises(ShapeError):
        future.result(LONG)


async def awaited(future):
    with pytest.raises(ShapeError):
        await future


def test_a_flush_that_is_too_late_names_what_goes_on_and_tells_what_failed(queue):
    queue.submit("push_async", failing(NonfiniteError("NaN")))
    event = threading.Event()
    for _ in range(6):
        queue.submit("push_async", lambda: event.wait(LONG))
    with pytest.raises(WaitTimeoutError) as caught:
        queue.flush(0.2)
    assert "push_async number 2, push_async number 3, push_async number 4, push_async number 5 and 2 more" in str(
        caught.value
    )
    assert "they continue" in str(caught.value)
    assert caught.value.__notes__ == ["flush: push_async number 1 failed, too: NonfiniteError: NaN"]
    event.set()
    queue.flush(LONG)


def test_errors_that_nobody_asks_for_are_kept_up_to_a_number_and_counted_beyond_it(queue):
    for number in range(KEPT + 3):
        last = queue.submit("push_async", failing(ShapeError(str(number))))
    concurrent.futures.wait([last], LONG)
    with pytest.raises(ShapeError) as caught:
        queue.flush(LONG)
    assert str(caught.value) == "0"
    assert len(caught.value.__notes__) == 1 + KEPT - 1 + 1
    assert caught.value.__notes__[-1] == "flush: 3 more failed"


def test_flush_raises_when_only_errors_are_left_that_were_not_kept(queue):
    futures = [queue.submit("push_async", failing(ShapeError(str(number)))) for number in range(KEPT + 2)]
    for future in futures[: KEPT + 1]:
        with pytest.raises(ShapeError):
            future.result(LONG)
    concurrent.futures.wait(futures, LONG)
    with pytest.raises(FastPSError, match="flush: 1 operations failed, whose errors were not kept"):
        queue.flush(LONG)
    queue.flush(LONG)


def test_a_flush_with_an_infinite_timeout_is_no_overflow(queue):
    queue.submit("push_async", lambda: time.sleep(0.05))
    queue.flush(float("inf"))


WAYS = {
    "await": lambda f: f,
    "gather": lambda f: asyncio.gather(f),
    "wait": lambda f: asyncio.wait({f}),
    "wait with a timeout": lambda f: asyncio.wait([f], timeout=LONG, return_when=asyncio.FIRST_EXCEPTION),
    "wait_for": lambda f: asyncio.wait_for(f, LONG),
    "shield": lambda f: asyncio.shield(f),
    "ensure_future": lambda f: asyncio.ensure_future(f),
    "wrap_future": lambda f: asyncio.wrap_future(f),
    "as_completed": lambda f: next(iter(asyncio.as_completed([f]))),
}


@pytest.mark.parametrize("ended", [False, True], ids=["while it is under way", "when it has ended"])
@pytest.mark.parametrize("way", WAYS)
def test_asyncio_takes_a_future(way, ended, queue):
    event = threading.Event()
    if ended:
        event.set()

    async def main():
        future = queue.submit("pull_async", lambda: event.wait(LONG) and "rows")
        if ended:
            concurrent.futures.wait([future])
        asyncio.get_running_loop().call_later(0.02, event.set)
        answer = await WAYS[way](future)
        return future, answer

    future, answer = asyncio.run(main())
    expected = {"gather": ["rows"], "wait": ({future}, set()), "wait with a timeout": ({future}, set())}
    assert answer == expected.get(way, "rows")


def test_asyncio_wait_that_is_too_late_answers_the_future_as_pending(queue, gate):
    async def main():
        return await asyncio.wait({gate.future}, timeout=0.02)

    assert asyncio.run(main()) == (set(), {gate.future})
    gate.set()  # its loop is closed
    assert gate.future.result(LONG) is None


def test_asyncio_create_task_takes_no_future_and_its_error_says_what_does(queue):
    async def main():
        future = queue.submit("push_async", lambda: 1)
        with pytest.raises(TypeError, match=r"push_async number 1.*asyncio.ensure_future\(\)"):
            asyncio.create_task(future)  # noqa: RUF006
        return await asyncio.ensure_future(future)

    assert asyncio.run(main()) == 1


def test_the_timeout_of_wait_for_says_of_each_operation_whether_it_counts(queue):
    event, ran = threading.Event(), []

    def push(number):
        event.wait(LONG)
        ran.append(number)

    async def main():
        begun = [queue.submit("push_async", lambda n=n: push(n)) for n in range(4)]
        errors = await asyncio.gather(*(asyncio.wait_for(f, 0.1) for f in begun), return_exceptions=True)
        event.set()
        return begun, errors

    begun, errors = asyncio.run(main())
    queue.flush(LONG)
    assert ran == [0]
    assert [future.cancelled() for future in begun] == [False, True, True, True]
    told = []
    for error in errors:
        assert isinstance(error, TimeoutError)
        told.append(error.__cause__.__notes__)
    assert told[0] == ["push_async number 1 is under way and continues: flush() waits for it"]
    assert told[1:] == [[f"push_async number {n} was cancelled before it began: nothing was done"] for n in (2, 3, 4)]


def test_a_shielded_operation_is_not_cancelled(queue, gate):
    ran = []
    future = queue.submit("push_async", lambda: ran.append(1))

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(future), 0.02)
        gate.set()
        await asyncio.to_thread(queue.flush, LONG)

    asyncio.run(main())
    assert ran == [1]


def test_callbacks_are_called_in_the_event_loop_that_added_them_and_elsewhere_at_once(queue, gate):
    called = {}

    async def main():
        loop, event = threading.get_ident(), asyncio.Event()

        def here(future):
            called["here"] = threading.get_ident() == loop
            event.set()

        def not_any_more(future):
            called["removed"] = True

        gate.future.add_done_callback(here)
        gate.future.add_done_callback(not_any_more)
        assert gate.future.remove_done_callback(not_any_more) == 1
        assert gate.future.remove_done_callback(not_any_more) == 0
        gate.set()
        await asyncio.wait_for(event.wait(), LONG)

    gate.future.add_done_callback(lambda future: called.setdefault("elsewhere", threading.current_thread().name))
    asyncio.run(main())
    assert called == {"here": True, "elsewhere": called["elsewhere"]}
    assert called["elsewhere"].startswith("fastps")


def test_a_future_does_not_travel_and_says_so(queue):
    future = queue.submit("pull_async", lambda: 1)
    for travel in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            travel(future)


def test_what_repr_says(queue, gate):
    waiting = queue.submit("pull_async", lambda: 1)
    assert "push_async number 1, running" in repr(gate.future)
    assert "pull_async number 2, queued" in repr(waiting)
    waiting.cancel()
    assert "pull_async number 2, cancelled" in repr(waiting)
    gate.set()
    gate.future.result(LONG)
    assert "push_async number 1, ended" in repr(gate.future)


def test_a_fork_is_told_that_an_operation_is_its_parents(queue, gate):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with pytest.raises(ClosedError, match="fork"):
                gate.future.result()
            assert queue.submit("pull_async", lambda: 2).result(LONG) == 2
            queue.flush(LONG)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_an_operation_that_ended_keeps_nothing_alive(queue):
    class Gradients:
        pass

    def push(grads):
        raise ShapeError("no")

    gc.disable()
    try:
        grads = Gradients()
        alive = weakref.ref(grads)
        future = queue.submit("push_async", lambda grads=grads: push(grads))
        with pytest.raises(ShapeError):
            future.result(LONG)
        del future, grads
        queue.submit("pull_async", lambda: None).result(LONG)  # the thread has let go of the one before
        assert alive() is None
    finally:
        gc.enable()
