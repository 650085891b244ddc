"""Checks the arguments of a `ParameterServer` before anything starts. Pure: it does not load Ray, and allocates only
contiguous copies of arrays.

`plan_server` takes the arguments of the constructor and returns a plan, or raises a typed error for the first invalid
one. What only the cluster knows is checked by `fastps.server.launch`: whether the name is free, whether a node has the
resources, whether there is enough memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastps import init
from fastps.arrays.types import Array
from fastps.consistency import Async, Consistency
from fastps.deadline import default_seconds
from fastps.errors import OptionError
from fastps.machine import capacity
from fastps.messages import brief
from fastps.rules import Add, Rule
from fastps.rules.assignment import Assignment, assign
from fastps.scalars import choice, whole
from fastps.spec.arrays import Structure
from fastps.spec.gradients import GradientPolicy, gradient_policy
from fastps.spec.initial import FirstRows, RowBatch, State, require_distinct, structure_of, zeros
from fastps.spec.keys import as_keys
from fastps.spec.partition import ShardPlan, partition
from fastps.spec.placement import PlacementRequest, placement_request
from fastps.spec.rule import infos
from fastps.spec.server import NodeAddress, ServerSpec, ShardAddress, rules_of_leaves, slot_names_of
from fastps.spec.table import MAX_TABLES, Life, Table, TableInfo, infos_of, name_of, with_sightings
from fastps.spec.tree import Path, require_name
from fastps.transport.contract import Operation

ISOLATIONS = ("shard", "none")
MAX_SESSIONS, MAX_WORKERS = 2048, 256


@dataclass(frozen=True)
class TablePlan:
    """A table of a server; tables of sightings included.

    Attributes
    ----------
    info : what handles will carry of it
    rule : its own, or the server's
    life : when its rows are created and evicted
    """

    info: TableInfo
    rule: Rule
    life: Life


@dataclass(frozen=True, eq=False)
class ServerPlan:
    """A server to be started.

    Attributes
    ----------
    structure : of the arrays
    arrays : their initial values in order: the user's arrays if C-contiguous, else copies; None: zeros
    shards : what each shard holds
    assignment : the rules of the arrays
    tables : in the order of their numbers
    first_rows : of tables with initial rows
    gradients : how gradients are checked and clipped
    consistency : how far workers may be apart
    isolated : whether a pull sees a whole number of pushes, see "shard" in `ParameterServer`
    placement : where the shards should go
    name : for `fastps.get`, or None
    timeout : seconds that creation and operations wait; inf: without a limit
    max_sessions, max_workers : per shard, and at once
    state : of another server, with which it begins
    """

    structure: Structure
    arrays: list[Array] | None
    shards: tuple[ShardPlan, ...]
    assignment: Assignment
    tables: tuple[TablePlan, ...]
    first_rows: tuple[FirstRows, ...]
    gradients: GradientPolicy
    consistency: Consistency
    isolated: bool
    placement: PlacementRequest
    name: str | None
    timeout: float
    max_sessions: int
    max_workers: int
    state: State | None = None

    def initial(self) -> Operation | None:
        """Sets the values with which the server begins; None: zeros."""
        if self.arrays is None:
            return None
        if self.state is None:
            return Operation(sets=[self.arrays], initial=True)
        names = slot_names_of(infos(self.assignment))
        steps = {s.index: np.array([self.state.steps[r.leaf] for r in s.runs], np.uint64) for s in self.shards}
        sets = [self.arrays, *(self.state.slots.get(name) for name in names)]
        return Operation(sets=sets, steps=steps, initial=True)

    def spec(
        self,
        server_id: str,
        nodes: tuple[NodeAddress, ...],
        addresses: tuple[ShardAddress, ...],
        actors: tuple[str, ...],
    ) -> ServerSpec:
        """What handles carry, given the addresses of the shards."""
        return ServerSpec(
            server_id, self.structure, self.shards, addresses, actors, nodes, infos(self.assignment),
            rules_of_leaves(self.structure, self.assignment.of_leaf), self.gradients, self.consistency, self.timeout,
            self.name, tuple(table.info for table in self.tables), self.isolated,
        )  # fmt: skip


def plan_server(
    params: Any,
    *,
    rule: Any,
    num_shards: Any,
    consistency: Any,
    isolation: Any,
    clip_norm: Any,
    clip_value: Any,
    nonfinite: Any,
    placement: Any,
    name: Any,
    timeout: Any,
    max_sessions: Any,
    max_workers: Any,
) -> ServerPlan:
    """The plan for the arguments of `ParameterServer`: see there, also for the defaults."""
    gradients = gradient_policy(nonfinite, clip_norm, clip_value)
    isolation = choice("isolation", isolation, ISOLATIONS)
    timeout = default_seconds(timeout)
    max_sessions = whole("max_sessions", max_sessions, 1, MAX_SESSIONS)
    policy = _policy(consistency, isolation)
    max_workers = whole("max_workers", max_workers, policy.workers, MAX_WORKERS)
    if name is not None and (not isinstance(name, str) or not name):
        raise OptionError(f"name: expected a non-empty str, got {brief(name)}")
    structure, arrays, tables = _initial(params)
    if tables and not isinstance(policy, Async):
        raise OptionError(
            f"consistency: tables are updated as pushes come, for which it must be fastps.Async(), got {policy}; "
            f"keep them on a server of their own"
        )
    assignment, tables = rules_of(rule, [structure.leaves[i].name for i in structure.trained], tables)
    _require_fitting(assignment, policy)
    shards = partition(structure, num_shards, at_least_one=not tables)
    table_plans = _table_plans(tables, len(shards))
    state = params if isinstance(params, State) else None
    first_rows = _first_rows(tables, table_plans) if state is None else _saved_rows(state, table_plans, len(shards))
    capacity.require_addressable(max(shard.params_bytes for shard in shards))
    return ServerPlan(
        structure, arrays, shards, assignment, table_plans, first_rows, gradients, policy, isolation == "shard",
        placement_request(placement, len(shards)), name, timeout, max_sessions, max_workers,
        state,
    )  # fmt: skip


def _policy(consistency: Any, isolation: str) -> Consistency:
    if consistency is not None and not isinstance(consistency, Consistency):
        raise OptionError(
            f"consistency: expected fastps.Async(), SSP(s), BSP() or LocalSGD(k), got {brief(consistency)}"
        )
    policy = Async() if consistency is None else consistency
    if policy.rounds and isolation != "shard":
        raise OptionError(f"isolation: {policy} applies updates in rounds, so there is nothing to relax; omit it")
    return policy


def _initial(params: Any) -> tuple[Structure, list[Array] | None, dict[Path, Table]]:
    """The structure of the arrays, their values, and the tables."""
    if isinstance(params, (int, np.integer)) and not isinstance(params, bool):
        return zeros(int(params)), None, {}
    tables: dict[Path, Table] = {}
    if isinstance(params, State):
        structure, arrays, tables = params.structure, params.arrays or None, dict(params.tables)
    else:
        rest = _without_tables(params, (), tables)
        none = bool(tables) and isinstance(rest, Mapping) and not rest
        structure, arrays = (Structure.nothing(), None) if none else structure_of(rest)
    require_distinct([*(leaf.path for leaf in structure.leaves), *tables])
    tables = with_sightings(tables)
    if len(tables) > MAX_TABLES:
        raise OptionError(
            f"create: expected at most {MAX_TABLES} tables, those of sightings included, got {len(tables)}"
        )
    return structure, arrays, tables


def _without_tables(params: Any, path: Path, tables: dict[Path, Table]) -> Any:
    """The mapping without its tables, which are added to `tables` by path."""
    if isinstance(params, Table):
        tables[path] = params
        return {}
    if not isinstance(params, Mapping):
        return params
    rest: dict[Any, Any] = {}
    before = len(tables)
    for name, value in params.items():
        require_name(name, path, "create")
        found = len(tables)
        kept = _without_tables(value, (*path, name), tables)
        if len(tables) == found or (isinstance(value, Mapping) and kept):  # it contains an array, or no table
            rest[name] = kept
    return params if len(tables) == before else rest


def rules_of(rule: Any, arrays: list[str], tables: dict[Path, Table]) -> tuple[Assignment, dict[Path, Table]]:
    """The rules of the arrays of these names, and the tables with their rules."""
    inheriting = {name_of(path): path for path, table in tables.items() if table.rule is None}
    assignment, of_tables = assign(Add() if rule is None else rule, arrays, list(inheriting))
    return assignment, tables | {
        path: tables[path].with_rule(rule) for path, rule in zip(inheriting.values(), of_tables, strict=True)
    }


def _require_fitting(assignment: Assignment, policy: Consistency) -> None:
    """Raises OptionError for a rule that cannot be used under this policy."""
    late = [repr(rule) for rule in assignment.rules if rule.family.uses_pulled]
    if policy.rounds and late:
        raise OptionError(
            f"rule: {late[0]} compensates for stale gradients, of which there are none in rounds; use SGD"
        )


def _table_plans(tables: dict[Path, Table], num_shards: int) -> tuple[TablePlan, ...]:
    plans = []
    for info, table in zip(infos_of(tables, num_shards), tables.values(), strict=True):
        assert table.rule is not None  # its own, or one of `_rules`
        plans.append(TablePlan(info, table.rule, table.life))
    return tuple(plans)


def _first_rows(tables: dict[Path, Table], plans: tuple[TablePlan, ...]) -> tuple[FirstRows, ...]:
    """Raises KeysError, DtypeError or ShapeError for keys that are not of the table's kind."""
    found = []
    for number, (table, plan) in enumerate(zip(tables.values(), plans, strict=True)):
        if isinstance(table.init, init.Array):
            values = np.ascontiguousarray(table.init.values, table.dtype)
            what = f"set `{plan.info.name}` keys"
            keys = as_keys(np.arange(len(values)) if table.init.keys is None else table.init.keys, table.keys, what)
            if len(keys) != len(values):
                raise OptionError(f"{what}: expected a key for each of {len(values)} rows, got {len(keys)}")
            slots = [None] * (len(plan.info.streams) - 1)
            found.append(FirstRows(number, [RowBatch(keys, [values, *slots])]))
    return tuple(found)


def _saved_rows(state: State, plans: tuple[TablePlan, ...], num_shards: int) -> tuple[FirstRows, ...]:
    return tuple(
        state.rows[plan.info.name].first(number, plan.info, num_shards)
        for number, plan in enumerate(plans)
        if plan.info.name in state.rows
    )
