"""A full table whose rows make room, where the process that makes it is stopped, busy or dead."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

import fastps
from fastps._core import shards_of
from tests.support.waiting import GUARD_SECONDS, wait_until


def table_of(capacity=64, **options):
    return fastps.Table(1, rule=fastps.Add(), init=0.0, capacity=capacity, evict="lru", **options)


def ones(n):
    return np.ones((n, 1), np.float32)


def fill(table, key=0):
    """Until it is full: pushes of one more key each."""
    while all(shard.rows < shard.capacity for shard in table.stats()):
        table.push([key], ones(1))
        key += 1
    full = next(shard.shard for shard in table.stats() if shard.rows == shard.capacity)
    return full, key


@pytest.fixture(params=["shards here", "shards elsewhere", "both"])
def placement(request, cluster3):
    nodes = {"shards here": [0, 0], "shards elsewhere": [1, 1], "both": [0, 1]}[request.param]
    return [cluster3.ids[i] for i in nodes]


OPERATIONS = {
    "push": lambda t, keys, **options: t.push(keys, ones(len(keys)), **options),
    "pull": lambda t, keys, **options: t.pull(keys, **options),
    "set": lambda t, keys, **options: t.set(keys, ones(len(keys)), **options),
    "push_pull": lambda t, keys, **options: t.push_pull(keys, ones(len(keys)), **options),
}


def new_keys(table, shard, start, n):
    """Keys of one shard that have no row."""
    keys = np.arange(start, start + 1000)
    return keys[shards_of(keys.astype(np.uint64), len(table.stats())) == shard][:n]


class Stopped:
    """What came of each operation on new keys while the process that would make room was stopped, and after that."""

    def __init__(self, ps):
        table = ps.table
        self.shard, key = fill(table)
        self.pid = ps.attachment.spec.addresses[self.shard].pid
        keys = {verb: new_keys(table, self.shard, key + 100 * i, 3) for i, verb in enumerate(OPERATIONS)}
        self.errors, self.created, self.there, rows = {}, {}, {}, len(table)
        os.kill(self.pid, signal.SIGSTOP)
        try:
            for verb, operation in OPERATIONS.items():
                try:
                    operation(table, keys[verb], timeout=0.5)
                except fastps.WaitTimeoutError as error:
                    self.errors[verb] = error
                self.created[verb] = (len(table) - rows, table.contains(keys[verb]).any())
        finally:
            os.kill(self.pid, signal.SIGCONT)  # it evicts then what it was asked to evict
        for verb, error in self.errors.items():
            again = {"resume": error.resume} if verb == "push" else {}
            OPERATIONS[verb](table, keys[verb], timeout=GUARD_SECONDS, **again)
            self.there[verb] = table.contains(keys[verb]).all()


@pytest.fixture(scope="module")
def stopped(cluster3):
    with fastps.ParameterServer(table_of(), num_shards=2, placement=[cluster3.ids[0]] * 2) as ps:
        yield Stopped(ps)


@pytest.mark.parametrize("verb", OPERATIONS)
def test_a_stopped_process_that_would_make_room_is_named_by_a_wait_timeout_error(stopped, verb):
    error = stopped.errors[verb]
    assert "`table`" in str(error)
    assert f"shard {stopped.shard} of 2" in str(error)
    assert f"it is full, and its process {stopped.pid} (" in str(error)
    assert "state T" in str(error)
    assert stopped.shard not in error.applied
    assert stopped.created[verb] == (0, False)
    assert stopped.there[verb], "the operation was not done once the process went on"


def test_a_push_that_waited_for_room_in_vain_resumes_to_exactly_once(placement):
    with fastps.ParameterServer(table_of(), num_shards=2, placement=placement) as ps:
        shard, key = fill(ps.table)
        keys = np.concatenate([new_keys(ps.table, 0, key, 2), new_keys(ps.table, 1, key, 2)])
        pid = ps.attachment.spec.addresses[shard].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(fastps.WaitTimeoutError) as caught:
                ps.table.push(keys, ones(4), timeout=1.0)
            error = caught.value
            assert {*error.applied, *error.partial, *error.pending} == {0, 1}
            assert shard not in error.applied
        finally:
            os.kill(pid, signal.SIGCONT)
        ps.table.push(keys, ones(4), timeout=GUARD_SECONDS, resume=error.resume)
        assert ps.table.peek(keys).tolist() == ones(4).tolist()


def test_a_callback_that_is_not_done_in_time_makes_a_push_wait_and_not_fail_as_full(cluster3, tmp_path):
    go_on = tmp_path / "go on"

    def waits(keys, rows, slots):
        deadline = time.monotonic() + GUARD_SECONDS
        while not go_on.exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    with fastps.ParameterServer(table_of(on_evict=waits), placement=[cluster3.ids[0]]) as ps:
        _, key = fill(ps.table)
        with pytest.raises(
            fastps.WaitTimeoutError, match=rf"process {ps.attachment.spec.addresses[0].pid} .*has made no room"
        ):
            ps.table.push([key], ones(1), timeout=0.3)
        go_on.touch()
        ps.table.push([key], ones(1), timeout=GUARD_SECONDS)
        assert ps.table.peek([key]).tolist() == [[1]]


def test_a_callback_of_expired_rows_keeps_no_push_beyond_its_deadline(cluster3, tmp_path):
    go_on, begun = tmp_path / "go on", tmp_path / "begun"

    def waits(keys, rows, slots):
        begun.touch()
        deadline = time.monotonic() + GUARD_SECONDS
        while not go_on.exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    table = table_of(capacity=8, ttl=0.5, on_evict=waits)
    with fastps.ParameterServer(table, placement=[cluster3.ids[0]]) as ps:
        ps.table.push([0], ones(1))
        wait_until(begun.exists, 30, "a row expires")  # and the shard's process is busy with it
        ps.table.push(np.arange(1, 9), ones(8))
        with pytest.raises(fastps.WaitTimeoutError, match="has made no room in time"):
            ps.table.push([9], ones(1), timeout=0.3)
        assert ps.table.stats(timeout=GUARD_SECONDS)[0].rows == 8
        go_on.touch()
        ps.table.push([9], ones(1), timeout=GUARD_SECONDS)


def test_a_dead_process_that_would_make_room_is_a_shard_died_error(placement):
    with fastps.ParameterServer(table_of(), num_shards=2, placement=placement) as ps:
        shard, key = fill(ps.table)
        keys = new_keys(ps.table, shard, key, 3)
        os.kill(ps.attachment.spec.addresses[shard].pid, signal.SIGKILL)
        with pytest.raises(fastps.ShardDiedError):
            ps.table.push(keys, ones(3), timeout=GUARD_SECONDS)
