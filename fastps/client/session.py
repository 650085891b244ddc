"""The client side of a server: one session per process, which runs operations on all nodes.

The verbs are implemented in `arrays`, `rounds` and `rows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import numpy as np

from fastps._core import Arena, Member, Outcome, all_finite, shards_of
from fastps.arrays.checks import first_nonfinite, norm_of
from fastps.arrays.types import Array, Arrays
from fastps.client.future import Calls
from fastps.client.resume import merged, resuming
from fastps.deadline import deadline_after, left_until
from fastps.errors import FastPSError, NonfiniteError, OptionError, RayRequiredError, SplitError
from fastps.observe.stats import ServerStats, ShardStats
from fastps.spec.server import ServerSpec
from fastps.transport.arenas import is_here, require_alive
from fastps.transport.contract import Endpoint, Membership, Operation, Pending
from fastps.transport.shm import ShmEndpoint

Connect = Callable[[ServerSpec, tuple[int, ...], int | None], Endpoint]


class Session:
    """Runs operations on all shards of a server, each by the endpoint that reaches it.

    Parameters
    ----------
    spec : the server
    node_id : of this process; None outside of Ray, where the shards of this machine are local
    connect : makes the endpoint to some shards of one other node, or to the process of one shard
    resolve : replaces object references and futures in gradients by their values, within a timeout
    enrol : makes a membership in a server whose shard 0 is on another node
    """

    def __init__(
        self,
        spec: ServerSpec,
        node_id: str | None,
        connect: Connect,
        resolve: Callable[[Any, float], Any],
        enrol: Callable[[Session, int | None, float], Membership],
    ) -> None:
        self.spec, self.resolve, self.calls = spec, resolve, Calls()
        self._connect, self._enrol = connect, enrol
        by_node = {node: spec.shards_of_node(node) for node in range(len(spec.nodes))}
        here = [node for node, address in enumerate(spec.nodes) if is_here(address, node_id)]
        near = tuple(sorted(shard for node in here for shard in by_node.pop(node)))
        self.shm = ShmEndpoint.of_leaves(spec, near) if near else None
        # The others first: they work while this process works on its own shards.
        self.endpoints: list[Endpoint] = [connect(spec, shards, None) for shards in by_node.values()]
        if self.shm:
            self.endpoints.append(self.shm)
        self.all_here = not by_node
        self._leaves = [frozenset(r.leaf for s in e.shards for r in spec.plans[s].runs) for e in self.endpoints]
        self._endpoint_of_shard = np.zeros(len(spec.plans), np.intp)
        for i, endpoint in enumerate(self.endpoints):
            self._endpoint_of_shard[list(endpoint.shards)] = i

    def limit(self, timeout: float | None) -> float:
        return self.spec.timeout if timeout is None else timeout

    def endpoint_of(self, shard: int) -> Endpoint:
        return self.endpoints[self._endpoint_of_shard.item(shard)]

    def process_of(self, shard: int) -> Endpoint:
        """The endpoint to a shard's process, on whatever node: for what only that process can do."""
        return self._connect(self.spec, self.endpoint_of(shard).shards, shard)

    def places(self, keys: Array) -> list[Any]:
        """Per endpoint the positions of its keys; a slice when it has all of them."""
        if len(self.endpoints) == 1:
            return [slice(None)]
        owner = self._endpoint_of_shard[shards_of(keys, len(self.spec.plans))]
        return [np.flatnonzero(owner == i) for i in range(len(self.endpoints))]

    def run(
        self,
        operation: Operation,
        timeout: float | None,
        verb: str,
        resume: Any = None,
        outcome: Outcome | None = None,
    ) -> tuple[int, ...]:
        """Runs an operation on all nodes at once. Returns, per shard, the update count that was read or made; 0 where
        there was nothing to do: the rest of a push had been applied before, or a node has none of a partial operation's
        arrays. Raises the error of any node, with the shards that succeeded, those without such arrays among them. An
        exception of a signal handler is raised at once: what became of the parts of other nodes is then unknown."""
        deadline = deadline_after(self.limit(timeout))
        if resume is None:
            return self._attempt(operation, deadline, None, outcome)
        with resuming(resume, (self, operation.table), verb) as tokens:
            return self._attempt(operation, deadline, tokens, outcome)

    def _attempt(
        self, operation: Operation, deadline: float, tokens: dict[int, Any] | None, outcome: Outcome | None
    ) -> tuple[int, ...]:
        """An operation, or with `tokens` the rest of a push, from which it removes what it has done."""
        rows = operation.table is not None and len(self.endpoints) > 1
        places = self.places(operation.keys) if rows and operation.keys is not None else None
        pending: list[tuple[int, Operation, Pending]] = []
        errors: list[tuple[int, FastPSError]] = []
        versions: dict[int, int] = {}
        idle = [i for i in range(len(self.endpoints)) if self._has_nothing_of(operation, i)]
        if outcome is not None:  # all of the push that concerns them is applied, as on such shards of other nodes
            for i in idle:
                outcome.end(self.endpoints[i].shards)
        for i, endpoint in enumerate(self.endpoints):
            if i in idle:
                continue
            if tokens is not None and i not in tokens:  # this part of the push was applied before
                if outcome is not None:
                    outcome.end(endpoint.shards)
                continue
            if places is not None and len(places[i]) == 0 and operation.grads is None:  # a push is counted everywhere
                continue
            part = operation if places is None else operation.rows(places[i])
            token = None if tokens is None else tokens[i]
            try:
                pending.append((i, part, endpoint.start(part, left_until(deadline), token, outcome)))
            except RayRequiredError:
                raise  # other nodes are started first: nothing has begun
            except FastPSError as error:
                errors.append((i, error))
        for i, part, operating in reversed(pending):  # those of this node have ended
            try:
                versions |= operating.finish()
            except FastPSError as error:
                errors.append((i, error))
                continue
            if tokens is not None:
                del tokens[i]
            if places is not None and operation.outs is not None and part.outs is not None:
                operation.outs[0][places[i]] = part.outs[0]
        if errors:
            failed = {i for i, _ in errors}
            done = tuple(s for i, endpoint in enumerate(self.endpoints) if i not in failed for s in endpoint.shards)
            begun = len(failed) + len(idle) < len(self.endpoints)
            errors.sort(key=itemgetter(0))
            pushes, owner = operation.grads is not None, (self, operation.table)
            try:
                raise merged(errors, done, operation.writes, pushes, owner, tokens, begun)
            finally:
                errors.clear()  # their tracebacks refer to this frame: a cycle
        if not pending:  # no endpoint has checked that the server is alive
            self.require_alive()
        return tuple([versions.get(i, 0) for i in range(len(self.spec.plans))])

    def _has_nothing_of(self, operation: Operation, i: int) -> bool:
        """Whether the shards of an endpoint have nothing of a partial operation's arrays. In rounds all have one
        state, and get every deposit."""
        leaves = operation.leaves
        return leaves is not None and not self.spec.consistency.rounds and self._leaves[i].isdisjoint(leaves)

    def ask(self, verb: str, *arguments: Any, timeout: float | None, outcome: Outcome | None = None) -> list[Any]:
        """Calls a verb on each node, one after the other. Returns their results."""
        deadline = deadline_after(self.limit(timeout))
        return [
            endpoint.ask(verb, *arguments, timeout=left_until(deadline), outcome=outcome) for endpoint in self.endpoints
        ]

    def late(self, error: FastPSError, pushes: bool, table: int | None = None) -> BaseException:
        """The error of an operation on a server whose shards are all on this node."""
        return merged([(0, error)], (), pushes, pushes, (self, table))

    def scale(self, grads: Arrays, name: Callable[[int], str], verb: str, resume: Any) -> float | None:
        """The factor for gradients of this global norm, or None when the push is to be skipped, which is counted.
        `name` says that of one of the gradients, for errors. Raises NonfiniteError when the server refuses such
        pushes."""
        policy, scale, finite = self.spec.gradients, 1.0, True
        if not policy.inspects:
            return scale
        if policy.clip_norm < math.inf:
            norm = norm_of(grads)
            finite, scale = math.isfinite(norm), policy.scale(norm)
        else:
            finite = all_finite(grads)
        if policy.nonfinite == "apply" or finite:
            return scale
        found = first_nonfinite(grads)
        where = "the norm of the gradients" if found is None else f"{name(found[0])}{found[1]}"
        if resume is not None:
            raise OptionError(
                f"{verb}: resume= is for the gradients of the push that did not end, and {where} is NaN or infinite "
                f"now; nothing more was applied, pass them as they were"
            )
        for endpoint in self.endpoints:
            endpoint.tell("skipped")
        if policy.nonfinite == "raise":
            raise NonfiniteError(f"{verb}: {where} is NaN or infinite; nothing was applied")
        return None

    def join(self, rank: int | None, timeout: float | None) -> Membership:
        """A membership among the workers that share clocks."""
        limit = self.limit(timeout)
        self.require_alive()
        if self.shm is not None and 0 in self.shm.arenas:
            return Member(self.shm.arenas[0], rank, 0.0, limit)
        return self._enrol(self, rank, limit)

    def arenas_of_all(self, verb: str) -> dict[int, Arena]:
        """The arenas by shard. Raises SplitError when some are on other nodes."""
        if self.shm is None or len(self.shm.shards) < len(self.spec.plans):
            here = set(self.shm.shards if self.shm else ())
            away = [plan.index for plan in self.spec.plans if plan.index not in here]
            raise SplitError(f"{verb}: shards {away} are on other nodes, whose memory cannot be viewed; use pull()")
        return self.shm.arenas

    def counters(self, table: int | None, timeout: float | None) -> dict[int, dict[str, int]]:
        """Per shard, the counters of its arena, or of its part of a table."""
        counted: dict[int, dict[str, int]] = {}
        for of_node in self.ask("counters", table, timeout=timeout):
            counted |= of_node
        return counted

    def stats(self, timeout: float | None) -> ServerStats:
        counted = self.counters(None, timeout)
        return ServerStats(tuple(ShardStats(i, self.spec.node_of(i).node_id, **counted[i]) for i in sorted(counted)))

    def versions(self, timeout: float | None) -> tuple[int, ...]:
        if self.shm and self.all_here:
            versions = tuple(arena.version for arena in self.shm.arenas.values())
            self.require_alive()
            return versions
        return tuple(shard.version for shard in self.stats(timeout).shards)

    def require_alive(self) -> None:
        """Raises ClosedError or ShardDiedError when a shard of this node is closed or dead. Asks no other node."""
        if self.shm is not None:
            require_alive(self.shm.arenas)

    def alive(self) -> bool:
        """Whether all shards of this node are open. Asks no other node."""
        return self.shm is None or self.shm.alive()

    def discard(self) -> None:
        """Frees the memory of shards whose processes have died: other processes may keep it mapped for long."""
        for arena in self.shm.arenas.values() if self.shm is not None else ():
            arena.discard()

    def close(self) -> None:
        """Frees what idle operations hold. Handles that are still in use keep working."""
        self.calls.close()
        for endpoint in self.endpoints:
            endpoint.close()
