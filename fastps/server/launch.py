"""Starts a planned server. On an error, everything that was started is ended again.

Called by the constructor of `ParameterServer`, in the process that will own the server. In this order: Ray, a place for
each shard, its actor, its arena once all shards have reported what they need, the arenas of its neighbours, and the
initial values. Then it is published: `fastps.get` can find it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fastps.client.rows import RowSession
from fastps.client.session import Session
from fastps.cluster import pickled
from fastps.cluster import ray as cluster
from fastps.cluster.placement import Owned, Placed, place
from fastps.deadline import deadline_after, left_until
from fastps.errors import NameTakenError, WaitTimeoutError
from fastps.machine import capacity
from fastps.server.options import ServerPlan
from fastps.shard.actor import shard_actor
from fastps.spec.server import NodeAddress, ServerSpec, ShardAddress

ASK_SECONDS = 5.0  # for a reply of a server that has the same name


@dataclass(frozen=True)
class Launched:
    """A running server.

    Attributes
    ----------
    spec : what its handles carry
    owned : what ends with it
    session : that of this process
    """

    spec: ServerSpec
    owned: Owned
    session: Session


def launch(plan: ServerPlan, attach: Callable[[ServerSpec], Session], detach: Callable[[str], None]) -> Launched:
    """Starts the server. `attach` makes this process's session; `detach` closes the session of a server id, if any.

    Raises
    ------
    RuleError, RayRequiredError, PlacementError, NameTakenError, ArenaMemoryError, CompileError, WaitTimeoutError,
    TableFullError
        Nothing is left behind, whatever is raised, also by signal handlers.
    """
    functions = pickled.packed_functions(
        (plan.assignment, tuple((table.info, table.rule, table.life) for table in plan.tables))
    )
    cluster.start()
    if plan.name is not None and cluster.living_actor(plan.name, min(plan.timeout, ASK_SECONDS)) is not None:
        raise _taken(plan.name)
    server_id = os.urandom(16).hex()
    names = [cluster.generated(server_id, f"shard/{shard.index}") for shard in plan.shards]
    names[0] = plan.name or names[0]
    owned = Owned(cluster.require("create"), Placed(), [])
    try:
        place(plan.placement, len(plan.shards), plan.timeout, owned.placed)
        _start(plan, names, owned)
        nodes, addresses = _create(plan, functions, owned.actors)
        spec = plan.spec(server_id, nodes, addresses, tuple(names))
        known, whole = replace(spec, structure=spec.structure.bare()), pickled.packed_spec(spec)
        joins = [actor.join.remote(known, whole) for actor in owned.actors]
        cluster.get(joins, plan.timeout, "create: shards that meet")
        session = attach(spec)
        initial = plan.initial()
        if initial is not None:  # before other processes use them
            session.run(initial, plan.timeout, "create")
        for rows in plan.first_rows:
            RowSession(session, rows.table).begin(rows, plan.timeout)
        cluster.get(owned.actors[0].publish.remote(), plan.timeout, "create")
    except BaseException as error:
        try:
            detach(server_id)
        finally:
            owned.kill()
        if isinstance(error, SystemError) and error.__cause__ is not None:
            raise error.__cause__ from None  # raised by a signal handler in a call of Ray, which hides it
        raise
    return Launched(spec, owned, session)


def _start(plan: ServerPlan, names: list[str], owned: Owned) -> None:
    """Starts the actors. Each is added to `owned` as soon as there is something to end."""
    kind = shard_actor(len(cluster.nodes()) > 1)
    for shard, placed in zip(plan.shards, owned.placed.options, strict=True):
        options = {**placed, "name": names[shard.index], "namespace": cluster.NAMESPACE}
        try:
            owned.actors.append(kind.options(**options).remote(shard.index, len(plan.shards)))
        except ValueError as error:
            if plan.name is not None and cluster.named_actor(plan.name) is not None:
                raise _taken(plan.name) from error
            raise


def _taken(name: str) -> NameTakenError:
    return NameTakenError(
        f"name: a server {name!r} lives already; use fastps.get({name!r}), or another name; if it has lost a shard, "
        f"the program that created it frees the name by close()"
    )


def _create(
    plan: ServerPlan, functions: bytes, actors: list[Any]
) -> tuple[tuple[NodeAddress, ...], tuple[ShardAddress, ...]]:
    """Creates the arenas of all shards: each reports what it needs before any allocates."""
    deadline, what = deadline_after(plan.timeout), f"create: {len(actors)} shards"
    options = (
        functions, plan.gradients.clips, plan.max_sessions, plan.isolated, plan.max_workers, plan.consistency,
    )  # fmt: skip
    needs = [
        actor.prepare.remote(plan.structure.bare(), shard.params_bytes, *options)
        for actor, shard in zip(actors, plan.shards, strict=True)
    ]
    try:
        capacity.require_all(cluster.get(needs, left_until(deadline), what))
    except WaitTimeoutError as error:
        raise WaitTimeoutError(
            f"{what}: not all processes started in time; Ray has {cluster.available()} free"
        ) from error
    created = cluster.get([actor.create.remote() for actor in actors], left_until(deadline), what)
    nodes: dict[str, NodeAddress] = {}
    for node, _ in created:
        nodes.setdefault(node.node_id, node)
    numbers = {node_id: number for number, node_id in enumerate(nodes)}
    return tuple(nodes.values()), tuple(replace(shard, node=numbers[node.node_id]) for node, shard in created)
