"""The Ray actor that owns an arena.

It creates the arena, keeps it alive, and executes operations for workers on other nodes: on its own shard, and, since
all shards of one node are asked in one call, on its neighbours' too, whose arenas it maps like any worker does. Methods
run one at a time on the actor's main thread.
"""

from __future__ import annotations

import math
import os
from functools import partial
from typing import Any

import numpy as np
import ray

from fastps._core import Arena, Decision, Group, Outcome, table_row_bytes
from fastps.cluster import ray as cluster
from fastps.cluster.by_value import unpacked
from fastps.consistency import Consistency
from fastps.errors import UnavailableError
from fastps.kernels.cache import image_of
from fastps.kernels.image import KernelImage
from fastps.kernels.loader import host_cpu
from fastps.machine import capacity
from fastps.rules import Rule
from fastps.rules.assignment import Assignment
from fastps.shard.coordinator import MAX_PARKED, Coordinator
from fastps.shard.eviction import Eviction
from fastps.spec.arrays import Structure
from fastps.spec.server import ServerSpec, ShardAddress, kernels_of
from fastps.spec.table import MAX_ROWS, Life, TableInfo
from fastps.transport import shm, wire
from fastps.transport.contract import MIXED
from fastps.transport.once import PAYLOADS, Once, Recent
from fastps.transport.ray_table import TableGateway
from fastps.transport.shm import group_of, open_arena, this_machine
from fastps.transport.shm_table import ShmTable, require_alive


class Shard:
    """State of the actor. Wrapped by `shard_actor`, so that importing this module starts nothing."""

    def __init__(self, index: int, count: int) -> None:
        self._index = index
        self._label = f"shard {index} of {count}"
        self._count = count
        self._arena: Arena | None = None
        self._spec: ServerSpec | None = None
        self._group: Group | None = None
        self._arenas: dict[int, Arena] = {}
        self._layout = wire.Layout((), (), 0)
        self._initial: list[list[float]] = []  # of the slots, per kernel
        self._tables = TableGateway(self._label, [], {})
        self._lives: dict[int, Life] = {}
        self._kernels: tuple[KernelImage, ...] = ()
        self._array_values: list[tuple[Any, ...]] = []  # of the hyper-parameters of the rules of arrays
        self._table_values: list[tuple[Any, ...]] = []  # and of tables
        self._handle: Any = None
        self._published = False
        self._once = Once(self._label)
        self._answers: Recent[Any] = Recent(PAYLOADS)
        self._coordinator: Any = None
        self._coordinators = 0  # that were ever started

    def prepare(
        self,
        structure: Structure,
        params_bytes: int,
        functions: bytes,
        clips: bool,
        max_sessions: int,
        isolated: bool,
        max_workers: int,
        consistency: Consistency,
    ) -> capacity.Need:
        """Compiles the rules for this node; what the arena takes, and of how much memory. `functions` are those of the
        arrays and of the tables."""
        assignment: Assignment
        tables: tuple[tuple[TableInfo, Rule, Life], ...]
        assignment, tables = unpacked(functions)
        needed = kernels_of(structure, assignment.of_leaf)
        self._kernels = tuple(image_of(assignment.rules[rule], dtype, clips=clips) for rule, dtype in needed)
        self._kernels += tuple(
            image_of(rule, info.dtype, "row" if rule.family.for_rows else "dense", clips) for info, rule, _ in tables
        )
        local = consistency.local  # slots are where the rule is applied
        n_slots = 0 if local else assignment.n_slots
        self._initial = [[] if local else list(assignment.rules[rule].slots.values()) for rule, _ in needed]
        self._lives = {i: life for i, (_, _, life) in enumerate(tables) if life.ends}
        self._table_values = [rule.values for _, rule, _ in tables]
        layouts = [info.layout(self._most_rows(info)) for info, _, _ in tables]
        self._array_values = [rule.values for rule in assignment.rules]
        self._create = partial(
            Arena.create, label=self._label, shard_index=self._index, shard_count=self._count,
            params_bytes=params_bytes, max_sessions=max_sessions, isolated=isolated, n_slots=n_slots,
            max_workers=max_workers, policy=consistency.policy, tables=layouts,
        )  # fmt: skip
        size = Arena.size(params_bytes, max_sessions, n_slots, max_workers, consistency.policy, layouts)
        return capacity.Need(self._label, ray.get_runtime_context().get_node_id(), size, capacity.available_bytes())

    def create(self) -> ShardAddress:
        """Allocates the arena and says where it is."""
        arena_id = os.urandom(16)
        self._arena = self._create(arena_id)
        for row, values in enumerate(self._array_values):
            numbers = {i: v if isinstance(v, float) else math.nan for i, v in enumerate(values)}
            self._arena.configure(row, numbers, 1.0)
        here = ray.get_runtime_context()
        return ShardAddress(
            self._index, here.get_node_id(), here.get_actor_id(), this_machine(), os.getpid(), self._arena.fd, arena_id,
            self._kernels, host_cpu(),
        )  # fmt: skip

    def _most_rows(self, info: TableInfo) -> int:
        """The most rows that a table may have here: what memory there is, unless somebody said less."""
        row_bytes = table_row_bytes(info.layout(1))
        if info.capacity is not None:
            capacity.require(info.capacity * row_bytes, f"{self._label}, table `{info.name}` of {info.capacity:,} rows")
            return info.capacity
        return max(1, min(MAX_ROWS, capacity.available_bytes() // row_bytes))

    def join(self, spec: ServerSpec) -> None:
        """Learns of the whole server and maps the arenas of its own node."""
        self._spec = spec
        self._arenas = {}
        for address in spec.addresses:
            if address.node_id == spec.addresses[self._index].node_id:
                mine = address.index == self._index
                assert self._arena is not None
                self._arenas[address.index] = self._arena if mine else open_arena(address, spec.label(address.index))
        self._layout = wire.layout(spec, tuple(self._arenas))
        self._group = group_of(
            spec, self._arenas, buffers=1, offset=lambda shard, number: (0, self._layout.offset(shard, number))
        )
        self._group.begin(list(self._arenas).index(self._index), self._initial)
        tables = [ShmTable(spec, self._group, number, self._arenas) for number in range(len(spec.tables))]
        for table, values in zip(tables, self._table_values, strict=True):
            table.configure({i: v if isinstance(v, float) else math.nan for i, v in enumerate(values)}, 1.0, Outcome())
        evictions = {i: Eviction(tables[i], self._index, life) for i, life in self._lives.items()}
        for eviction in evictions.values():
            eviction.start()
        self._tables = TableGateway(self._label, tables, evictions)

    def publish(self) -> None:
        """The initial values are in place: others may find the server by its name."""
        self._published = True

    def spec(self) -> ServerSpec | None:
        """What `fastps.get` makes a handle from; None until the server is complete."""
        return self._spec if self._published else None

    def fill(self, payload: Any) -> None:
        """Sets the parameters of all shards of this node, before anybody uses them."""
        assert self._group is not None
        assert payload.nbytes == self._layout.nbytes
        self._group.fill([payload])

    def pull(self, head: bytes) -> Any:
        """All shards of this node as bytes in wire order: the first chunk of them."""
        assert self._group is not None
        header = wire.Header.unpack(head)
        answer, out = self._room()
        decision = self._decision(header.decision)
        if decision is None and self._rounds and 0 in self._arenas:
            decision = self._arenas[0].decision()
        self._head(answer, self._group.run(None, [out], header.timeout, decision=decision))
        return self._answer(header.worker, answer)

    @property
    def _rounds(self) -> bool:
        return self._spec is not None and self._spec.consistency.rounds

    @staticmethod
    def _decision(packed: bytes) -> Decision | None:
        return Decision.unpack(packed) if packed else None

    def reach(self, packed: bytes, timeout: float) -> bool:
        """Brings all shards of this node to a round that has closed. False when a newer decision knows more."""
        assert self._group is not None
        return self._group.run(None, None, timeout, decision=self._decision(packed)) != ()

    def decision(self) -> bytes:
        """The last round that closed. On the node of shard 0."""
        return self._arenas[0].decision().pack()

    def _room(self) -> tuple[Any, Any]:
        """For an answer, and the part of it where parameters go."""
        answer = np.empty(self._layout.head_nbytes + self._layout.nbytes, np.uint8)
        return answer, answer[self._layout.head_nbytes :]

    def _head(self, answer: Any, versions: tuple[int, ...]) -> bytes:
        head = wire.packed(versions or [MIXED] * len(self._layout.shards))
        if answer is not None:
            answer[: len(head)] = np.frombuffer(head, np.uint8)
        return head

    def push(self, head: bytes, *parts: Any) -> Any:
        """Applies a push to all shards of this node, once for each (worker, seq), and answers the result if asked.

        A payload that comes in several messages is kept until the last one.
        """
        assert self._group is not None
        header = wire.Header.unpack(head)
        payload = self._once.payload(header, head, parts, self._layout.nbytes * (1 + header.pulled))
        if payload is None:
            return None
        answer, versions = None, self._once.applied(header)
        if versions is None:
            answer, versions = self._once.run(header, lambda token: self._apply(header, payload, token))
        if not header.pulls:
            return versions
        return self.pull(head) if answer is None else self._answer(header.worker, answer)

    def _apply(self, header: wire.Header, payload: Any, token: Any) -> tuple[Any, bytes]:
        """The parameters if the push pulls, and the versions. One that goes on answers no parameters."""
        assert self._group is not None
        answer, out = self._room() if header.pulls and token is None else (None, None)
        pulled = [payload[self._layout.nbytes :]] if header.pulled else None
        outs = None if out is None else [out]
        outcome = Outcome()
        try:
            versions = self._group.run(
                [payload], outs, header.timeout, token, pulled, header.scale,
                decision=self._decision(header.decision), deposit=header.deposit, outcome=outcome,
            )  # fmt: skip
        except BaseException as error:
            outcome.tell(error)
            raise
        return answer, self._head(answer, versions)

    def chunk(self, worker: int, number: int) -> Any:
        """A further chunk of the answer to this worker's last pull."""
        if worker not in self._answers:
            raise UnavailableError(f"{self._label}: the rest of an answer was dropped; ask again")
        chunks = wire.chunks(self._layout.head_nbytes + self._layout.nbytes)
        start, stop = chunks[number]
        piece = self._answers[worker][start:stop]
        if number == len(chunks) - 1:
            del self._answers[worker]
        return piece

    def _answer(self, worker: int, out: Any) -> Any:
        chunks = wire.chunks(out.nbytes)
        if len(chunks) > 1:
            self._answers.put(worker, out)
        return wire.reply(out[: chunks[0][1]])

    def table_rows(self, head: bytes, *parts: Any) -> Any:
        """Pulls, pushes or sets rows of a table on all shards of this node."""
        return self._tables.rows(head, *parts)

    def table(self, verb: str, number: int, *arguments: Any) -> Any:
        """Anything else about a table on all shards of this node."""
        return self._tables.ask(verb, number, *arguments)

    def slot(self, name: str, timeout: float) -> tuple[tuple[int, ...], Any]:
        """The versions, and a slot of all shards of this node as bytes in wire order; what has no such slot is
        undefined. No versions when the shards are at different rounds."""
        assert self._group is not None
        assert self._spec is not None
        out = np.zeros(self._layout.nbytes, np.uint8)
        return self._group.run(None, [out], timeout, streams=self._spec.streams(name)), out

    def set_slot(self, name: str, timeout: float, payload: Any) -> None:
        assert self._group is not None
        assert self._spec is not None
        self._group.run([payload], None, timeout, streams=self._spec.streams(name))

    def configure(self, row: int, values: dict[int, float], timeout: float) -> None:
        """Of all shards of this node."""
        shm.configure(self._arenas, row, values, timeout)

    def hyper(self, row: int, count: int) -> list[float]:
        return shm.hyper(self._arenas, row, count)

    def skipped(self) -> None:
        """A worker on another node has not applied a push."""
        assert self._group is not None
        self._group.count_skipped()

    def coordinator(self, lost: str = "") -> tuple[str, str]:
        """Name and id of the actor that speaks for workers of other nodes: started when the first of them comes, and
        again when the process of the one with the id `lost` has died."""
        assert self._spec is not None
        require_alive(self._arenas)
        if self._coordinator is None or cluster.id_of(self._coordinator) == lost:
            self._coordinators += 1
        name = cluster.generated(self._spec.server_id, f"coordinator/{self._coordinators}")
        if self._coordinator is None or cluster.id_of(self._coordinator) == lost:
            node = ray.get_runtime_context().get_node_id()
            start = cluster.start_on(node, Coordinator, MAX_PARKED, name)
            self._coordinator = start(self._spec.addresses[0], self._spec.label(0))
        return name, cluster.id_of(self._coordinator)

    def perform(self, table: str | None, verb: str, /, *args: Any, **options: Any) -> Any:
        """A verb of the server, or of one of its tables, for programs written for an actor."""
        # Ray pickles this class by reference, but the modules of the server need this one first.
        from fastps.server.actor_style import perform
        from fastps.server.handle import ParameterServer

        if self._handle is None:
            assert self._spec is not None
            self._handle = ParameterServer._handle(self._spec)
            self._handle._attach().own_shards[self._index] = self.table
        return perform(self._handle if table is None else self._handle[table], verb, *args, **options)

    def counters(self) -> dict[int, dict[str, int]]:
        """Of all shards of this node."""
        return shm.counters(self._arenas)

    def close(self) -> None:
        """Tells everybody that the arena is closed and gives its memory back, and that of neighbours that have died."""
        if self._arena is not None:
            self._arena.retire()
        for arena in self._arenas.values():
            arena.discard()


def shard_actor(reached_from_elsewhere: bool) -> Any:
    """The Ray actor class. For workers on other nodes its process gets an environment, which costs 0.3 s to start."""
    environment = {"runtime_env": {"env_vars": wire.SHARD_ENVIRONMENT}} if reached_from_elsewhere else {}
    return ray.remote(max_restarts=0, max_task_retries=0, enable_task_events=False, **environment)(Shard)
