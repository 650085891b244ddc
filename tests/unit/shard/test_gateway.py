"""Messages that no client sends: each gets an error or a result as its reply, and the process lives on."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import itertools
import os
import sys
import traceback
from dataclasses import replace

import numpy as np
import pytest

import fastps
from fastps._core import Decision, Outcome
from fastps.errors import FastPSError, UnavailableError, WaitTimeoutError
from fastps.shard import arguments
from fastps.shard.coordinator import Coordinator
from fastps.shard.gateway import Gateway
from fastps.spec.table import Table
from fastps.testing.local import LocalServer
from fastps.transport import message, values
from fastps.transport.layout import Layouts
from fastps.transport.loopback import Loopback
from fastps.transport.remote import RemoteEndpoint
from fastps.transport.shm import ShmEndpoint, Verbs
from tests.support.extent import LONG

MESSAGES = 20_000 if LONG else 1_500
CLIENTS = itertools.count(1)
KEYS = np.arange(3, dtype=np.uint64)
ROUND = Decision.unpack(np.array([1, 1 << 16], "<u8"))


def two_arrays(rule, **options):
    return LocalServer({"w": np.zeros(1000, np.float32), "b": np.ones(7)}, rule=rule, **options)


SERVERS = {
    "arrays and tables": lambda: LocalServer(
        {"w": np.zeros(1000, np.float32), "s": Table(4, init=0.5), "t": Table(2, capacity=200, evict="lru", admit=2)},
        rule=fastps.Adam(0.1),
    ),
    "several shards": lambda: LocalServer({"w": np.zeros(1000), "t": Table(3, track=True)}, num_shards=3),
    "a rule with pulled": lambda: two_arrays({"w": fastps.DCASGD(0.1), "b": fastps.Adam(0.1)}),
    "clocks": lambda: two_arrays(fastps.Adam(0.1), consistency=fastps.SSP(2), num_shards=2),
    "rounds": lambda: two_arrays(fastps.Adam(0.1), consistency=fastps.BSP(), num_shards=2),
    "copies": lambda: two_arrays(fastps.Adam(0.1), consistency=fastps.LocalSGD(2)),
}


def asked(verb, given, timeout=0.01):
    payload = values.pack((verb, given))
    return message.Header(message.QUESTION, next(CLIENTS), 1, timeout, nbytes=len(payload)).pack() + payload


def reply(server, verb, *given, **options):
    return values.unpack(message.opened(server.serve(asked(verb, list(given), **options))))


def in_a_child(call):
    """Runs a call in a forked child, whose death by a signal is told with what it wrote last."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            faulthandler.dump_traceback_later(60, exit=True)
            call(tell)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(tell)
    with os.fdopen(told, "rb") as end:
        last = b""
        while some := end.read(65536):
            last = (last + some)[-2000:]
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"exit status {status} after {last.decode(errors='replace').splitlines()[-1:]}"


class Chance:
    """Random messages to a server."""

    def __init__(self, seed, spec):
        self.rng, self.spec = np.random.default_rng(seed), spec
        self.layouts = Layouts(spec, range(len(spec.plans)))

    def one_of(self, choices):
        return choices[self.rng.integers(len(choices))]

    def array(self):
        dtype = self.one_of(["<u8", "<u8", "<u8", ">u8", "u1", "<i8", "<f4", "<U3", "?", "<u4"])
        return np.zeros(self.one_of([0, 1, 3, (2, 2), (), 70_000]), dtype)

    def value(self):
        return self.one_of([
            None, True, -1, 0, 0, 0, 1, 2, 3, 2**31, 2**32, 2**63, 2**64, 0.5, np.nan, np.inf, "x", "", b"abc",
            [], [True], [False] * 3, [True] * 3, [True] * 2, [0, "x", None], {}, {0: 0.1}, {0: np.nan}, {1: 1, 99: 1.0},
            {0: "x"}, {-1: 1}, (1, 2), ROUND, Decision.unpack(bytes(8)), self.array(), self.array(), self.array(),
        ])  # fmt: skip

    def fitting(self, kind):
        """A value of a kind, if one is found soon."""
        for _ in range(20):
            value = self.value()
            try:
                if kind.fits(value, self.spec, [0]):
                    return value
            except (LookupError, TypeError, OverflowError):
                pass
        return self.value()

    def question(self, verbs):
        verb = self.one_of([*verbs, *verbs, "mro", "__init__", "tables", "CHANGES", 5, None, ["find"]])
        kinds = verbs.get(verb, ()) if isinstance(verb, str) else ()
        wrong = self.rng.random() < 0.2
        given = [self.value() if wrong or self.rng.random() < 0.3 else self.fitting(kind) for kind in kinds]
        waiting = [
            kind is arguments.SECONDS and isinstance(v, int | float) for kind, v in zip(kinds, given, strict=True)
        ]
        given = [min(v, 0.01) if waits else v for waits, v in zip(waiting, given, strict=True)]
        given = given[: self.rng.integers(len(given) + 1)] if self.rng.random() < 0.1 else given
        given += [self.value()] * int(self.rng.random() < 0.1)
        return asked(verb, self.one_of([given] * 9 + [self.value()]), self.one_of([0.0, 0.01, 1e300, np.nan, -1.0]))

    def operation(self):
        few = self.rng.integers
        header = message.Header(
            self.one_of([message.OPERATION] * 5 + [message.REST]), int(few(4)), int(few(2**31)),
            self.one_of([0.0, 0.01, 1e300, np.nan]), table=int(few(len(self.spec.tables) + 2)), n=int(few(6)),
            flags=self.one_of([0, 1, 2, 3, int(few(16384)), message.PARTIAL + int(few(4))]),
            sets=self.one_of([0, 0, 0, 1, 2, 7, 2**32 - 1]),
            gets=self.one_of([0, 0, 0, 1, 2, 3, 7, 2**64 - 1]), scale=self.one_of([1.0, 0.5, np.nan, np.inf]),
            stop=self.one_of([message.WHOLE, 0, 8, 100]),
            decision=self.one_of([b"", b"", ROUND.pack(), bytes(8), bytes(5), b"\xff" * 24]),
            deposit=self.one_of([None, None, (0, 1, 1, 1, 0), (9, 1, 1, 1, 0), (2**32 - 1, 2, 2**63, 1, 2**63)]),
        )  # fmt: skip
        info = self.spec.tables[header.table - 1] if 0 < header.table <= len(self.spec.tables) else None
        known = len(self.spec.structure.leaves)
        if header.flags & message.PARTIAL and self.rng.random() < 0.9:
            some = self.one_of([tuple(range(known)), (0,), (known - 1,), (1, 0), (known,), ()])
            header = replace(header, leaves=some, n=len(some))
        leaves = tuple(i for i in header.leaves or () if i < known) if header.leaves is not None else None
        nbytes = message.nbytes_of(header, self.layouts.of(leaves), info) if self.rng.random() < 0.95 else int(few(100))
        return replace(header, nbytes=nbytes).pack() + self.rng.bytes(nbytes)

    def message(self):
        return self.operation() if self.rng.random() < 0.6 else self.question(arguments.OF_SHARDS)


def serves_anything(make, seed, tell):
    with make() as server:
        chance, results = Chance(seed, server.spec), 0
        for _ in range(MESSAGES):
            data = chance.message()
            os.write(tell, data[:400].hex().encode() + b"\n")
            answer = server.serve(data)
            try:
                message.opened(answer)
                results += 1
            except FastPSError:
                pass
        assert results > MESSAGES / 20  # otherwise these messages try little
        if server.spec.consistency.bound is None:
            arrays = [np.empty(leaf.shape, leaf.dtype) for leaf in server.spec.structure.leaves]
            server.endpoint().start(message.Operation(outs=arrays), 10.0).finish()


@pytest.mark.parametrize("kind", SERVERS)
def test_any_message_gets_an_error_or_a_result_and_the_process_lives_on(kind, rng):
    seed = int(rng.integers(2**32))
    in_a_child(lambda tell: serves_anything(SERVERS[kind], seed, tell))


def coordinates_anything(seed, tell):
    with SERVERS["rounds"]() as server:
        chance, process = Chance(seed, server.spec), Coordinator(server.spec)
        for _ in range(MESSAGES):
            data = chance.question(arguments.OF_COORDINATOR)
            os.write(tell, data[:400].hex().encode() + b"\n")
            with contextlib.suppress(FastPSError):
                message.opened(asyncio.run(process.serve(data)))


def test_any_question_to_the_coordinator_gets_an_error_or_a_result(rng):
    seed = int(rng.integers(2**32))
    in_a_child(lambda tell: coordinates_anything(seed, tell))


def test_all_verbs_have_their_arguments_described():
    verbs = {name for name in vars(Verbs) if callable(getattr(Verbs, name)) and not name.startswith("_")}
    assert set(arguments.OF_SHARDS) == verbs | {"make_room", "coordinator"}
    assert set(arguments.OF_COORDINATOR) == {n for n in vars(Coordinator) if not n.startswith("_")} - {"serve"}


@pytest.fixture(scope="module")
def server():
    with SERVERS["arrays and tables"]() as made:
        yield made


@pytest.mark.parametrize(
    ("verb", "given", "words"),
    [
        ("find", [0, np.zeros(8, np.uint8)], "argument 1: expected uint64"),
        ("find", [0, np.zeros(8, ">u8")], "argument 1: expected uint64"),
        ("find", [0, np.zeros((2, 2), np.uint64)], "argument 1: expected uint64"),
        ("seen", [-1, KEYS], "argument 0: expected the number of a table, got -1"),
        ("seen", [3, KEYS], "argument 0: expected the number of a table"),  # the third one is that of sightings
        ("remove", [0, KEYS, []], "argument 2: expected a bool for the values and each slot"),
        ("remove", [0, KEYS, [1, 1, 1]], "argument 2: expected a bool"),
        ("scan", [0, 0, 2**64, 10, [True] * 3], "argument 2: expected a number of 64 bits"),
        ("reach", [None], "argument 0: expected a decision"),
        ("reach", [ROUND], "on a server with rounds"),
        ("configure", [None, 0, {0: "x"}], "argument 2: expected numbers"),
        ("hyper", [True, 0, 1], "argument 0"),
        ("decision", [1], "expected 0 arguments"),
        ("mro", [], "no verb 'mro'"),
        (["find"], [], "no verb"),
    ],
)
def test_arguments_that_a_verb_does_not_take_are_refused(server, verb, given, words):
    with pytest.raises(FastPSError, match="ValueError") as caught:
        reply(server, verb, *given)
    assert words in str(caught.value)


@pytest.mark.parametrize("timeout", [np.nan, -0.5])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(server, timeout):
    with pytest.raises(FastPSError, match="header"):
        reply(server, "counters", None, timeout=timeout)
    assert reply(server, "counters", None, timeout=np.inf)


OPERATION = message.Header(message.OPERATION, 6, 1, 0.1)
PUSHES, PULLS, HAS_PULLED = message.PUSHES, message.PULLS, message.HAS_PULLED
PARTIAL = message.PARTIAL
GIVEN_HALF, READ_HALF, PULLED_HALF = message.GIVEN_HALF, message.READ_HALF, message.PULLED_HALF


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("arrays and tables", {"flags": 0}),
        ("arrays and tables", {"table": 1, "flags": 0, "n": 3}),
        ("arrays and tables", {"flags": HAS_PULLED}),
        ("arrays and tables", {"flags": HAS_PULLED | PUSHES}),
        ("arrays and tables", {"flags": 2**13 | PULLS}),
        ("arrays and tables", {"flags": 1 << GIVEN_HALF | PULLS}),
        ("arrays and tables", {"flags": 1 << READ_HALF | PUSHES}),
        ("arrays and tables", {"flags": 1 << PULLED_HALF | PUSHES}),
        ("arrays and tables", {"flags": 3 << READ_HALF | PULLS}),
        ("arrays and tables", {"flags": 1 << GIVEN_HALF, "gets": 1}),
        ("arrays and tables", {"flags": 1 << READ_HALF, "sets": 1}),
        ("arrays and tables", {"flags": message.INITIAL | PULLS}),
        ("arrays and tables", {"flags": message.INITIAL, "gets": 1}),
        ("arrays and tables", {"flags": message.STEPS | PULLS}),
        ("arrays and tables", {"flags": message.INITIAL | PARTIAL, "sets": 1, "n": 1, "leaves": (0,)}),
        ("arrays and tables", {"flags": message.INITIAL, "table": 1, "sets": 1, "n": 3}),
        ("arrays and tables", {"table": 1, "flags": 1 << READ_HALF | PUSHES, "n": 3}),
        ("arrays and tables", {"flags": PUSHES, "sets": 1}),
        ("arrays and tables", {"flags": PUSHES, "gets": 1}),
        ("arrays and tables", {"flags": PULLS, "gets": 1}),
        ("arrays and tables", {"sets": 1, "gets": 1}),
        ("arrays and tables", {"gets": 2**60}),
        ("arrays and tables", {"table": 1, "gets": 1, "n": 3}),
        ("arrays and tables", {"flags": PULLS, "n": 1}),
        ("arrays and tables", {"flags": PULLS, "decision": ROUND.pack()}),
        ("arrays and tables", {"flags": PUSHES, "deposit": (0, 1, 1, 1, 0)}),
        ("arrays and tables", {"flags": PUSHES, "number": 0}),
        ("arrays and tables", {"sets": 2**60}),
        ("arrays and tables", {"table": 1, "sets": 8, "n": 3}),
        ("arrays and tables", {"table": 1, "flags": PULLS, "sets": 1, "n": 3}),
        ("arrays and tables", {"table": 1, "flags": PUSHES | HAS_PULLED, "n": 3}),
        ("arrays and tables", {"table": 1, "flags": PULLS, "gets": 1, "n": 3}),
        ("arrays and tables", {"table": 4, "flags": PULLS, "n": 3}),
        ("a rule with pulled", {"flags": PUSHES}),
        ("a rule with pulled", {"flags": PULLS | HAS_PULLED}),
        ("arrays and tables", {"flags": PULLS | PARTIAL, "n": 2, "leaves": (1, 0)}),
        ("arrays and tables", {"flags": PULLS | PARTIAL, "n": 2, "leaves": (0, 0)}),
        ("arrays and tables", {"flags": PULLS | PARTIAL, "n": 1, "leaves": (99,)}),
        ("arrays and tables", {"table": 1, "flags": PULLS | PARTIAL, "n": 3}),
        ("rounds", {"flags": PUSHES}),
        ("rounds", {"flags": PULLS, "deposit": (0, 1, 1, 1, 0)}),
        ("rounds", {"flags": PUSHES | PULLS, "deposit": (0, 1, 1, 1, 0)}),
    ],
)
def test_an_operation_that_no_session_sends_is_refused_and_changes_nothing(kind, fields):
    with SERVERS[kind]() as server:
        spec = server.spec
        header = replace(OPERATION, **fields)
        before = reply(server, "counters", None)
        info = spec.tables[header.table - 1] if 0 < header.table <= len(spec.tables) else None
        nbytes = message.nbytes_of(header, Layouts(spec, range(len(spec.plans))).of(None), info)
        with pytest.raises(FastPSError, match="ValueError: an operation"):
            message.opened(server.serve(replace(header, nbytes=nbytes).pack() + bytes(nbytes)))
        assert reply(server, "counters", None) == before


class Losing:
    """A carrier that loses the reply to the first call."""

    limits = Loopback.limits

    def __init__(self, serve):
        self.serve, self.lost = serve, 0

    def send(self, messages):
        self.found = [self.serve(*parts) for parts in messages]
        return self

    def replies(self, timeout):
        self.lost += 1
        if self.lost == 1:
            raise UnavailableError("the reply was lost")
        return self.found


def test_rows_that_were_removed_are_returned_although_the_reply_was_lost():
    with SERVERS["several shards"]() as server:
        far = RemoteEndpoint(server.spec, (0, 1, 2), Losing(server.serve))
        rows = np.full((3, 3), 7, np.float32)
        server.endpoint().start(message.Operation(0, KEYS, sets=[rows]), 10.0).finish()
        outcome = Outcome()
        removed, (held,) = far.ask("remove", 0, KEYS, [True], timeout=30.0, outcome=outcome)
        assert far.carrier.lost == 2
        assert removed.all()
        assert np.array_equal(held, rows)
        assert outcome.applied == (0, 1, 2)
        assert not far.ask("remove", 0, KEYS, [True], timeout=30.0)[0].any()


def of_gateway(server):
    """The endpoint that a gateway of the only shard has."""
    arenas = server.endpoint().arenas
    return ShmEndpoint.of_layouts(server.spec, arenas, Layouts(server.spec, (0,)))


class Stalling:
    """The shards of a server, where steps of an operation fail: `failures` are, per step, None or what resumes it."""

    def __init__(self, endpoint, failures):
        self.real, self.failures, self.done = endpoint, failures, []
        self.shards, self.arenas = endpoint.shards, endpoint.arenas

    def start(self, operation, timeout, resume=None, outcome=None):
        step = ("push" if operation.grads else "") + ("pull" if operation.outs else "")
        if (resumes := self.failures.pop(0)) is not None:
            error = WaitTimeoutError("waited for a lock")
            error.resume = resumes or None
            raise error
        self.done.append((step, resume))
        return self.real.start(operation, timeout, None, outcome)


@pytest.mark.parametrize(
    ("failures", "done"),
    [
        (["token", None, "", None], [("push", "token"), ("pull", None)]),
        (["token", None, None], [("push", "token"), ("pull", None)]),
        ([None, None], [("pushpull", None), ("pull", None)]),
    ],
    ids=["the read fails", "the read does not fail", "the reply is lost"],
)
def test_a_push_pull_is_applied_once_and_read_whatever_fails_on_the_way(failures, done):
    with LocalServer(np.zeros(1000), rule=fastps.Add()) as server:
        endpoint = of_gateway(server)
        attempts, stalling = len(failures) - failures.count(None) + 1, Stalling(endpoint, list(failures))
        gateway = Gateway(server.spec, "shard 0 of 1", Layouts(server.spec, (0,)), stalling, {})
        header = replace(OPERATION, flags=PUSHES | PULLS, nbytes=8000)
        for _ in range(max(attempts, 2)):
            reply = gateway.serve(header.pack() + np.ones(1000).tobytes())
        assert np.frombuffer(message.opened(reply)[8:], np.float64).tolist() == [1.0] * 1000
        assert [step for step in stalling.done if step[0] != "pull"] == done[:1]
        assert stalling.done[-1] == done[1]


def test_an_error_of_the_read_says_that_the_push_was_applied():
    with LocalServer(np.zeros(1000), rule=fastps.Add()) as server:
        endpoint = of_gateway(server)
        failures = ["token", None, ""]
        gateway = Gateway(server.spec, "shard 0 of 1", Layouts(server.spec, (0,)), Stalling(endpoint, failures), {})
        header = replace(OPERATION, flags=PUSHES | PULLS, nbytes=8000)
        for applied in ((), (0,)):
            with pytest.raises(WaitTimeoutError) as caught:
                message.opened(gateway.serve(header.pack() + np.ones(1000).tobytes()))
            assert caught.value.fastps_outcome.applied == applied
