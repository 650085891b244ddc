"""Processes that are killed, stopped or forked while they work on a table, and a table that grows meanwhile.

Pushes are of ones to rows that begin with zeros: all elements of a row are equal, or it is torn; and a row's value is
how many pushes it got, which the ledger of the pushers tells.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

import fastps
from tests.support.extent import short_or_long
from tests.support.table_worker import Workers
from tests.support.waiting import GUARD_SECONDS, wait_until

pytestmark = pytest.mark.usefixtures("ray_local")

KILLS = short_or_long(12, 40)
ROWS = int(os.environ.get("FASTPS_TEST_ROWS") or short_or_long(60_000, 300_000))  # 10 million take 15 seconds
AWAY = 1 << 40  # keys that no pusher knows


def adding(dim):
    return fastps.Table(dim, rule=fastps.Add(), init=0.0, dtype="float64")


def rows_of(table):
    """Keys in order, and the value of each row, which is whole."""
    keys, values = [np.empty(0, np.int64)], [np.empty(0)]
    for some, rows in table.items():
        assert (rows == rows[:, :1]).all(), "a torn row"
        keys.append(some)
        values.append(rows[:, 0])
    keys, values = np.concatenate(keys), np.concatenate(values)
    order = np.argsort(keys)
    assert (np.diff(keys[order]) > 0).all(), "a key with two rows"
    return keys[order], values[order]


def counted(batches):
    """The keys of all batches, and how often each of them comes."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *batches]), return_counts=True)


def check_ledger(table, workers, mine):
    """Each row holds every push that came to its end and those of the test, `mine`; and of a push that a death stopped
    all or nothing. Answers how many gradients the dead have left, and how many pushes they did not finish."""
    keys, values = rows_of(table)
    jobs = [job for job, _ in workers.jobs if job.verb == "push"]
    done = counted([*mine, *(job.keys(i) for job in jobs for i in range(workers.finished(job)))])
    open_pushes = [job.keys(workers.begun(job) - 1) for job in jobs if workers.begun(job) > workers.finished(job)]
    maybe = counted(open_pushes)
    assert np.isin(done[0], keys).all(), "a row is missing"
    least, most = np.zeros(len(keys)), np.zeros(len(keys))
    least[np.searchsorted(keys, done[0])] = done[1]
    there = np.isin(maybe[0], keys)
    most[np.searchsorted(keys, maybe[0][there])] = maybe[1][there]
    assert (values >= least).all(), "a push was lost"
    assert (values <= least + most).all(), "a push was applied twice, or to a row that it was not for"
    return int((values - least).sum()), len(open_pushes)


def check_counters(table):
    stats = table.stats()
    n = sum(len(keys) for keys in table.keys())  # noqa: SIM118  # a method, not a dict
    assert sum(shard.rows for shard in stats) == len(table) == n
    return stats


def test_killed_pushers_tear_no_row_lose_no_push_and_block_nobody(tmp_path, rng):
    """Some push to rows that exist and create others, some create and evict rows all the time."""
    pushes = {"size": 2000, "fresh": 500, "space": 3000}
    churns = {"verb": "churn", "size": 300, "fresh": 300, "base": AWAY}
    with fastps.ParameterServer(adding(64), num_shards=2, max_sessions=6) as ps, Workers(ps, tmp_path) as workers:
        table, mine, ones = ps.table, [], np.ones((300, 64))
        for kill in range(KILLS):
            jobs = [workers.start(**(churns if (kill + i) % 4 == 3 else pushes)) for i in range(1 + kill % 2)]
            wait_until(lambda jobs=jobs: all(map(workers.begun, jobs)), 30, "work")
            time.sleep(rng.uniform(0.0, 0.005))
            for job in jobs:
                workers.kill(job)
            mine.append(rng.integers(0, 4000, 300))
            table.push(mine[-1], ones, timeout=GUARD_SECONDS)  # nobody waits for the dead
            found = table.pull(mine[-1], timeout=GUARD_SECONDS)
            assert (found == found[:, :1]).all(), "a torn row"
            assert (found >= 1).all()
            assert (table.pull(AWAY + rng.integers(0, 4000, 300), timeout=GUARD_SECONDS) == 0).all()
            wait_until(lambda jobs=jobs: not any(map(workers.lives, jobs)), 30, "the end of the killed")
        left, unfinished = check_ledger(table, workers, mine)
        recovered = ps.stats().total["recovered_locks"]
        print(f"\ndeaths stopped {unfinished} pushes, which left {left} gradients and {recovered} locks")
        pushers = [job for job, _ in workers.jobs if job.verb == "push"]
        begun, finished = sum(map(workers.begun, pushers)), sum(map(workers.finished, pushers))
        assert finished > 0
        for shard in check_counters(table):
            assert finished + KILLS <= shard.version <= begun + KILLS
            assert shard.created - shard.evicted >= 0
        assert all(shard.sessions <= 6 for shard in ps.stats().shards)
        mine.append(np.arange(20_000))
        table.push(mine[-1], np.ones((20_000, 64)), timeout=GUARD_SECONDS)
        table.evict(AWAY + np.arange(100_000), timeout=GUARD_SECONDS)
        assert check_ledger(table, workers, mine)[0] == left
        check_counters(table)


def stopped(workers, job, reaches_it):
    """Stops a process until it has what `reaches_it` waits for, and answers the WaitTimeoutError of that."""
    for _ in range(300):
        os.kill(workers.pid(job), signal.SIGSTOP)
        try:
            reaches_it()
        except fastps.WaitTimeoutError as error:
            return error
        os.kill(workers.pid(job), signal.SIGCONT)
        time.sleep(0.001)
    raise AssertionError("it was never stopped in the middle")


def test_a_process_that_is_stopped_while_it_writes_a_row_blocks_that_row_alone_and_pushes_resume(
    tmp_path,
):
    """Of a row of 512 KiB, at which it works most of the time."""
    dim = 65536
    with fastps.ParameterServer(adding(dim), max_sessions=4) as ps, Workers(ps, tmp_path) as workers:
        table, keys, ones = ps.table, [5, 0, 6], np.ones((3, dim))
        job = workers.start(size=1)  # key 0
        wait_until(lambda: workers.finished(job) > 0, 30, "a push")
        count = [0]

        def reaches_it():
            table.push(keys, ones, timeout=0.2)
            count[0] += 1

        error = stopped(workers, job, reaches_it)
        assert "`table`" in str(error)
        assert "shard 0 of 1" in str(error)
        assert (error.applied, error.partial, error.pending) == ((), (0,), ())
        assert isinstance(error, TimeoutError)
        mine = count[0]
        for blocked in (
            lambda: table.pull([0], timeout=0.1), lambda: table.set([0], ones[:1], timeout=0.1),
            lambda: table.evict([0], timeout=0.1), lambda: list(table._session.scan(10, [True], 0.1)),
        ):  # fmt: skip
            with pytest.raises(fastps.WaitTimeoutError):
                blocked()
        table.push([6, 7], ones[:2], timeout=GUARD_SECONDS)  # other rows go on, creations and evictions, too
        assert (table.pull([5, 6, 7], timeout=GUARD_SECONDS)[:, 0] == [mine + 1, mine + 1, 1]).all()
        assert table.evict([7], timeout=GUARD_SECONDS) == 1
        assert table.contains([0, 5, 6, 7]).tolist() == [True, True, True, False]
        with pytest.raises(fastps.WaitTimeoutError) as again:
            table.push(keys, ones, resume=error.resume, timeout=0.1)
        assert again.value.partial == (0,)
        workers.stop(job)
        os.kill(workers.pid(job), signal.SIGCONT)
        table.push(keys, ones, resume=again.value.resume, timeout=GUARD_SECONDS)
        wait_until(lambda: not workers.lives(job), 30, "the end of the pusher")
        found = table.pull([5, 0, 6])
        assert (found == found[:, :1]).all()
        assert found[:, 0].tolist() == [mine + 1, mine + 1 + workers.finished(job), mine + 2]
        for used in (error.resume, again.value.resume):
            with pytest.raises(fastps.OptionError, match="used before"):
                table.push(keys, ones, resume=used)
        assert np.array_equal(table.pull([5, 0, 6]), found)
        assert table.stats()[0].version == mine + 2 + workers.finished(job)


def test_a_process_that_is_stopped_while_it_creates_rows_blocks_creations_alone_and_pushes_resume(tmp_path):
    dim, size = 4096, 100
    with fastps.ParameterServer(adding(dim), max_sessions=4) as ps, Workers(ps, tmp_path) as workers:
        table, ones = ps.table, np.ones((3, dim))
        table.push([1, 2], ones[:2])
        job = workers.start(verb="churn", size=size, fresh=size, base=AWAY)
        wait_until(lambda: workers.finished(job) > 0, 30, "created rows")
        newborn = iter(range(1000, 2000))
        stopped(workers, job, lambda: table.pull([next(newborn)], timeout=0.2))
        table.push([1, 2, 1], ones, timeout=GUARD_SECONDS)  # rows that are there go on
        assert (table.pull([1, 2], timeout=GUARD_SECONDS)[:, 0] == [3, 2]).all()
        assert not table.peek([5000], timeout=GUARD_SECONDS).any()
        assert table.contains([1, 5000]).tolist() == [True, False]
        with pytest.raises(fastps.WaitTimeoutError) as caught:
            table.push([1, 5000, 1], ones, timeout=0.1)
        error = caught.value
        assert (error.applied, error.partial, error.pending) == ((), (), (0,))
        assert (table.pull([1], timeout=GUARD_SECONDS)[:, 0] == 3).all()
        with pytest.raises(fastps.WaitTimeoutError) as again:
            table.push([1, 5000, 1], ones, resume=error.resume, timeout=0.1)
        with pytest.raises(fastps.WaitTimeoutError):
            table.evict([2], timeout=0.1)
        workers.stop(job)
        os.kill(workers.pid(job), signal.SIGCONT)
        table.push([1, 5000, 1], ones, resume=again.value.resume, timeout=GUARD_SECONDS)
        wait_until(lambda: not workers.lives(job), 30, "the end of the other")
        found = table.pull([1, 2, 5000])
        assert (found == found[:, :1]).all()
        assert found[:, 0].tolist() == [5, 2, 1]
        assert table.stats()[0].version == 3
        check_counters(table)


def test_ctrl_c_ends_what_waits_for_a_process_that_is_stopped_and_nothing_is_changed(tmp_path):
    dim = 4096
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with fastps.ParameterServer(adding(dim), max_sessions=4) as ps, Workers(ps, tmp_path) as workers:
            table, ones, newborn = ps.table, np.ones((2, dim)), iter(range(1000, 2000))
            table.push([1], ones[:1])
            job = workers.start(verb="churn", size=100, fresh=100, base=AWAY)
            wait_until(lambda: workers.finished(job) > 0, 30, "created rows")
            stopped(workers, job, lambda: table.pull([next(newborn)], timeout=0.2))
            for waiting in (
                lambda: table.push([1, 5000], ones, timeout=GUARD_SECONDS),
                lambda: table.pull([5000], timeout=GUARD_SECONDS),
                lambda: table.push_pull([1, 5000], ones, timeout=GUARD_SECONDS),
                lambda: table.set([1, 5000], ones, timeout=GUARD_SECONDS),
            ):  # fmt: skip
                timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
                timer.start()
                with pytest.raises(KeyboardInterrupt):
                    waiting()
                timer.join()
            workers.stop(job)
            os.kill(workers.pid(job), signal.SIGCONT)
            assert table.contains([1, 5000]).tolist() == [True, False]
            assert (table.push_pull([1, 5000], ones)[:, 0] == [2, 1]).all()
            assert table.stats()[0].version == 2
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_table_whose_sessions_are_all_taken_raises_and_a_session_of_an_ended_process_can_be_taken(tmp_path):
    with fastps.ParameterServer(adding(3), max_sessions=1) as ps, Workers(ps, tmp_path) as workers:
        table, ones = ps.table, np.ones((1, 3))
        job = workers.start()
        wait_until(lambda: workers.finished(job) > 0, 30, "a push")
        for refused in (lambda: table.push([5], ones), lambda: table.pull([5]), lambda: table.evict([0])):
            with pytest.raises(fastps.SessionsExhaustedError, match="max_sessions"):
                refused()
        workers.stop(job)
        wait_until(lambda: not workers.lives(job), 30, "the end of the pusher")
        table.push([5], ones)
        assert table.pull([0, 5])[:, 0].tolist() == [workers.finished(job), 1]


@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_a_process_that_is_stopped_while_it_writes_a_row_stops_no_eviction(tmp_path, policy):
    dim = 65536
    table = fastps.Table(dim, rule=fastps.Add(), init=0.0, dtype="float64", capacity=16, evict=policy)
    with fastps.ParameterServer(table, max_sessions=5, timeout=GUARD_SECONDS) as ps, Workers(ps, tmp_path) as workers:
        table = ps.table
        table.pull(np.arange(16))
        job = workers.start(size=1)
        wait_until(lambda: workers.finished(job) > 0, 30, "a push")
        stopped(workers, job, lambda: table.push([0], np.ones((1, dim)), timeout=0.2))
        for _ in range(3):
            table.pull(np.arange(1, 16))  # the row of key 0 would be the first to go
        for key in range(100, 105):
            assert (table.pull([key]) == 0).all()
        assert len(table) <= 16
        assert 0 in table
        workers.stop(job)
        os.kill(workers.pid(job), signal.SIGCONT)


def test_a_push_resumes_with_the_keys_and_gradients_that_it_had_or_not_at_all(tmp_path):
    dim = 4096
    with fastps.ParameterServer(adding(dim), max_sessions=4) as ps, Workers(ps, tmp_path) as workers:
        table, ones = ps.table, np.ones((5, dim))
        job = workers.start(verb="churn", size=100, fresh=100, base=AWAY)
        wait_until(lambda: workers.finished(job) > 0, 30, "created rows")
        new = iter(range(0, 10_000, 10))
        error = stopped(workers, job, lambda: table.push(next(new) + np.arange(3), ones[:3], timeout=0.2))
        first, version = next(new) - 10, table.stats()[0].version
        workers.stop(job)
        os.kill(workers.pid(job), signal.SIGCONT)
        # The memory behind the first rows of `ones` is there to be read, whatever is refused.
        for keys, grads in [([0], ones[:1]), ([0, 1, 2, 3], ones[:4]), ([4, 5, 6], ones[:3])]:
            with pytest.raises((fastps.OptionError, fastps.ParameterError)):
                table.push(first + np.array(keys), grads, resume=error.resume, timeout=GUARD_SECONDS)
        assert table.stats()[0].version == version
        assert not table.peek(first + np.arange(7)).any()
        # Nobody has used it up: what it is of goes on.
        table.push(first + np.arange(3), ones[:3], resume=error.resume, timeout=GUARD_SECONDS)
        assert table.peek(first + np.arange(7)).sum(axis=1).tolist() == [dim] * 3 + [0] * 4


def test_a_set_that_timed_out_is_set_again_and_no_push_goes_on_from_it(tmp_path):
    dim = 65536
    with fastps.ParameterServer(adding(dim), max_sessions=4) as ps, Workers(ps, tmp_path) as workers:
        table, rows, keys = ps.table, np.full((3, dim), 5.0), [5, 0, 6]
        job = workers.start(size=1)
        wait_until(lambda: workers.finished(job) > 0, 30, "a push")
        error = stopped(workers, job, lambda: table.set(keys, rows, timeout=0.1))
        workers.stop(job)
        os.kill(workers.pid(job), signal.SIGCONT)
        wait_until(lambda: not workers.lives(job), 30, "the end of the pusher")
        if error.resume is not None:
            with pytest.raises(fastps.OptionError):
                table.push(keys, rows, resume=error.resume)
        table.set(keys, rows)
        assert (table.pull(keys) == 5).all()
        assert table.stats()[0].version == workers.finished(job)


def test_a_process_that_is_killed_while_it_is_stopped_is_waited_for_no_longer(tmp_path):
    dim = 65536
    with fastps.ParameterServer(adding(dim), max_sessions=4) as ps, Workers(ps, tmp_path) as workers:
        table, ones = ps.table, np.ones((1, dim))
        job, count = workers.start(size=1), [0]
        wait_until(lambda: workers.finished(job) > 0, 30, "a push")

        def reaches_it():
            table.push([0], ones, timeout=0.1)
            count[0] += 1

        error = stopped(workers, job, reaches_it)
        workers.kill(job)
        table.push([0], ones, resume=error.resume, timeout=GUARD_SECONDS)
        found = table.pull([0], timeout=GUARD_SECONDS)
        assert (found == found[0, 0]).all(), "a torn row"
        mine = count[0] + 1
        assert mine + workers.finished(job) <= found[0, 0] <= mine + workers.begun(job)
        assert ps.stats().shards[0].recovered_locks > 0


def test_a_forked_child_uses_the_table_and_its_end_disturbs_nobody():
    with fastps.ParameterServer({"t": adding(3), "w": np.zeros(2)}, num_shards=2) as ps:
        table, ones = ps["t"], np.ones((200, 3))
        table.push(np.arange(200), ones)
        for count in (2, 3):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    table.push(np.arange(100, 300), ones)
                    found = table.pull(np.arange(100, 200))
                    code = 0 if (found == count).all() and len(table) == 300 else 2
                    table.evict([0])
                    table.pull([0, count * 1000])
                    ps.close()  # lets go in the child only
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert (table.pull(np.arange(100, 200)) == count).all()
            table.evict([count * 1000])
        table.push(np.arange(200), ones)
        assert table.pull([0, 50, 150, 250])[:, 0].tolist() == [1, 2, 4, 2]
        assert len(table) == 300
        assert {shard.version for shard in table.stats()} == {4}
        assert ps.stats().total["recovered_locks"] == 0


def test_rows_that_are_evicted_while_others_push_take_every_push_with_them(tmp_path, rng):
    with fastps.ParameterServer(adding(8), num_shards=2) as ps, Workers(ps, tmp_path) as workers:
        session, total, times = ps.table.attachment.rows(0), 0.0, short_or_long(400, 1500)
        jobs = [workers.start(size=200, space=500, times=times, seed=seed) for seed in range(2)]
        while any(map(workers.lives, jobs)):
            keys = rng.integers(0, 500, 50).astype(np.uint64)
            removed, (rows,) = session.remove(keys, [True], 20)
            assert (rows[removed] == rows[removed, :1]).all(), "a torn row"
            total += rows[removed, 0].sum()
        assert all(workers.finished(job) == times for job in jobs)
        assert total > 0
        assert total + rows_of(ps.table)[1].sum() == 2 * 200 * times
        check_counters(ps.table)


def test_a_table_that_grows_while_two_push_and_one_reads_loses_nothing(tmp_path, rng):
    size, fresh, space = 2000, 1000, 1000
    times = (ROWS - space) // fresh
    with fastps.ParameterServer(adding(4), num_shards=2) as ps, Workers(ps, tmp_path) as workers:
        table = ps.table
        table.pull(np.arange(space))
        assert len(table) == space
        jobs = [workers.start(size=size, fresh=fresh, space=space, times=times, seed=seed) for seed in range(2)]
        before = 0
        while any(map(workers.lives, jobs)):
            keys = rng.integers(0, ROWS, 2000)
            found = table.peek(keys)
            assert (found == found[:, :1]).all(), "a torn row"
            assert (found >= 0).all()
            assert (found[keys >= space] <= 2).all()
            n = len(table)
            assert n >= before, "rows were lost"
            before = n
        assert [workers.finished(job) for job in jobs] == [times, times]
        keys, values = rows_of(table)
        assert np.array_equal(keys, np.arange(space + times * fresh))
        expected = np.full(len(keys), 2)
        old = np.concatenate([job.keys(i)[: size - fresh] for job in jobs for i in range(times)])
        expected[:space] = np.bincount(old, minlength=space)
        assert np.array_equal(values, expected)
        assert values.sum() == 2 * size * times
        for shard in check_counters(table):
            assert shard.rebuilt > 3
            assert shard.version == 2 * times
            assert shard.rows == shard.created
