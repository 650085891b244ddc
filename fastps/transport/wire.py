"""How parameters look between nodes: the runs of all shards of one node, one behind the other, as bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from fastps._core import copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastps._core.core import Deposit
    from fastps.spec.server import ServerSpec
    from fastps.transport.contract import Arrays

ALIGNMENT = 8


@dataclass(frozen=True)
class Place:
    """One run on the wire.

    Attributes
    ----------
    offset, nbytes : on the wire
    leaf, start, count : elements of the flattened leaf
    """

    offset: int
    nbytes: int
    leaf: int
    start: int
    count: int


@dataclass(frozen=True)
class Layout:
    """The order of a node's runs on the wire. Both ends compute it from the spec.

    An answer begins with a version for each of `shards`.
    """

    shards: tuple[int, ...]
    places: tuple[Place, ...]
    nbytes: int
    offsets: dict[tuple[int, int], int] = field(default_factory=dict)

    def offset(self, shard: int, number: int) -> int:
        """Where the run `number` of `shard` begins."""
        return self.offsets[shard, number]

    @property
    def head_nbytes(self) -> int:
        return 8 * len(self.shards)

    def versions(self, answer: Any) -> dict[int, int]:
        """From the first bytes of an answer."""
        return dict(zip(self.shards, struct.unpack_from(f"<{len(self.shards)}Q", answer), strict=True))


def packed(versions: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(versions)}Q", *versions)


def layout(spec: ServerSpec, shards: Sequence[int]) -> Layout:
    places, offsets, position = [], {}, 0
    for shard in sorted(shards):
        for number, run in enumerate(spec.plans[shard].runs):
            nbytes = run.count * spec.structure.leaves[run.leaf].item_bytes
            places.append(Place(position, nbytes, run.leaf, run.start, run.count))
            offsets[shard, number] = position
            position += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return Layout(tuple(sorted(shards)), tuple(places), position, offsets)


def gather(layout: Layout, arrays: Arrays) -> np.ndarray[Any, Any]:
    """The arrays' elements as wire bytes; without a copy where they lie that way already."""
    if len(layout.places) == 1:
        place = layout.places[0]
        flat = arrays[place.leaf].reshape(-1)[place.start : place.start + place.count]
        if place.nbytes == layout.nbytes:
            return flat.view(np.uint8)
    return gather_some(layout, arrays)


def gather_some(layout: Layout, arrays: Arrays) -> np.ndarray[Any, Any]:
    """The same for places that need not cover everything: what they leave out is undefined."""
    wire = np.empty(layout.nbytes, np.uint8)
    for place in layout.places:
        flat = arrays[place.leaf].reshape(-1)[place.start : place.start + place.count]
        wire[place.offset : place.offset + place.nbytes] = flat.view(np.uint8)
    return wire


def only(layout: Layout, leaves: Sequence[int]) -> Layout:
    """The places of some leaves, where they are in the whole."""
    wanted = set(leaves)
    return replace(layout, places=tuple(place for place in layout.places if place.leaf in wanted))


def scatter(layout: Layout, start: int, answer: Any, arrays: Arrays) -> None:
    """Wire bytes from `start` on into the arrays."""
    piece = np.frombuffer(answer, np.uint8)
    stop = start + piece.nbytes
    for place in layout.places:
        low, high = max(start, place.offset), min(stop, place.offset + place.nbytes)
        if low < high:
            flat = arrays[place.leaf].reshape(-1)[place.start : place.start + place.count].view(np.uint8)
            copy(flat[low - place.offset : high - place.offset], piece[low - start : high - start])


# How Ray carries a payload fastest, measured between two raylets of one machine (`bench/questions/dense.py`, remote):
# - A reply below `max_direct_call_object_size` travels with the call; a larger one is written to the object store of
#   one node and fetched by the other. Shards are started with that limit at REPLY_BYTES. Replies much larger than that
#   cost more than the object store, which takes over above INLINE_BYTES.
# - An argument of up to PART_BYTES travels with the call, up to 10 MiB of them in one call. These limits are those of
#   the worker's process, which is not ours to configure, so larger payloads are cut; above EAGER_BYTES the object store
#   wins.
PLAIN_BYTES = 100_000
PART_BYTES = 102_400
PARTS_A_CALL = 20
EAGER_BYTES = 10_000_000
REPLY_BYTES = 4 << 20
INLINE_BYTES = 12 << 20
SHARD_ENVIRONMENT = {
    "RAY_max_direct_call_object_size": str(REPLY_BYTES + 65536),
    "RAY_task_rpc_inlined_bytes_limit": str(64 << 20),
    # A reply's buffers are taken from the heap again, not mapped and faulted in anew for each.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(16 << 20),
}


@dataclass(frozen=True)
class Header:
    """What a call says besides its payload. It travels in front of the payload's first bytes: Ray packs every argument
    on its own, at 50 us each, and `bytes` fastest of all.

    Attributes
    ----------
    worker, seq : who calls, and the number of its push
    timeout : seconds left to wait for locks
    pulls : the push answers the parameters
    pulled : behind the gradients come the parameters that the worker had
    scale : of the gradients
    message, messages : which of how many carry this payload
    deposit : into which row gradients go, where updates are applied in rounds: the fields of fps_deposit
    decision : packed, the round that is to be there first; empty: none
    """

    worker: int
    seq: int
    timeout: float
    pulls: bool = False
    message: int = 0
    messages: int = 1
    pulled: bool = False
    scale: float = 1.0
    deposit: Deposit | None = None
    decision: bytes = b""

    FORMAT: ClassVar[struct.Struct] = struct.Struct("<QQdIIIIdIIQQQ")

    @property
    def nbytes(self) -> int:
        return self.FORMAT.size + len(self.decision)

    def numbered(self, message: int, messages: int) -> Header:
        return replace(self, message=message, messages=messages)

    def pack(self) -> bytes:
        rank, number, generation, attempt, round = self.deposit or (0, 0, 0, 0, 0)
        flags = self.pulls | self.pulled << 1
        return (
            self.FORMAT.pack(
                self.worker, self.seq, self.timeout, flags, self.message, self.messages, len(self.decision), self.scale,
                rank, number, generation, attempt, round,
            )
            + self.decision
        )  # fmt: skip

    @classmethod
    def unpack(cls, data: bytes) -> Header:
        worker, seq, timeout, flags, message, messages, length, scale, *place = cls.FORMAT.unpack_from(data)
        rank, number, generation, attempt, round = place
        deposit = (rank, number, generation, attempt, round) if number else None
        decision = bytes(data[cls.FORMAT.size : cls.FORMAT.size + length])
        return cls(worker, seq, timeout, bool(flags & 1), message, messages, bool(flags & 2), scale, deposit, decision)


class Head(Protocol):
    """A header that tells which of how many messages it is on. A dataclass."""

    @property
    def nbytes(self) -> int: ...

    def pack(self) -> bytes: ...

    def numbered(self, message: int, messages: int) -> Head: ...


def messages(payload: np.ndarray[Any, Any], header: Head) -> list[list[Any]]:
    """The arguments of the call, or of the calls in order, that carry a payload."""
    if payload.nbytes <= PLAIN_BYTES:
        return [[header.pack() + payload.tobytes()]]
    if payload.nbytes > EAGER_BYTES:
        return [[header.pack(), payload]]
    view = payload.data
    parts = [bytes(view[i : i + PART_BYTES]) for i in range(0, payload.nbytes, PART_BYTES)]
    calls = [parts[i : i + PARTS_A_CALL] for i in range(0, len(parts), PARTS_A_CALL)]
    return [[header.numbered(i, len(calls)).pack(), *call] for i, call in enumerate(calls)]


class Inbox:
    """Puts the messages of one payload together again."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._parts: list[Any] = []

    def add(self, header: Head, head: bytes, parts: Sequence[Any]) -> None:
        rest = memoryview(head)[header.nbytes :]
        self._parts += [rest, *parts] if rest.nbytes else parts

    def payload(self) -> np.ndarray[Any, Any]:
        """Without a copy where it came in one part."""
        payload = np.frombuffer(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts), np.uint8)
        if payload.nbytes != self._nbytes:
            raise ValueError(f"a payload of {self._nbytes} bytes, of which {payload.nbytes} arrived")
        return payload


def reply(piece: np.ndarray[Any, Any]) -> Any:
    """What a shard answers: small pieces as bytes, which Ray does not pickle."""
    return piece.tobytes() if piece.nbytes <= PLAIN_BYTES else piece


def chunks(nbytes: int) -> list[tuple[int, int]]:
    """The replies in which `nbytes` are fetched: [start, stop) of each."""
    if nbytes <= REPLY_BYTES or nbytes > INLINE_BYTES:
        return [(0, nbytes)]
    return [(i, min(nbytes, i + REPLY_BYTES)) for i in range(0, nbytes, REPLY_BYTES)]
