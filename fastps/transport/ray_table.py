"""Tables on another node: Ray carries the operation to one of the node's shard processes.

A push carries a worker's number and a sequence number, so that one sent twice, after a lost connection, is applied
once. Both ends of the wire are here: `RayTable`, and `TableGateway` in the shard's process.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastps._core import Outcome
from fastps.cluster import ray as cluster
from fastps.deadline import deadline_after, left_until
from fastps.errors import TableFullError, WaitTimeoutError
from fastps.transport import wire
from fastps.transport.contract import TableWork
from fastps.transport.once import Numbers, Once, Sending
from fastps.transport.shm_table import ShmTable

if TYPE_CHECKING:
    from fastps.shard.eviction import Eviction
    from fastps.spec.server import ServerSpec
    from fastps.spec.table import TableInfo


@dataclass(frozen=True)
class Header:
    """What a call says besides its payload: keys, then gradients or what streams are set to, as bytes.

    Attributes
    ----------
    table : its number
    worker, seq : who calls, and the number of its push
    n : keys
    timeout : seconds left
    pushes, pulls, create : what is done
    sets : bit k: stream k is set
    scale : of the gradients
    message, messages : which of how many carry this payload
    """

    table: int
    worker: int
    seq: int
    n: int
    timeout: float
    pushes: bool
    pulls: bool
    create: bool
    sets: int
    scale: float
    message: int = 0
    messages: int = 1

    FORMAT: ClassVar[struct.Struct] = struct.Struct("<IQQQdIIdII4x")  # a multiple of 8, so that what follows is aligned

    @property
    def nbytes(self) -> int:
        return self.FORMAT.size

    def numbered(self, message: int, messages: int) -> Header:
        return replace(self, message=message, messages=messages)

    def pack(self) -> bytes:
        flags = self.pushes | self.pulls << 1 | self.create << 2
        return self.FORMAT.pack(
            self.table, self.worker, self.seq, self.n, self.timeout, flags, self.sets, self.scale, self.message,
            self.messages,
        )  # fmt: skip

    @classmethod
    def unpack(cls, head: bytes) -> Header:
        table, worker, seq, n, timeout, flags, sets, scale, message, messages = cls.FORMAT.unpack_from(head)
        return cls(
            table, worker, seq, n, timeout, bool(flags & 1), bool(flags & 2), bool(flags & 4), sets, scale, message,
            messages,
        )  # fmt: skip


def payload_bytes(info: TableInfo, header: Header) -> int:
    streams = [elements for _, elements in info.streams]
    set_elements = sum(elements for k, elements in enumerate(streams) if header.sets >> k & 1)
    elements = set_elements + (streams[0] if header.pushes else 0)
    return header.n * (8 + elements * info.item_bytes)


class RayTable:
    """Reaches a table's part on the shards of one other node. See contract.TableTransport."""

    def __init__(self, spec: ServerSpec, number: int, shards: tuple[int, ...], gateway: int, what: str) -> None:
        self.shards, self.info, self.number = shards, spec.tables[number], number
        self._spec, self._gateway, self.numbers, self._timeout = spec, gateway, Numbers(), spec.timeout
        self.what = f"table `{self.info.name}` on {what}"

    @property
    def gateway(self) -> Any:
        return cluster.actor_of(self._spec, self._gateway)

    def start(
        self, work: TableWork, timeout: float | None, resume: Any = None, outcome: Outcome | None = None
    ) -> TableOperation:
        cluster.actor_of(self._spec, self._gateway)  # raises before anything has begun
        return TableOperation(self, work, self._timeout if timeout is None else timeout, resume, outcome)

    def _ask(self, verb: str, timeout: float | None, *arguments: Any, outcome: Outcome | None = None) -> Any:
        limit, gateway = self._timeout if timeout is None else timeout, self.gateway
        if outcome is not None:
            outcome.begin(self.shards)
        answer = cluster.get(gateway.table.remote(verb, self.number, *arguments, limit), limit, self.what)
        if outcome is not None:
            outcome.end(self.shards)
        return answer

    def find(self, keys: Any, timeout: float | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
        found: np.ndarray[Any, np.dtype[np.bool_]] = self._ask("find", timeout, keys)
        return found

    def seen(self, keys: Any, timeout: float | None) -> tuple[Any, Any]:
        ages, counts = self._ask("seen", timeout, keys)
        return ages, counts

    def remove(
        self, keys: Any, wanted: list[bool], timeout: float | None, outcome: Outcome | None = None
    ) -> tuple[Any, list[Any]]:
        removed, streams = self._ask("remove", timeout, keys, wanted, outcome=outcome)
        return removed, streams

    def scan(
        self, shard: int, cursor: int, most: int, wanted: list[bool], timeout: float | None
    ) -> tuple[Any, list[Any], int]:
        keys, streams, cursor = self._ask("scan", timeout, shard, cursor, most, wanted)
        return keys, streams, cursor

    def configure(self, values: dict[int, float], timeout: float, outcome: Outcome) -> None:
        self._ask("configure", timeout, values, outcome=outcome)

    def hyper(self, count: int, timeout: float) -> list[float]:
        values: list[float] = self._ask("hyper", timeout, count)
        return values

    def counters(self, timeout: float | None) -> dict[int, dict[str, int]]:
        counted: dict[int, dict[str, int]] = self._ask("counters", timeout)
        return counted


class TableOperation:
    """A call under way, or a few that carry one payload."""

    def __init__(self, table: RayTable, work: TableWork, timeout: float, resume: Any, outcome: Outcome | None) -> None:
        self._table, self._work, self._deadline = table, work, deadline_after(timeout)
        streams = [stream for stream in work.sets or [] if stream is not None]
        arrays = [work.keys, *([] if work.grads is None else [work.grads]), *streams]
        flat = [array.reshape(-1).view(np.uint8) for array in arrays]
        self._payload = flat[0] if len(flat) == 1 else np.concatenate(flat)
        self._changes = work.grads is not None or work.sets is not None
        self._worker: int
        self._seq: int
        self._worker, self._seq = table.numbers.take() if resume is None else resume
        what = f"{'push to' if self._changes else 'pull from'} {table.what}"
        self._sending = Sending(
            self._send, self._deadline, what, self._timed_out, table.shards, outcome if self._changes else None
        )

    def _send(self) -> list[Any]:
        work = self._work
        sets = sum(1 << k for k, stream in enumerate(work.sets or []) if stream is not None)
        header = Header(
            self._table.number, self._worker, self._seq, len(work.keys), left_until(self._deadline),
            work.grads is not None, work.outs is not None, work.create, sets, work.scale,
        )  # fmt: skip
        calls = wire.messages(self._payload, header)
        return [self._table.gateway.table_rows.remote(*parts) for parts in calls]

    def finish(self) -> dict[int, int]:
        answer = memoryview(self._answer())
        shards, outs = self._table.shards, self._work.outs
        self._table.numbers.give_back(self._worker, self._seq)
        if outs is not None:
            outs.reshape(-1).view(np.uint8)[:] = np.frombuffer(answer, np.uint8)[8 * len(shards) :]
        return dict(zip(shards, struct.unpack_from(f"<{len(shards)}Q", answer), strict=True))

    def _answer(self) -> Any:
        try:
            return self._sending.answers()[-1]
        except TableFullError as error:  # a part of a push may be applied: it goes on under its number
            error.resume = (self._worker, self._seq) if self._changes else None
            raise

    def _timed_out(self, text: str) -> WaitTimeoutError:
        if not self._changes:
            return WaitTimeoutError(text)
        return WaitTimeoutError(
            f"{text}; the push may be applied later: push the same keys and gradients with resume=error.resume to be "
            f"sure",
            partial=self._table.shards,
            resume=(self._worker, self._seq),
        )


class TableGateway:
    """The other end, in a shard's process: executes calls for all shards of its node."""

    def __init__(self, label: str, tables: list[ShmTable], evictions: dict[int, Eviction]) -> None:
        self._tables, self._evictions, self._once = tables, evictions, Once(label)

    def ask(self, verb: str, number: int, *arguments: Any) -> Any:
        table = self._tables[number]
        verbs: dict[str, Any] = {
            "find": table.find, "seen": table.seen, "remove": table.remove, "scan": table.scan,
            "configure": lambda values, timeout: table.configure(values, timeout, Outcome()),
            "make_room": self._make_room(number), "hyper": table.hyper, "counters": table.counters,
        }  # fmt: skip
        return verbs[verb](*arguments)

    def _make_room(self, number: int) -> Any:
        eviction = self._evictions.get(number)
        return None if eviction is None else eviction.make_room

    def rows(self, head: bytes, *parts: Any) -> Any:
        """An operation on rows, once for each (worker, seq): the versions as bytes, then the rows if it pulls."""
        header = Header.unpack(head)
        table = self._tables[header.table]
        payload = self._once.payload(header, head, parts, payload_bytes(table.info, header))
        if payload is None:
            return None
        work = self._work(table.info, header, payload)
        versions = self._once.applied(header) if header.pushes or header.sets else None
        if versions is not None and header.pulls:
            table.start(TableWork(work.keys, outs=work.outs, create=False), header.timeout)
        elif versions is None and (header.pushes or header.sets):
            _, versions = self._once.run(header, lambda token: (None, self._run(table, work, header, token)))
        elif versions is None:
            versions = self._run(table, work, header, None)
        if work.outs is None:
            return versions
        return wire.reply(np.concatenate([np.frombuffer(versions, np.uint8), work.outs.reshape(-1).view(np.uint8)]))

    @staticmethod
    def _run(table: ShmTable, work: TableWork, header: Header, token: Any) -> bytes:
        outcome = Outcome()
        try:
            done = table.start(work, header.timeout, token, outcome)
        except BaseException as error:
            outcome.tell(error)
            raise
        return wire.packed([done.finish()[shard] for shard in table.shards])

    @staticmethod
    def _work(info: TableInfo, header: Header, payload: Any) -> TableWork:
        """The arrays of a payload, without a copy."""
        n, position = header.n, 8 * header.n
        keys = payload[:position].view(np.uint64)

        def take(stream: int) -> Any:
            nonlocal position
            elements = info.streams[stream][1]
            nbytes = n * elements * info.item_bytes
            array = payload[position : position + nbytes].view(info.dtype).reshape(n, elements)
            position += nbytes
            return array

        grads = take(0) if header.pushes else None
        sets = [take(k) if header.sets >> k & 1 else None for k in range(len(info.streams))] if header.sets else None
        return TableWork(keys, grads, info.empty(n) if header.pulls else None, sets, header.create, header.scale)
