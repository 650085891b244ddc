from __future__ import annotations

import dataclasses
import math
import os
import pickle
from itertools import count, product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastps.testing.clocks import BSP, SSP, ModelBoard
from fastps.testing.history import LIMIT, Event, Recorder, Violation, check_bsp, check_ssp, check_sums, load
from tests.support.extent import short_or_long

SHARDS = 2


def event(rank, kind, clock, versions=(), **known):
    """One that takes no time, later than all before it."""
    at = next(event.now)
    known = {"began_ns": at, "ended_ns": at, "step": kind in ("push", "push_pull"), **known}
    return Event(rank, known.pop("member", rank + 100), kind, clock, versions=versions, **known)


event.now = count()


def two_workers():
    """A right history under SSP(0): each pulls and pushes twice."""
    return [
        event(0, "join", 0), event(1, "join", 0),
        event(0, "pull", 0, (0, 0)), event(1, "pull", 0, (0, 0)),
        event(0, "push", 0, (1, 2)), event(1, "push", 0, (2, 1)),
        event(1, "pull", 1, (2, 2)), event(1, "push", 1, (3, 3)),
        event(0, "pull", 1, (3, 3)), event(0, "push", 1, (4, 4)),
        event(0, "leave", 2), event(1, "leave", 2),
    ]  # fmt: skip


def rounds():
    """The same under BSP."""
    return [
        dataclasses.replace(e, versions=(e.clock + (e.kind == "push"),) * SHARDS if e.versions else ())
        for e in two_workers()
    ]


def changed(history, at, **values):
    return [dataclasses.replace(e, **values) if i == at else e for i, e in enumerate(history)]


def texts(violations):
    return " | ".join(violation.text for violation in violations)


def test_a_history_within_the_bound_has_no_violations():
    assert check_ssp(two_workers(), 0) == []
    assert check_ssp(two_workers(), 3) == []
    assert check_bsp(rounds()) == []
    assert check_bsp(rounds(), backup=1) == []
    assert check_ssp([], 0) == check_bsp([]) == []


@pytest.mark.parametrize(
    ("at", "values", "says"),
    [
        (8, {"versions": (3, 0)}, "read version 0 of shard 1, before version 1 of push of rank 1"),
        (8, {"versions": (0, 3)}, "read version 0 of shard 0 after version 1 of push of rank 0"),
        (6, {"versions": (1, 2)}, "read version 1 of shard 0 after version 2 of push of rank 1"),
        (6, {"clock": 2}, "pull of rank 1 (member 0000000000000065) at clock 2 should be at clock 1"),
        (9, {"clock": 0}, "at clock 0 should be at clock 1"),
        (4, {"step": False}, "at clock 1 should be at clock 0"),
        (8, {"staleness": 1}, "was told a staleness of 1, more than 0"),
        (9, {"versions": (4, 3)}, "made version 3 of shard 1, as push of rank 1"),
    ],
)
def test_check_ssp_finds_what_cannot_have_happened(at, values, says):
    found = check_ssp(changed(two_workers(), at, **values), 0)
    assert says in texts(found)
    assert all(violation.events for violation in found)


@pytest.mark.parametrize(
    ("at", "values", "says"),
    [
        (8, {"versions": (1, 2)}, "has different rounds on its shards, (1, 2)"),
        (8, {"versions": (0, 0)}, "read round 0, an earlier one"),
        (6, {"versions": (2, 2)}, "read round 2, which closed without it"),
        (9, {"versions": (5, 5)}, "counts in round 5"),
        (9, {"staleness": 1}, "counts in round 2 with staleness 1"),
        (9, {"versions": (1, 1)}, "counts in round 1 with staleness 0"),
        (9, {"clock": 0, "versions": (1, 1)}, "counts in round 1, and so does push of rank 0"),
        (8, {"clock": 2, "versions": (2, 2)}, "should be at clock 1"),
    ],
)
def test_check_bsp_finds_what_cannot_have_happened(at, values, says):
    assert says in texts(check_bsp(changed(rounds(), at, **values)))


def test_check_bsp_finds_reads_that_go_back_and_lets_backup_workers_read_later_rounds():
    ahead = changed(rounds(), 2, versions=(1, 1))
    assert "closed without it" in texts(check_bsp(ahead))
    assert check_bsp(ahead, backup=1) == []
    back = changed(rounds(), 2, versions=(7, 7))
    assert "read version 1 of shard 0 after version 7" in texts(check_bsp(back, backup=1))


def test_a_push_that_was_dropped_is_held_against_nobody():
    dropped = changed(changed(rounds(), 9, versions=(9, 9), counted=False, staleness=4), 8, clock=0)
    assert check_bsp(dropped, backup=1) == []
    assert check_ssp(changed(two_workers(), 7, versions=(9, 9), counted=False), 0) == []


def test_a_rank_counts_once_in_a_round_whoever_holds_it():
    twice = [event(0, "push", 0, (1, 1), member=1), event(0, "push", 0, (1, 1), member=2)]
    assert "and so does" in texts(check_bsp(twice))
    in_one_step = [event(0, "push", 0, (1, 1), step=False), event(0, "push", 0, (1, 1))]
    assert check_bsp(in_one_step) == []


def test_what_is_kept_for_the_end_of_a_step_is_not_read_before():
    kept = event(0, "push", 0, (1, 1), step=False)
    assert check_bsp([kept, event(0, "pull", 0, (0, 0)), event(0, "push_pull", 0, (0, 0), step=False)]) == []
    assert "an earlier one" in texts(check_bsp([event(0, "push_pull", 0, (0, 0))]))


def test_a_push_pull_reads_the_round_that_it_is_in_or_with_backup_workers_a_later_one():
    ahead = [event(0, "join", 0), event(0, "push_pull", 0, (3, 3)), event(0, "push", 3, (4, 4)), event(0, "leave", 4)]
    assert check_bsp(ahead, backup=1) == []
    assert "closed without it" in texts(check_bsp(ahead))


def sums(member_of_rank_1=101):
    """Two workers, three rounds: rank 0 gives 1, 2 and, in two parts, 4; rank 1 gives 10 and 20 and is late once."""
    own = {"member": member_of_rank_1}
    return [
        event(0, "pull", 0, (0, 0), read=0.0), event(0, "push", 0, (1, 1), gave=1.0),
        event(1, "push", 0, (1, 1), gave=10.0, **own), event(1, "push_pull", 1, (2, 2), gave=20.0, read=33.0, **own),
        event(0, "push_pull", 1, (2, 2), gave=2.0, read=33.0),
        event(0, "push", 2, (3, 3), gave=1.0, step=False), event(0, "push", 2, (3, 3), gave=3.0),
        event(1, "push", 2, (), gave=40.0, counted=False, **own),
        event(1, "pull", 3, (3, 3), read=37.0, **own),
    ]  # fmt: skip


def test_parameters_that_are_the_sum_of_what_counts_are_right():
    assert check_sums(sums()) == check_sums([]) == []
    assert len(check_sums(sums(), initial=5.0)) == 4
    assert check_sums([dataclasses.replace(e, gave=None, read=None) for e in sums()]) == []


@pytest.mark.parametrize(
    ("at", "values", "says"),
    [
        (0, {"read": 1.0}, "read 1 in round 0, where 0 counts"),
        (3, {"read": 13.0}, "read 13 in round 2, where 33 counts"),
        (8, {"read": math.nan}, "read nan in round 3"),
        (7, {"counted": True, "versions": (3, 3)}, "read 37 in round 3, where 77 counts"),
        (2, {"counted": False}, "where 23 counts"),
        (6, {"counted": False}, "where 33 counts"),
        (5, {"clock": 1}, "where 36 counts"),
    ],
)
def test_check_sums_finds_a_report_that_is_not_what_the_parameters_hold(at, values, says):
    assert says in texts(check_sums(changed(sums(), at, **values)))


def test_what_was_kept_counts_when_the_step_ends_and_goes_with_its_worker():
    kept = [event(0, "push", 0, (1, 1), gave=3.0, step=False)]
    pull = event(1, "pull", 1, (1, 1), read=3.0)
    assert check_sums([*kept, event(0, "end_step", 0, step=True), pull]) == []
    assert "where 0 counts" in texts(check_sums([*kept, event(0, "leave", 0), pull]))
    other = event(0, "push", 0, (1, 1), gave=3.0, member=7)  # its successor's
    assert check_sums([*kept, event(0, "leave", 0), other, pull]) == []


def test_nothing_is_said_of_sums_behind_an_operation_that_failed():
    assert check_sums([event(0, "failed", 0), event(1, "pull", 1, (1, 1), read=9.0)]) == []
    assert len(check_sums([event(0, "failed", 1), event(1, "pull", 1, (1, 1), read=9.0)])) == 1


def test_a_push_pull_is_a_pull_and_a_push():
    start = [event(0, "join", 0), event(1, "join", 1)]
    made = event(0, "push_pull", 0, (1, 1))
    assert check_ssp([*start, made, event(1, "push_pull", 1, (2, 2))], 0) == []
    assert "before version 1 of push_pull" in texts(check_ssp([*start, made, event(1, "pull", 1, (1, 0))], 0))
    late = event(1, "push_pull", 1, (1, 2))
    assert "made version 1 of shard 0, as push_pull of rank 0" in texts(check_ssp([*start, made, late], 0))
    resumed = event(1, "push_pull", 1, (0, 2))
    assert check_ssp([*start, made, resumed], 0) == []


def test_nothing_is_demanded_of_pulls_that_began_before_a_worker_had_joined():
    early = event(0, "pull", 5, (0, 0))
    joined = [event(1, "join", 0), event(1, "push", 0, (1, 1))]
    assert check_ssp([early, *joined], 2) == []
    assert len(check_ssp([*joined, event(0, "pull", 5, (0, 0))], 2)) == 1
    assert check_ssp([*joined, event(0, "pull", 2, (0, 0))], 2) == []


def test_a_push_is_demanded_once_its_step_has_ended():
    open_step = [event(1, "join", 0), event(1, "push", 0, (1, 1), step=False)]
    pull = event(0, "pull", 5, (0, 0))
    assert check_ssp([*open_step, pull], 0) == []
    assert len(check_ssp([*open_step, event(1, "end_step", 0, step=True), event(0, "pull", 5, (0, 0))], 0)) == 1


def test_a_resumed_push_without_a_version_hides_no_earlier_one():
    start = [event(1, "join", 0), event(1, "push", 0, (3, 1)), event(1, "push", 1, (0, 2))]
    assert check_ssp([*start, event(0, "pull", 2, (3, 2))], 0) == []
    assert "before version 3 of push of rank 1" in texts(check_ssp([*start, event(0, "pull", 2, (2, 2))], 0))


def test_after_an_operation_that_raised_a_clock_may_have_moved_but_not_back():
    start = [event(0, "join", 0), event(0, "push", 0, (1, 1)), event(0, "failed", 1)]
    for clock in (1, 2):
        assert check_ssp([*start, event(0, "pull", clock, (1, 1))], 0) == []
    assert "should be at clock 1" in texts(check_ssp([*start, event(0, "pull", 0, (1, 1))], 0))


def test_a_worker_that_may_have_been_expelled_while_it_read_is_not_held_to_its_round():
    joined = event(0, "join", 0)
    read = event(0, "pull", 0, (3, 3))
    assert check_bsp([joined, read]) == []
    assert check_bsp([joined, read, event(0, "push", 3, (4, 4), member=7), event(0, "join", 4, member=7)]) == []
    assert len(check_bsp([joined, read, event(0, "leave", 0)])) == 1


def test_violations_past_the_limit_are_counted():
    found = check_ssp([event(0, "pull", 0, (0,), staleness=9, member=member) for member in range(LIMIT + 50)], 0)
    assert len(found) == LIMIT + 1
    assert found[-1] == Violation("and 50 more")


class Session:
    """What a recorder needs of a worker."""

    def __init__(self):
        self.rank, self.clock, self.returns, self.reply, self.seen = 3, 0, 0, None, []

    def _done(self, ends):
        self.reply = SimpleNamespace(clock=self.clock, staleness=0, versions=(self.clock, 1), counted=True, more=None)
        self.clock += ends
        return self.reply

    def pull(self, *, out=None, timeout=None):
        self._done(False)
        return "params"

    def push(self, grads, *, step=True, timeout=None):
        if grads is None:
            raise TimeoutError
        return self._done(step)

    def push_pull(self, grads, *, step=True, out=None):
        self._done(step)
        return out

    def end_step(self):
        self.clock += 1

    def view(self):
        return "view"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.seen.append(error[0])


def test_a_recorder_answers_as_the_worker_does_and_notes_each_operation():
    with Recorder(Session()) as w:
        assert (w.rank, w.view(), w.pull(timeout=1.0), w.push_pull(1, out=2)) == (3, "view", "params", 2)
        assert w.push(1, step=False) is w.reply
        w.end_step()
        assert w.clock == 2
    assert [(e.kind, e.clock, e.versions, e.step) for e in w.events] == [
        ("join", 0, (), False), ("pull", 0, (0, 1), False), ("push_pull", 0, (0, 1), True),
        ("push", 1, (1, 1), False), ("end_step", 1, (), True), ("leave", 2, (), False),
    ]  # fmt: skip
    assert {(e.rank, e.member) for e in w.events} == {(3, w.member)}
    times = [at for e in w.events for at in (e.began_ns, e.ended_ns)]
    assert times == sorted(times)
    assert pickle.loads(pickle.dumps(w.events)) == w.events


def test_a_recorder_makes_a_number_of_what_it_sees():
    with Recorder(Session(), value=lambda what: float(len(str(what)))) as w:
        w.pull()
        w.push("123")
        w.push_pull("12", out="1")
        w.end_step()
    assert [(e.gave, e.read) for e in w.events[1:-1]] == [(None, 6.0), (3.0, None), (2.0, 1.0), (None, None)]


def test_a_recorder_notes_what_raised_and_lets_it_through():
    session = Session()
    with pytest.raises(TimeoutError), Recorder(session) as w:
        w.push(None)
    assert [e.kind for e in w.events] == ["join", "failed", "leave"]
    assert session.seen == [TimeoutError]


def test_a_worker_that_came_back_is_another_member_that_joins_behind_the_operation():
    session = Session()
    with Recorder(session) as w:
        before = w.member
        session.returns = 1
        w.push(1)
        w.pull()
    assert [(e.kind, e.member == before) for e in w.events] == [
        ("join", True), ("push", False), ("join", False), ("pull", False), ("leave", False),
    ]  # fmt: skip
    assert w.events[2].began_ns >= w.events[1].ended_ns


def test_a_file_has_the_events_without_a_line_that_was_cut(tmp_path):
    path = tmp_path / "history"
    with Recorder(Session(), path=path) as w:
        w.pull()
        assert load(path) == w.events
        w.push(1)
    assert load(path) == w.events
    path.write_bytes(path.read_bytes()[:-1])
    assert load(path) == w.events[:-1]


def test_several_sessions_may_write_to_one_file_in_turn(tmp_path):
    with Recorder(Session(), path=tmp_path / "history") as first:
        first.push(1)
    with Recorder(Session(), path=tmp_path / "history") as second:
        second.push(1)
    assert load(tmp_path / "history") == first.events + second.events


def test_a_recorder_closes_its_file_even_when_leaving_raises(tmp_path):
    session, before = Session(), set(os.listdir("/proc/self/fd"))
    session.__class__ = type("Failing", (Session,), {"__exit__": lambda *_: 1 / 0})
    with pytest.raises(ZeroDivisionError), Recorder(session, path=tmp_path / "history"):
        pass
    assert len(os.listdir("/proc/self/fd")) == len(before)


class Simulation:
    """Workers that step by step do what a schedule says, over the model of clocks and counters for shards."""

    def __init__(self, kind, bound, workers, gated):
        self.kind, self.bound, self.gated = kind, bound, gated
        self.board = ModelBoard(kind, bound, bound, workers, workers)
        self.versions, self.events, self.members, self.now = [0] * SHARDS, [], count(1), count()
        self.sessions = [self.session(rank) for rank in range(workers)]

    def session(self, rank):
        """A generator that yields wherever another worker may come between."""
        member = next(self.members)
        began = next(self.now)
        self.board.join(rank)
        self.note(rank, member, "join", began, self.board.clock(rank))
        while True:
            for kind in ("pull", "push", "pull", "push_pull"):
                began, steps_before = next(self.now), member
                while True:
                    if rank not in self.board.live:
                        self.board.rejoin(rank)
                        member = next(self.members)
                    if self.board.may_go(rank) or not self.gated:
                        break
                    yield
                clock = self.board.clock(rank)
                staleness = min(max(0, clock - self.board.progress), self.bound)
                versions, counted = [], True
                for shard in range(SHARDS):
                    yield
                    if self.kind == SSP:
                        self.versions[shard] += kind != "pull"
                    versions.append(self.versions[shard] if self.kind == SSP else self.board.progress)
                yield
                if kind != "pull" and rank not in self.board.live:
                    self.board.rejoin(rank)
                    member, counted = next(self.members), self.kind == SSP
                elif kind != "pull" and self.kind == SSP:
                    self.board.end_step(rank)
                elif kind != "pull":
                    counted = self.board.may_go(rank) and self.board.arrive(rank, 1)
                    versions = [clock + 1] * SHARDS
                if self.kind == BSP and len(set(versions)) > 1:
                    versions = [max(versions)] * SHARDS  # a pull that meets the end of a round begins again
                told = {"staleness": staleness, "versions": tuple(versions), "counted": counted, "step": kind != "pull"}
                self.note(rank, member, kind, began, clock, **told)
                if member != steps_before:
                    self.note(rank, member, "join", next(self.now), self.board.clock(rank))

    def note(self, rank, member, kind, began, clock, **told):
        self.events.append(Event(rank, member, kind, clock, began_ns=began, ended_ns=next(self.now), **told))

    def run(self, schedule):
        for rank, fate in schedule:
            if fate == "die":  # in the middle of whatever it does; a successor takes the rank
                self.sessions[rank].close()
                self.sessions[rank] = self.session(rank)
                if rank in self.board.live:
                    self.board.evict(rank)
            elif fate == "expelled":  # and does not know it
                if rank in self.board.live:
                    self.board.evict(rank)
            else:
                for _ in range(fate):
                    next(self.sessions[rank])
        return self.events


WORKERS = 3
fates = st.sampled_from([1, 1, 2, 3, 5, 8, 13, "die", "expelled"])
schedules = st.lists(st.tuples(st.integers(0, WORKERS - 1), fates), min_size=40, max_size=200)
calm = st.lists(st.tuples(st.integers(0, WORKERS - 1), st.integers(1, 13)), min_size=40, max_size=200)


def misses(events, staleness):
    """The bound as it is defined: every read with every push."""
    joined = {e.member: e.ended_ns for e in reversed(events) if e.kind == "join"}
    reads = [e for e in events if e.kind in ("pull", "push_pull")]
    pushes = [e for e in events if e.kind in ("push", "push_pull")]
    return {
        read
        for read, push in product(reads, pushes)
        if push.member != read.member
        and push.clock < read.clock - staleness
        and joined.get(push.member, np.inf) <= read.began_ns
        and any(made > seen for made, seen in zip(push.versions, read.versions, strict=True))
    }


@given(st.integers(0, 3), schedules)
def test_every_execution_behind_a_gate_is_within_the_bound(staleness, schedule):
    events = Simulation(SSP, staleness, WORKERS, gated=True).run(schedule)
    assert check_ssp(events, staleness) == []


@given(st.integers(0, 2), calm)
def test_without_the_gate_exactly_those_reads_are_found_that_miss_a_push(staleness, schedule):
    events = Simulation(SSP, staleness, WORKERS, gated=False).run(schedule)
    found = check_ssp(events, staleness)
    if len(found) <= LIMIT:
        assert {violation.events[0] for violation in found} == misses(events, staleness)
    else:
        assert misses(events, staleness)


@given(st.integers(1, 3), calm)
def test_what_holds_for_a_bound_holds_for_a_wider_one(staleness, schedule):
    events = Simulation(SSP, staleness, WORKERS, gated=True).run(schedule)
    assert check_ssp(events, staleness + 1) == []


@pytest.mark.parametrize("staleness", [0, 1, 4])
def test_a_broken_gate_is_found_in_a_random_run(staleness, rng):
    schedule = [(int(rank), 1) for rank in rng.choice(WORKERS, 3000, p=[0.2, 0.4, 0.4])]
    assert check_ssp(Simulation(SSP, staleness, WORKERS, gated=True).run(schedule), staleness) == []
    found = check_ssp(Simulation(SSP, staleness, WORKERS, gated=False).run(schedule), staleness)
    assert "before version" in texts(found)


@given(schedules)
def test_every_execution_in_rounds_reads_what_its_clock_says(schedule):
    assert check_bsp(Simulation(BSP, 0, WORKERS, gated=True).run(schedule)) == []


@given(st.integers(1, 2), schedules)
def test_every_execution_in_rounds_with_backup_workers_passes(backup, schedule):
    assert check_bsp(Simulation(BSP, backup, WORKERS, gated=True).run(schedule), backup) == []


def test_a_worker_that_does_not_wait_for_its_round_is_found():
    schedule = [(rank, 8) for rank in [0, 1, 2, 0, 0, 0]]
    assert "an earlier one" in texts(check_bsp(Simulation(BSP, 0, WORKERS, gated=False).run(schedule)))


def test_long_histories_are_checked(rng):
    """Pulls of 8 workers on 3 shards, 16,000 or 100,000: comparing each with each would not come to an end."""
    events, now, made = [event(rank, "join", 0, began_ns=0, ended_ns=0) for rank in range(8)], count(1), 0
    for clock in range(short_or_long(2_000, 12_500)):
        for rank in rng.permutation(8).tolist():
            told = {"began_ns": next(now), "ended_ns": next(now)}
            events.append(event(rank, "pull", clock, (8 * clock,) * 3, **told))
        for rank in rng.permutation(8).tolist():
            made += 1
            events.append(event(rank, "push", clock, (made,) * 3, began_ns=next(now), ended_ns=next(now)))
    assert check_ssp(events, 0) == []
    last = max(at for at, e in enumerate(events) if e.kind == "pull")
    found = check_ssp(changed(events, last, versions=(0,) * 3), 0)
    assert sum("before version" in violation.text for violation in found) == 7
