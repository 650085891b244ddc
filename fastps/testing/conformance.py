"""The guarantees of every carrier, as a class of tests to inherit:

    class TestMyCarrier(CarrierSuite):
        @contextmanager
        def reach(self, make):
            ...  # start a process in which `make().serve(head, *parts)` replies messages
            yield MyCarrier(...)

pytest collects the tests of the subclass. They need no Ray where the carrier needs none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from fastps.arrays.types import Arrays, numpy_dtype
from fastps.errors import FastPSError, TableFullError, WaitTimeoutError
from fastps.rules import SGD, Adam
from fastps.spec.table import Table
from fastps.testing.local import LocalServer
from fastps.transport import message, values
from fastps.transport.contract import Buffer, Carrier, Operation
from fastps.transport.remote import RemoteEndpoint, question
from fastps.transport.shm import in_a_row

E = TypeVar("E", bound=Exception)
SIZES = (0, 8, 1000, 99_992, 100_000, 100_008, 2_500_000, 11_000_000)  # bytes of payloads


class Echo:
    """Replies to a message with its payload, once that is complete; to the question "sleep" after that many seconds."""

    def __init__(self) -> None:
        self._inboxes: dict[int, message.Inbox] = {}

    def serve(self, head: Buffer, *parts: Buffer) -> Buffer:
        header = message.Header.unpack(head)
        inbox = self._inboxes.setdefault(header.client, message.Inbox(header.nbytes))
        inbox.add(memoryview(head)[header.size :], parts)
        if header.piece + 1 < header.pieces:
            return message.DONE
        payload = self._inboxes.pop(header.client).payload()
        if header.kind == message.QUESTION:
            _, (seconds,) = values.unpack(payload)
            time.sleep(seconds)
        return message.DONE + payload.tobytes()


def a_server() -> LocalServer:
    """A server of two shards: an array with Adam, one with SGD, and a table."""
    params = {"w": np.arange(30_000.0), "b": np.ones((3, 5), np.float32), "t": Table(4, capacity=100, init=0.5)}
    return LocalServer(params, rule={"b": SGD(0.5), "*": Adam(0.1)}, num_shards=2)


def raised(kind: type[E], call: Callable[[], Any]) -> E:
    """The error that a call raises."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


class CarrierSuite:
    """Inherit from it, and define how to reach the other end."""

    waits = True  # `replies` keeps to its timeout; a carrier that serves in `send` cannot

    def reach(self, make: Callable[[], Any]) -> AbstractContextManager[Carrier]:
        """A carrier to something that ``make()`` has made, in whatever process; `make` is found by its name."""
        raise NotImplementedError("a subclass of CarrierSuite says how its carrier reaches the other end")

    def test_payloads_of_every_size_come_and_go_whole(self) -> None:
        rng = np.random.default_rng(0)
        with self.reach(Echo) as carrier:
            for number, nbytes in enumerate(SIZES, 1):
                payload = rng.integers(0, 256, nbytes, np.uint8)
                header = message.Header(message.OPERATION, number, 1, 10.0)
                replies = carrier.send(message.pieces(header, payload, carrier.limits)).replies(60.0)
                assert np.array_equal(np.frombuffer(message.opened(replies[-1]), np.uint8), payload), nbytes

    def test_messages_of_one_call_are_served_in_their_order(self) -> None:
        with self.reach(Echo) as carrier:
            header = message.Header(message.OPERATION, 7, 1, 10.0, nbytes=8)
            messages = [[header.pack() + number.to_bytes(8, "little")] for number in range(50)]
            replies = carrier.send(messages).replies(60.0)
            assert [int.from_bytes(message.opened(reply), "little") for reply in replies] == list(range(50))

    def test_threads_that_share_a_carrier_get_their_own_replies(self) -> None:
        wrong: list[int] = []
        with self.reach(Echo) as carrier:

            def ask(client: int) -> None:
                header = message.Header(message.OPERATION, client, 1, 10.0, nbytes=8)
                for _ in range(20):
                    (reply,) = carrier.send([[header.pack() + client.to_bytes(8, "little")]]).replies(60.0)
                    if int.from_bytes(message.opened(reply), "little") != client:
                        wrong.append(client)

            threads = [threading.Thread(target=ask, args=(client,)) for client in range(1, 9)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert wrong == []

    def test_a_reply_that_is_late_raises_wait_timeout_error_and_the_carrier_goes_on(self) -> None:
        if not self.waits:
            return
        with self.reach(Echo) as carrier:
            raised(WaitTimeoutError, lambda: question(carrier, "sleep", (1.0,), 10.0).replies(0.1))
            question(carrier, "sleep", (0.0,), 10.0).replies(60.0)

    def test_the_reply_to_a_damaged_message_is_an_error_and_nothing_changes(self) -> None:
        with self.reach(a_server) as carrier:
            for damaged in (b"", b"x" * 50, message.Header(message.QUESTION, 1, 1, 1.0).pack() + b"much more"):
                reply = carrier.send([[damaged]]).replies(60.0)[0]
                raised(FastPSError, partial(message.opened, reply))

    def test_operations_do_over_it_what_they_do_in_shared_memory(self) -> None:
        here = a_server()
        with here, self.reach(a_server) as carrier:
            near, far = here.endpoint(), RemoteEndpoint(here.spec, (0, 1), carrier)
            streams = [True] * len(here.spec.tables[0].streams)
            grads: Arrays = [np.linspace(-1, 1, 30_000), np.full((3, 5), 2, np.float32)]
            keys = np.array([5, 2**60, 9, 5], np.uint64)
            rows = np.arange(16, dtype=np.float32).reshape(4, 4)

            def outs() -> list[Any]:
                return [np.empty(30_000), np.empty((3, 5), np.float32)]

            def both(make: Callable[[], Operation]) -> None:
                one, two = make(), make()
                versions = [endpoint.start(op, 10.0).finish() for endpoint, op in ((near, one), (far, two))]
                assert versions[0] == versions[1]
                read = [[*(op.outs or in_a_row(op.gets or [])), *(op.steps or {}).values()] for op in (one, two)]
                for a, b in zip(*read, strict=True):
                    assert np.array_equal(a, b)

            spec = here.spec

            def all_streams(leaves: tuple[int, ...] | None = None) -> Operation:
                wanted = range(2) if leaves is None else leaves
                steps = {p.index: np.zeros(sum(r.leaf in wanted for r in p.runs), np.uint64) for p in spec.plans}
                params = [np.zeros(30_000), np.zeros((3, 5), np.float32)]
                return Operation(gets=[params, *([np.zeros(30_000), empty] for _ in "mv")], leaves=leaves, steps=steps)

            def setting(step: int, leaves: tuple[int, ...] | None = None) -> Operation:
                operation = all_streams(leaves)
                counts = {shard: one + np.uint64(step) for shard, one in (operation.steps or {}).items()}
                return Operation(sets=[grads, [grads[0] + 1, empty], None], leaves=leaves, steps=counts)

            empty = np.empty(0, np.float32)
            initial = [np.arange(30_000.0), np.ones((3, 5), np.float32)]
            both(lambda: Operation(sets=[initial, None, None], initial=True))
            for operation in (lambda: setting(9), lambda: setting(4, (0,)), lambda: setting(2, (1,))):
                both(operation)
                both(all_streams)
                both(lambda: all_streams((0,)))
                both(lambda: Operation(gets=[], steps=all_streams().steps))
                both(lambda: Operation(grads=grads))
                both(all_streams)
            both(lambda: Operation(sets=[initial, [initial[0] * 0, empty], [initial[0] * 0, empty]]))
            both(lambda: Operation(outs=outs()))
            both(lambda: Operation(grads=grads))
            both(lambda: Operation(grads=grads, outs=outs(), scale=0.5))

            def in_half(given: str | None, read: str | None) -> Operation:
                some = [grads[0], grads[1].astype(numpy_dtype(given))] if given else None
                outs = [np.empty(30_000), np.empty((3, 5), numpy_dtype(read))] if read else None
                return Operation(grads=some, outs=outs)

            for given, read in (("bfloat16", "float16"), ("float16", "float32"), ("float32", "bfloat16")):
                for kinds in ((given, None), (None, read), (given, read)):
                    both(partial(in_half, *kinds))
            nothing = np.empty(0, np.uint8)
            for leaves in ((0,), (1,), (0, 1), (), (1,)):

                def some(arrays: list[Any], leaves: tuple[int, ...] = leaves) -> list[Any]:
                    return [array if i in leaves else nothing for i, array in enumerate(arrays)]

                both(lambda leaves=leaves, some=some: Operation(grads=some(grads), leaves=leaves))  # type: ignore[misc]
                both(lambda leaves=leaves, some=some: Operation(outs=some(outs()), leaves=leaves))  # type: ignore[misc]
                both(
                    lambda leaves=leaves, some=some: Operation(  # type: ignore[misc]
                        grads=some(grads), outs=some(outs()), leaves=leaves, scale=0.5
                    )
                )
            both(lambda: Operation(grads=grads, outs=outs()))
            both(lambda: Operation(gets=[None, [np.empty(30_000), empty], None]))
            both(lambda: Operation(sets=[None, [np.ones(30_000), empty], None]))
            both(lambda: Operation(gets=[None, [np.empty(30_000), empty], None]))
            for op in (
                lambda: Operation(0, keys, outs=[np.empty((4, 4), np.float32)]),
                lambda: Operation(0, keys, [rows]),
                lambda: Operation(0, keys, [rows], [np.empty((4, 4), np.float32)]),
                lambda: Operation(0, keys, [rows.astype(np.float16)], [np.empty((4, 4), numpy_dtype("bfloat16"))]),
                lambda: Operation(0, keys, outs=[np.empty((4, 4), np.float16)]),
                lambda: Operation(0, keys, sets=[rows, *[None] * (len(streams) - 1)]),
                lambda: Operation(0, keys, outs=[np.empty((4, 4), np.float32)], create=False),
            ):
                both(op)
            for verb, arguments in (
                ("hyper", (None, 0, 1)), ("counters", (0,)), ("find", (0, keys)), ("configure", (None, 0, {0: 0.25})),
                ("hyper", (None, 0, 1)), ("scan", (0, 1, 0, 10, streams)), ("remove", (0, keys[:3], streams)),
                ("counters", (0,)),
            ):  # fmt: skip
                replies = [endpoint.ask(verb, *arguments, timeout=10.0) for endpoint in (near, far)]
                assert values.pack(replies[0]) == values.pack(replies[1]), verb

    def test_a_push_that_arrives_twice_is_applied_once(self) -> None:
        local = a_server()
        with local, self.reach(a_server) as carrier:
            far = RemoteEndpoint(local.spec, (0, 1), carrier)
            push = Operation(grads=[np.ones(30_000), np.ones((3, 5), np.float32)])
            payload = message.payload_of(push, far.layouts.of(None))
            header = message.header_of(push, local.spec, far.layouts.of(None), 5, 1, 10.0)
            messages = message.pieces(header, payload, carrier.limits)
            found = [
                message.versions_of(message.opened(carrier.send(messages).replies(60.0)[-1]), far.layouts.of(None))
                for _ in range(3)
            ]
            assert found == [{0: 1, 1: 1}] * 3
            again = message.pieces(replace(header, number=2), payload, carrier.limits)
            assert message.versions_of(message.opened(carrier.send(again).replies(60.0)[-1]), far.layouts.of(None)) == {
                0: 2,
                1: 2,
            }

    def test_errors_come_as_they_were_raised(self) -> None:
        with a_server() as local, self.reach(a_server) as carrier:
            far = RemoteEndpoint(local.spec, (0, 1), carrier)
            keys = np.arange(5000, dtype=np.uint64)
            too_many = Operation(0, keys, outs=[np.empty((5000, 4), np.float32)])
            full = raised(TableFullError, lambda: far.start(too_many, 10.0).finish())
            assert (full.table, full.capacity > 0) == ("t", True)
            unknown = raised(FastPSError, lambda: far.ask("no such verb", timeout=10.0))
            assert "no such verb" in str(unknown)
