"""Messages between nodes: a header, a payload that may come in pieces, and replies.

The payload of an operation on arrays is the gradients, or the values to set, as `Layout.gather` lays them out, followed
by the parameters that the worker pulled, if the rule uses them. That of an operation on rows is the keys, then the
gradients or the streams to set. That of a question is the verb and its arguments, packed by `values.pack`.

A reply begins with a status word: DONE or FAILED, followed by an error. The reply to an operation then has the update
count of each shard of the node, then the parameters or rows if it pulls. Further pieces have no status word.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from fastps._core import Decision
from fastps.arrays.types import HALVES, Array, Arrays, numpy_dtype
from fastps.spec.server import ServerSpec
from fastps.spec.table import TableInfo
from fastps.transport.contract import Buffer, Deposit, Limits, Operation
from fastps.transport.layout import Layout
from fastps.transport.values import pack_error, unpack_error

OPERATION, QUESTION, REST = 1, 2, 3
PUSHES, PULLS, CREATES, HAS_PULLED = 1, 2, 4, 8
PARTIAL, INITIAL, STEPS = 1 << 10, 1 << 11, 1 << 12
GIVEN_HALF, READ_HALF, PULLED_HALF = 4, 6, 8  # the bits of flags where two of them say which of HALVES, from 1; 0: none
DONE, FAILED = struct.pack("<Q", 0), struct.pack("<Q", 1)
WHOLE = 2**62  # `stop` of a reply that is fetched in one piece


@dataclass(frozen=True)
class Header:
    """The header of a message, sent in front of the payload's first bytes.

    Attributes
    ----------
    kind : OPERATION; QUESTION; or REST, a further piece of the reply to this client's last operation
    client, number : who sends it, and the sequence number of the operation
    timeout : seconds left to wait for locks
    nbytes : of the payload
    table : its number + 1; 0: the arrays
    flags : PUSHES, PULLS, CREATES; HAS_PULLED: the payload has the parameters that the worker pulled; PARTIAL: it has
        those of `leaves`; INITIAL: it has the values with which the server begins; STEPS: update counts are set, or
        read; and for arrays, in which half precision elements of float32 travel, if any: what is given, what is read,
        what was pulled
    n : number of keys, or of `leaves`
    sets, gets : bit k: stream k is set, or of arrays read. Stream 0 are the parameters, the others the slots, those of
        arrays as in `ServerSpec.slot_names`
    scale : of the gradients
    piece, pieces : which of the messages that carry this payload, and how many there are
    start, stop : the requested bytes of the reply
    deposit : the fields of fps_deposit; None: gradients go to no tray
    decision : packed, the round to which the shards are brought first; empty: none
    leaves : of a partial operation, the numbers of its arrays, sorted
    """

    kind: int
    client: int
    number: int
    timeout: float
    nbytes: int = 0
    table: int = 0
    flags: int = 0
    n: int = 0
    sets: int = 0
    gets: int = 0
    scale: float = 1.0
    piece: int = 0
    pieces: int = 1
    start: int = 0
    stop: int = WHOLE
    deposit: Deposit | None = None
    decision: bytes = b""
    leaves: tuple[int, ...] | None = None

    def half(self, at: int) -> str | None:
        """Which of HALVES the flags say at GIVEN_HALF, READ_HALF or PULLED_HALF."""
        return (None, *HALVES, None)[self.flags >> at & 3]

    FORMAT: ClassVar[struct.Struct] = struct.Struct("<IIQQdQIIQQdIIQQQ5Q")  # a multiple of 8: what follows is aligned

    @property
    def size(self) -> int:
        return self.FORMAT.size + len(self.decision) + len(self._packed_leaves)

    @property
    def _packed_leaves(self) -> bytes:
        """A multiple of 8 bytes."""
        leaves = self.leaves or ()
        return struct.pack(f"<{len(leaves) + len(leaves) % 2}I", *leaves, *[0] * (len(leaves) % 2))

    def pack(self) -> bytes:
        return (
            self.FORMAT.pack(
                self.kind, self.table, self.client, self.number, self.timeout, self.nbytes, self.flags, self.n,
                self.sets, self.gets, self.scale, self.piece, self.pieces, self.start, self.stop, len(self.decision),
                *(self.deposit or (0,) * 5),
            )
            + self.decision
            + self._packed_leaves
        )  # fmt: skip

    @classmethod
    def unpack(cls, data: Buffer) -> Header:
        """Raises ValueError for what `pack` does not make."""
        if len(data) < cls.FORMAT.size:
            raise ValueError(f"a header of {len(data)} bytes")
        (
            kind, table, client, number, timeout, nbytes, flags, n, sets, gets, scale, piece, pieces, start, stop,
            length, *place,
        ) = cls.FORMAT.unpack_from(data)  # fmt: skip
        decision = bytes(data[cls.FORMAT.size : cls.FORMAT.size + length])
        if len(decision) != length or kind not in (OPERATION, QUESTION, REST) or piece >= pieces or start > stop:
            raise ValueError("a header that does not fit its message")
        if length % 8 or not timeout >= 0:  # NaN included
            raise ValueError(f"a header with a decision of {length} bytes and a timeout of {timeout} s")
        leaves = None
        if flags & PARTIAL and table == 0:
            start_of = cls.FORMAT.size + length
            if len(data) < start_of + (n + n % 2) * 4:
                raise ValueError(f"a header without the {n} arrays of its operation")
            leaves = struct.unpack_from(f"<{n}I", data, start_of)
        rank, gradient, generation, attempt, round = place
        deposit = (rank, gradient, generation, attempt, round) if gradient else None  # gradients count from 1
        return cls(
            kind, client, number, timeout, nbytes, table, flags, n, sets, gets, scale, piece, pieces, start, stop,
            deposit, decision, leaves,
        )  # fmt: skip


def header_of(
    operation: Operation, spec: ServerSpec, layout: Layout, client: int, number: int, timeout: float
) -> Header:
    flags = (
        (PUSHES if operation.grads is not None else 0)
        | (PULLS if operation.outs is not None else 0)
        | (CREATES if operation.create else 0)
        | (HAS_PULLED if operation.pulled is not None else 0)
        | (PARTIAL if operation.leaves is not None else 0)
        | (INITIAL if operation.initial else 0)
        | (STEPS if operation.steps is not None else 0)
    )
    rows = operation.table is not None
    for at, values in ((GIVEN_HALF, given(operation)), (READ_HALF, read(operation)), (PULLED_HALF, [operation.pulled])):
        if values and values[0] is not None:
            half = half_name(values[0][0]) if rows else layout.half_of(*values)
            flags |= HALVES.index(half) + 1 << at if half else 0
    return Header(
        OPERATION, client, number, timeout,
        table=0 if operation.table is None else operation.table + 1, flags=flags,
        n=len(operation.keys if operation.keys is not None else operation.leaves or ()),
        sets=streams_of(operation.sets), gets=streams_of(operation.gets), scale=operation.scale,
        deposit=operation.deposit, decision=b"" if operation.decision is None else operation.decision.pack(),
        leaves=operation.leaves,
    )  # fmt: skip


def streams_of(values: list[Any] | None) -> int:
    """Bit k: stream k is among them."""
    return sum(1 << k for k, stream in enumerate(values or ()) if stream is not None)


def reads_steps(header: Header) -> bool:
    """Whether update counts are read."""
    return bool(header.flags & STEPS) and not header.sets


def given(operation: Operation) -> list[Arrays]:
    """What changes arrays or rows: the gradients, or of arrays what is set for each stream."""
    if operation.grads is not None or operation.table is not None:
        return [] if operation.grads is None else [operation.grads]
    return [arrays for arrays in operation.sets or () if arrays is not None]


def read(operation: Operation) -> list[Arrays]:
    """What is read: the values, or of arrays each stream."""
    if operation.gets is None:
        return [] if operation.outs is None else [operation.outs]
    return [arrays for arrays in operation.gets if arrays is not None]


def require_operation(header: Header, spec: ServerSpec) -> None:
    """Raises ValueError for a header that `header_of` does not make: what executes operations takes for granted that
    all arrays which it reads and writes are there."""
    pushes, pulls, pulled = header.flags & PUSHES, header.flags & PULLS, header.flags & HAS_PULLED
    rounds, problem, reads = spec.consistency.rounds, None, header.gets or reads_steps(header)
    halves = [header.flags >> at & 3 for at in (GIVEN_HALF, READ_HALF, PULLED_HALF)]
    if header.number == 0 or header.flags >= STEPS << 1 or max(halves) > len(HALVES):
        problem = f"with the number {header.number} and the flags {header.flags}"
    elif any(
        half and not present
        for half, present in zip(
            halves, (pushes or (header.sets and not header.table), pulls or header.gets, pulled), strict=True
        )
    ):
        problem = f"with the flags {header.flags:#x} for elements that it does not have"
    elif bool(header.sets) + bool(reads) + bool(pushes or pulls) != 1:
        problem = "that does not either set, or read streams, or push and pull"
    elif header.table > len(spec.tables):
        problem = f"on table {header.table} of {len(spec.tables)}"
    elif header.table:
        info = spec.tables[header.table - 1]
        if header.sets >> len(info.streams):
            problem = f"that sets unknown streams {header.sets:#b}"
        elif any(halves) and info.dtype != "float32":
            problem = f"of half precision on a table of {info.dtype}"
        elif pulled or header.gets or header.deposit or header.decision or header.flags & (PARTIAL | INITIAL | STEPS):
            problem = "on rows, with what belongs to arrays"
    elif header.n != len(header.leaves or ()):
        problem = f"on arrays, with {header.n} keys"
    elif header.leaves is not None and not are_leaves(header.leaves, spec):
        problem = f"on arrays {header.leaves[:8]}"
    elif (header.sets | header.gets) >> (1 + len(spec.slot_names())):
        problem = f"on unknown slots {header.sets | header.gets:#b}"
    elif header.flags & INITIAL and (not header.sets or header.leaves is not None):
        problem = "that begins a server with something else than values of all arrays"
    elif bool(pulled) != bool(pushes and any(rule.uses_pulled for rule in spec.rules)):
        problem = "with pulled parameters and a rule without, or the other way round"
    elif bool(header.deposit) != bool(pushes and rounds) or (header.deposit and pulls):
        problem = "with a place in a tray that is no push in rounds, or the other way round"
    elif header.decision and not rounds:
        problem = "with a decision on a server without rounds"
    if problem:
        raise ValueError(f"an operation {problem}")


def are_leaves(numbers: tuple[int, ...], spec: ServerSpec) -> bool:
    """Whether they are numbers of arrays, sorted, each once."""
    ascending = all(one < other for one, other in pairwise(numbers))
    return ascending and (not numbers or numbers[-1] < len(spec.structure.leaves))


def payload_of(operation: Operation, layout: Layout) -> Array:
    """The bytes after the header."""
    if operation.table is None:
        changes, pulled = given(operation), operation.pulled
        half = layout.half_of(*changes)
        parts = [layout.gather(arrays, half) for arrays in changes]
        if pulled is not None:
            parts.append(layout.gather(pulled, layout.half_of(pulled)))
        if operation.steps is not None and operation.sets is not None:
            parts += [operation.steps[shard].view(np.uint8) for shard in layout.runs]
    else:
        rows = [array for array in [*(operation.grads or []), *(operation.sets or [])] if array is not None]
        parts = [array.reshape(-1).view(np.uint8) for array in (operation.keys, *rows)]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint8), *parts])


def nbytes_of(header: Header, layout: Layout, info: TableInfo | None) -> int:
    """The size of a payload with this header, in bytes."""
    if info is None:
        streams = 1 if header.flags & PUSHES else header.sets.bit_count()
        given = layout.nbytes(header.half(GIVEN_HALF)) * streams
        given += 8 * len(layout.places) if header.flags & STEPS and header.sets else 0
        return given + (layout.nbytes(header.half(PULLED_HALF)) if header.flags & HAS_PULLED else 0)
    elements = [elements for _, elements in info.streams]
    each = info.item_bytes * sum(count for k, count in enumerate(elements) if header.sets >> k & 1)
    if header.flags & PUSHES:
        each += elements[0] * row_dtype(info, header.half(GIVEN_HALF)).itemsize
    return header.n * (8 + each)


def half_name(array: Array) -> str | None:
    """Which of HALVES the elements are, if any."""
    name = array.dtype.name
    return name if name in HALVES else None


def row_dtype(info: TableInfo, half: str | None) -> np.dtype[Any]:
    """The type in which rows travel."""
    return numpy_dtype(half or info.dtype)


@dataclass(frozen=True)
class Received:
    """An operation that has arrived, whose arrays refer to its payload, with memory for the reply.

    Attributes
    ----------
    operation : its `outs` refer to `reply`
    reply : the whole reply, whose first `reply_head` bytes are still to be written
    """

    operation: Operation
    reply: Array = field(repr=False)


def received(header: Header, payload: Array, layout: Layout, spec: ServerSpec) -> Received:
    """The operation of a payload, whose header `require_operation` has accepted. `layout` is that of the node;
    operations on arrays have its two buffers."""
    pushes, pulls, head = header.flags & PUSHES, header.flags & PULLS, reply_head(layout)
    decision = Decision.unpack(header.decision) if header.decision else None
    if header.table == 0:
        out_half, in_half = header.half(READ_HALF), header.half(GIVEN_HALF)
        out_bytes, in_bytes = layout.nbytes(out_half), layout.nbytes(in_half)
        reply = np.empty(head + reply_bytes(header, layout), np.uint8)
        gets_end, sets_end = head + header.gets.bit_count() * out_bytes, header.sets.bit_count() * in_bytes
        steps = None
        if header.flags & STEPS:
            steps = layout.steps(payload[sets_end:] if header.sets else reply[gets_end:])
        sets = _streams(header.sets, lambda k: layout.buffers(payload[k * in_bytes :], in_half))
        gets = _streams(header.gets, lambda k: layout.buffers(reply[head + k * out_bytes :], out_half))
        pulled = layout.buffers(payload[in_bytes:], header.half(PULLED_HALF))
        return Received(
            Operation(
                grads=layout.buffers(payload, in_half) if pushes else None,
                outs=layout.buffers(reply[head:], out_half) if pulls else None,
                sets=sets, gets=[] if gets is None and reads_steps(header) else gets,
                steps=steps, initial=bool(header.flags & INITIAL),
                pulled=pulled if header.flags & HAS_PULLED else None,
                scale=header.scale, decision=decision, deposit=header.deposit, leaves=header.leaves,
            ),
            reply,
        )  # fmt: skip
    info, position = spec.tables[header.table - 1], 8 * header.n

    def take(stream: int, dtype: np.dtype[Any]) -> Array:
        nonlocal position
        elements = info.streams[stream][1]
        start, position = position, position + header.n * elements * dtype.itemsize
        return payload[start:position].view(dtype).reshape(header.n, elements)

    keys = payload[:position].view(np.uint64)
    stored, out_dtype = row_dtype(info, None), row_dtype(info, header.half(READ_HALF))
    grads = [take(0, row_dtype(info, header.half(GIVEN_HALF)))] if pushes else None
    sets = (
        [take(k, stored) if header.sets >> k & 1 else None for k in range(len(info.streams))] if header.sets else None
    )
    reply = np.empty(head + (header.n * info.dim * out_dtype.itemsize if pulls else 0), np.uint8)
    outs = [reply[head:].view(out_dtype).reshape(header.n, info.dim)] if pulls else None
    create = bool(header.flags & CREATES)
    return Received(Operation(header.table - 1, keys, grads, outs, sets, scale=header.scale, create=create), reply)


def _streams(wanted: int, nth: Callable[[int], Arrays]) -> list[Any] | None:
    """For each stream its buffers, those of the nth one that is wanted; None if none is."""
    if not wanted:
        return None
    before = [(wanted & ((1 << k) - 1)).bit_count() for k in range(wanted.bit_length())]
    return [nth(before[k]) if wanted >> k & 1 else None for k in range(wanted.bit_length())]


def pieces(header: Header, payload: Array, limits: Limits) -> list[list[Buffer]]:
    """The messages that carry a payload, in order."""
    header = replace(header, nbytes=payload.nbytes)
    if payload.nbytes <= limits.joined:
        return [[header.pack() + payload.tobytes()]]
    if payload.nbytes > limits.eager:
        return [[header.pack(), payload]]
    view = payload.data
    parts = [bytes(view[i : i + limits.part]) for i in range(0, payload.nbytes, limits.part)]
    most = limits.parts or len(parts)
    messages = [parts[i : i + most] for i in range(0, len(parts), most)]
    return [
        [replace(header, piece=i, pieces=len(messages)).pack(), *message] for i, message in enumerate(messages)
    ]  # fmt: skip


def cuts(nbytes: int, limits: Limits) -> list[tuple[int, int]]:
    """The pieces in which a reply of `nbytes` is fetched: [start, stop) of each."""
    if nbytes <= limits.reply or nbytes > limits.inline:
        return [(0, WHOLE)]
    return [(i, min(nbytes, i + limits.reply)) for i in range(0, nbytes, limits.reply)]


class Inbox:
    """Reassembles a payload from its messages."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._parts: list[Buffer] = []

    def add(self, rest: Buffer, parts: Sequence[Buffer]) -> None:
        """Adds one message: the bytes after the header in its buffer, and the other parts."""
        self._parts += [rest, *parts] if len(rest) else parts

    def payload(self) -> Array:
        """The payload, without a copy if it came in one part. Raises ValueError when its length is wrong."""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        payload = np.frombuffer(data, np.uint8)
        if payload.nbytes != self._nbytes:
            raise ValueError(f"a payload of {self._nbytes} bytes, of which {payload.nbytes} arrived")
        return payload


def reply_bytes(header: Header, layout: Layout) -> int:
    """The bytes behind `reply_head` in the reply to an operation on arrays."""
    streams = 1 if header.flags & PULLS else header.gets.bit_count()
    return streams * layout.nbytes(header.half(READ_HALF)) + (8 * len(layout.places) if reads_steps(header) else 0)


def reply_head(layout: Layout) -> int:
    """The bytes in front of the parameters or rows in a reply."""
    return len(DONE) + 8 * len(layout.shards)


def packed_versions(versions: Sequence[int]) -> bytes:
    return DONE + struct.pack(f"<{len(versions)}Q", *versions)


def failure(error: BaseException, where: str) -> bytes:
    return FAILED + pack_error(error, where)


def opened(reply: Buffer) -> memoryview:
    """The reply without its status word. If it is an error, raises that."""
    view = memoryview(reply).cast("B")
    if view[: len(DONE)] == FAILED:
        raise unpack_error(view[len(FAILED) :])
    return view[len(DONE) :]


def versions_of(body: Buffer, layout: Layout) -> dict[int, int]:
    """The update counts in a reply without its status word, by shard."""
    return dict(zip(layout.shards, struct.unpack_from(f"<{len(layout.shards)}Q", body), strict=True))
