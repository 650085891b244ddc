"""What consists of several steps hands the rest of its timeout to each of them. The clock stands still but for the
steps, so nothing depends on how fast the machine is."""

import numpy as np
import pytest

from fastps import BSP, DCASGD, SGD, Adam, Table
from fastps import deadline as deadline_module
from fastps._core import Outcome
from fastps.client.arrays import ArraySession
from fastps.client.attach import Attachment, attachments
from fastps.client.resume import Resume
from fastps.client.rounds import RoundSession
from fastps.client.rows import RowSession
from fastps.client.session import Session
from fastps.errors import WaitTimeoutError
from fastps.server.handle import handle_of
from fastps.tables.handle import TableHandle
from fastps.testing.local import LocalServer

LONG = 30.0  # a guard against hanging
NODE = "0" * 56
TIMEOUT, STEP = 10.0, 1.0


class Clock:
    """The time, in place of the module `time`."""

    def __init__(self) -> None:
        self.now = self.steps = 0

    def monotonic(self):
        return self.now

    def step(self, timeout):
        """A step that was given this timeout takes STEP seconds."""
        assert self.now + timeout <= TIMEOUT, f"step {self.steps} may end {self.now + timeout} s after the beginning"
        self.steps += 1
        self.now += STEP


class Slow:
    """An endpoint whose every operation is a step."""

    def __init__(self, endpoint, clock) -> None:
        self.endpoint, self.shards, self.clock, self.tell = endpoint, endpoint.shards, clock, endpoint.tell

    def start(self, operation, timeout, *more):
        self.clock.step(timeout)
        return self.endpoint.start(operation, LONG, *more)

    def ask(self, verb, *arguments, timeout, outcome=None):
        self.clock.step(timeout)
        return self.endpoint.ask(verb, *arguments, timeout=LONG, outcome=outcome)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(deadline_module, "time", clock)
    return clock


@pytest.fixture
def slow(clock):
    """Makes a slow session of a server with these parameters and options."""
    servers = []

    def make(params, **options):
        def resolve(value, timeout):
            clock.step(timeout)
            return value

        servers.append(LocalServer(params, **options))
        session = Session(servers[-1].spec, NODE, None, resolve, None)
        session.endpoints, session.all_here = [Slow(session.shm, clock)], False
        clock.now = clock.steps = 0
        return session

    yield make
    for server in servers:
        attachments.drop(server.spec.server_id)
        server.close()


RULES = {"b": SGD(0.1), "*": Adam(0.1)}


def arrays():
    return {"w": np.ones(4), "b": np.ones(2)}


def test_a_push_waits_for_gradients_and_pulled_parameters_within_its_timeout(slow, clock):
    session = slow(np.ones(4), rule=DCASGD(0.1))
    ArraySession(session).push(np.ones(4), np.ones(4), TIMEOUT, None, Outcome())
    assert clock.steps == 3


def test_a_push_pull_that_is_resumed_pushes_and_pulls_within_its_timeout(slow, clock):
    session = slow(arrays(), rule=RULES)
    resume = Resume((session, None), {0: None})
    ArraySession(session).push_pull(arrays(), None, None, TIMEOUT, resume, Outcome())
    assert clock.steps == 3


def test_a_push_pull_that_is_skipped_pulls_within_its_timeout(slow, clock):
    session = slow(np.ones(4), nonfinite="skip")
    ArraySession(session).push_pull(np.full(4, np.nan), None, None, TIMEOUT, None, Outcome())
    assert clock.steps == 2


@pytest.mark.parametrize("kind", [ArraySession, RoundSession])
def test_slots_and_hyper_parameters_are_read_and_set_within_a_timeout(slow, clock, kind):
    session = slow(arrays(), rule=RULES, **({"consistency": BSP()} if kind is RoundSession else {}))
    some = kind(session)
    for verb in (
        lambda: some.slots("m", TIMEOUT),
        lambda: some.set(None, {"m": {"w": np.ones(4)}}, None, False, TIMEOUT, Outcome()),
        lambda: some.configure(None, {"lr": 0.5}, TIMEOUT, Outcome()),
        lambda: some.hyper(TIMEOUT),
    ):
        clock.now = 0
        verb()
    assert clock.steps == (7 if kind is ArraySession else 13)


def counted(slow):
    """A table whose rows are created when their keys come for the second time."""
    session = slow({"t": Table(1, admit=2, init=0.0)})
    return RowSession(session, next(iter(session.spec.table_names.values())))


KEYS = np.arange(3, dtype=np.uint64)


def test_a_pull_of_a_table_that_admits_keys_counts_pulls_and_forgets_within_its_timeout(slow, clock):
    table = counted(slow)
    for expected in (4, 5, 3):
        clock.now = clock.steps = 0
        table.pull(KEYS, np.empty((3, 1), np.float32), True, TIMEOUT)
        assert clock.steps == expected


def test_a_push_pull_of_a_table_that_admits_keys_counts_pushes_and_forgets_within_its_timeout(slow, clock):
    table = counted(slow)
    for expected in (3, 5, 3):
        clock.now = clock.steps = 0
        table.push(KEYS, np.ones((3, 1), np.float32), np.empty((3, 1), np.float32), TIMEOUT, None, Outcome())
        assert clock.steps == expected


def test_a_push_of_a_table_that_admits_keys_finds_and_pushes_within_its_timeout(slow, clock):
    counted(slow).push(KEYS, np.ones((3, 1), np.float32), None, TIMEOUT, None, Outcome())
    assert clock.steps == 2


def test_a_pull_that_has_its_rows_does_not_fail_for_lack_of_time_to_forget(slow, clock):
    table = counted(slow)
    table.pull(KEYS, np.empty((3, 1), np.float32), True, TIMEOUT)
    clock.now = 0

    class Late(Slow):
        def ask(self, verb, *arguments, **options):
            if verb == "remove":
                raise WaitTimeoutError("late")
            return super().ask(verb, *arguments, **options)

    (endpoint,) = table.session.endpoints
    table.session.endpoints = [Late(endpoint.endpoint, clock)]
    rows = np.full((3, 1), 7, np.float32)
    table.pull(KEYS, rows, True, TIMEOUT)
    assert not rows.any()
    table.session.endpoints, clock.now = [endpoint], 0
    table.pull(KEYS, rows, True, TIMEOUT)
    clock.now = 0
    assert not table.sightings.find(KEYS, TIMEOUT).any()


def test_a_push_pull_of_a_table_that_is_skipped_pulls_within_its_timeout(slow, clock):
    session = slow({"t": Table(1, admit=2, init=0.0)}, nonfinite="skip")
    attachment = Attachment(session.spec)
    attachment.use(session)
    real = session.scale
    session.scale = lambda *arguments: clock.step(0.0) or real(*arguments)
    table = TableHandle(attachment, next(iter(session.spec.table_names.values())))
    table.push_pull(KEYS, np.full((3, 1), np.nan, np.float32), timeout=TIMEOUT)
    assert clock.steps == 5


def test_configure_of_a_server_changes_arrays_and_tables_within_a_timeout(slow, clock):
    session = slow({**arrays(), "s": Table(1, rule=SGD(0.1)), "t": Table(1, rule=SGD(0.1))}, rule=RULES)
    ps = handle_of(session.spec)
    ps.attachment.use(session)
    ps.configure(lr=0.5, timeout=TIMEOUT)
    assert clock.steps == 4
