"""The queue of asynchronous operations: interrupted, closed, idle, forked, and at the end of a program."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from fastps.client import future as future_module
from fastps.client.future import Calls
from tests.support.run import SEED

LONG = 30.0  # a guard against hanging


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("where", ["before it starts", "when it has started"])
def test_a_submission_whose_start_of_a_thread_is_interrupted_leaves_the_others_in_their_places(
    queue, where, monkeypatch
):
    real, log = threading.Thread.start, []

    def start(thread):
        monkeypatch.undo()
        if where == "when it has started":
            real(thread)
        raise Interrupted

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(Interrupted):
        queue.submit("push_async", noted(log, "interrupted"))
    for number in range(3):
        assert queue.submit("push_async", lambda n=number: n).result(LONG) == number
    for number in range(10):
        queue.submit("push_async", noted(log, number))
    queue.flush(LONG)
    assert log == [entry for number in range(10) for entry in (("begins", number), ("ends", number))]


def noted(log, number, seconds=0.005):
    def call():
        log.append(("begins", number))
        time.sleep(seconds)
        log.append(("ends", number))

    return call


def test_signals_between_any_two_steps_of_a_submission_lose_no_later_one():
    class Alarm(BaseException):
        pass

    def interrupt(*_):
        raise Alarm

    before, dice = signal.signal(signal.SIGALRM, interrupt), random.Random(SEED)
    try:
        for _ in range(100):
            queue = Calls()
            for _ in range(10):
                try:
                    try:
                        signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-6, 3e-4))
                        for _ in range(50):
                            queue.submit("push_async", lambda: None)
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except Alarm:  # suppress() is code in which it could come, too
                    pass
                assert queue.submit("pull_async", lambda: 7).result(LONG) == 7
            queue.flush(LONG)
            queue.close()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_what_is_submitted_after_close_runs_after_what_was_submitted_before(queue):
    log = []
    for number in range(2):
        queue.submit("push_async", noted(log, number, 0.1))
    queue.close()
    queue.submit("pull_async", noted(log, 2))
    queue.flush(LONG)
    assert log == [entry for number in range(3) for entry in (("begins", number), ("ends", number))]


def test_threads_of_a_fork_that_submit_at_once_share_one_queue(queue, gate):
    """The queue is the parent's until one of them asks for its own."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            start, futures = threading.Barrier(8), []

            def submit():
                start.wait(LONG)
                futures.append(queue.submit("push_async", lambda: threading.get_ident()))

            threads = [threading.Thread(target=submit) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len({future.result(LONG) for future in futures}) == 1
            assert sorted(future.what for future in futures) == [f"push_async number {n}" for n in range(1, 9)]
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_thread_that_was_idle_ends_and_the_next_operation_starts_another(queue, monkeypatch):
    monkeypatch.setattr(future_module, "IDLE_SECONDS", 0.05)
    first = queue.submit("pull_async", threading.current_thread).result(LONG)
    first.join(LONG)
    assert not first.is_alive()
    second = queue.submit("pull_async", threading.current_thread).result(LONG)
    assert second is not first


def test_a_closed_queue_has_no_thread_once_its_operations_have_ended(queue, gate):
    thread = queue.submit("pull_async", threading.current_thread)
    queue.close()
    gate.set()
    thread.result(LONG).join(LONG)
    assert not thread.result().is_alive()


def test_a_callback_that_raises_ends_no_queue(queue):
    def exit(future):
        raise SystemExit

    event = threading.Event()
    queue.submit("push_async", lambda: event.wait(LONG)).add_done_callback(exit)
    event.set()
    assert queue.submit("pull_async", lambda: 1).result(LONG) == 1


def test_a_program_that_ends_waits_for_what_it_has_submitted():
    program = """
import time
from fastps.client.future import Calls
queue = Calls()
for number in range(3):
    queue.submit("push_async", lambda n=number: (time.sleep(0.1), print(n)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=LONG)
    assert done.stdout.split() == ["0", "1", "2"]
