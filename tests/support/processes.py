"""What runs in processes that Ray does not know: children of multiprocessing and loky, programs that read a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np

from tests.support.waiting import GUARD_SECONDS


def run(program: str, *arguments: str, environment: dict[str, str] | None = None) -> list[str]:
    """The lines that a program prints. One that hangs ends with all the processes that it has started."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, env=environment,
    )  # fmt: skip
    try:
        out, errors = process.communicate(timeout=GUARD_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, errors = process.communicate()
        raise AssertionError(f"not within {GUARD_SECONDS} s; it printed {out!r} and {errors!r}") from None
    assert process.returncode == 0, errors
    return out.splitlines()


def use(ps):
    """Everything that needs no Ray on the shards' node, once; what the parameters are afterwards."""
    import ray

    initialized = ray.is_initialized()
    params = {"w": np.ones(6), "b": np.ones((2, 2))}
    ps.push(params)
    pulled = ps.push_pull(params)
    assert pulled["w"].min() >= 2
    with ps.view() as view:
        assert sum(piece.array.sum() for piece in view.pieces) >= 20
    rows = ps["rows"]
    rows.push(np.array([1, 2]), np.ones((2, 3), np.float32))
    assert rows.pull(np.array([1])).shape == (1, 3)
    assert len(ps.versions) == ps.num_shards
    assert ps.stats().total["pushes"] >= 2
    assert ps.push_async(params).result(GUARD_SECONDS) is None
    assert ray.is_initialized() == initialized, "an operation started Ray"
    return os.getpid(), ps.pull()["w"].tolist()


def step(ps):
    """A worker's session."""
    with ps.worker() as w:
        before = w.clock
        w.push(np.ones_like(w.pull()))
        return w.clock - before


def same(ps):
    """A handle as a result."""
    return ps


def take_and_answer(inbox, outbox):
    outbox.put(use(inbox.get(timeout=GUARD_SECONDS)))


def errors_of(ps):
    """What each operation raises, by its class; all of the last text; whether Ray was started."""
    import ray

    before = ray.is_initialized()
    operations = {
        "pull": ps.pull, "push": lambda: ps.push(np.ones(6)), "push_pull": lambda: ps.push_pull(np.ones(6)),
        "stats": ps.stats, "worker": ps.worker, "view": ps.view, "configure": lambda: ps.configure(lr=0.5),
        "versions": lambda: ps.versions, "hyper": lambda: ps.hyper, "slots": ps.slots,
    }  # fmt: skip
    classes, text = {}, ""
    for verb, operation in operations.items():
        try:
            operation()
            classes[verb] = ""
        except Exception as error:
            classes[verb], text = type(error).__name__, str(error)
    return classes, text, ray.is_initialized() != before


def put_errors(ps, outbox):
    outbox.put(errors_of(ps))


def start(address):
    """A driver of the tests' Ray."""
    import ray

    ray.init(address=address, log_to_driver=False)
    return ray
