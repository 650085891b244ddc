"""The thread that expires rows, without a table."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pytest

from fastps.errors import ClosedError, FastPSError
from fastps.shard.eviction import Eviction
from fastps.spec.table import Life


class Failing:
    """A table whose clock raises each of these errors in turn."""

    info = SimpleNamespace(name="t", keys="int64", streams=[("row", 1)])

    def __init__(self, *errors):
        self.errors, self.asked, self.ended = list(errors), 0, threading.Event()

    def now(self, shard):
        self.asked += 1
        error = self.errors.pop(0)
        if not self.errors:
            self.ended.set()
        raise error


@pytest.mark.parametrize(
    "error", [MemoryError("for the keys"), FastPSError("a lock"), ValueError("anything")], ids=repr
)
def test_an_error_of_one_scan_is_logged_and_the_next_one_comes(caplog, error):
    table = Failing(error, error, ClosedError("closed"))
    with caplog.at_level(logging.ERROR, "fastps"):
        Eviction(table, 0, Life(ttl=0.01)).start()
        assert table.ended.wait(60)
    assert [str(record.exc_info[1]) for record in caplog.records] == [str(error)] * 2
    for thread in threading.enumerate():
        if thread.name == "fastps ttl":
            thread.join(60)
    assert table.asked == 3
