"""ParameterServer: creates and places shards, and hands out handles to them."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from fastps import init
from fastps._core import Outcome
from fastps.client.future import Future
from fastps.client.rows import TableSession
from fastps.client.session import Session
from fastps.client.view import View
from fastps.cluster import ray as cluster
from fastps.cluster.by_value import packed
from fastps.cluster.ray import Placement
from fastps.consistency import BSP, Async, Consistency
from fastps.deadline import deadline_after, left_until, seconds
from fastps.errors import (
    ClosedError,
    NamesError,
    NameTakenError,
    OptionError,
    RankError,
    ServerNotFoundError,
    WaitTimeoutError,
    WorkerRequiredError,
)
from fastps.machine import capacity
from fastps.messages import few, few_of
from fastps.observe.stats import ServerStats
from fastps.rules import Add, Rule, RuleFamily
from fastps.rules.assignment import assign
from fastps.scalars import positive, whole
from fastps.server.array import ArrayHandle
from fastps.shard.actor import shard_actor
from fastps.spec.arrays import Array, Path, Structure, require_distinct, require_name, structure_of, zeros
from fastps.spec.gradients import gradient_policy
from fastps.spec.partition import ShardPlan, partition
from fastps.spec.rule import infos
from fastps.spec.server import ServerSpec, ShardAddress
from fastps.spec.table import MAX_TABLES, Table, infos_of, with_sightings
from fastps.tables.handle import TableHandle
from fastps.transport.ray import RayMembership, RayTransport
from fastps.workers.local import LocalWorker
from fastps.workers.rounds import RoundWorker
from fastps.workers.worker import Worker

ISOLATIONS = ("shard", "none")
GET_SECONDS = 60.0


class Attachments:
    """The sessions of this process: a server is attached once, however many handles arrive in however many tasks.

    Kept between tasks, so the next one finds the arenas mapped; those of closed servers go when another is attached.
    """

    KEPT = 16

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._begin_in_child)

    def _begin_in_child(self) -> None:
        """A thread that held the lock is not in the child, and Ray is of no use there: what it was needed for may be
        within reach without it."""
        self._lock = threading.Lock()
        self._sessions = OrderedDict((i, s) for i, s in self._sessions.items() if s.all_here)

    def session(self, spec: ServerSpec) -> Session:
        with self._lock:
            session = self._sessions.get(spec.server_id)
            if session is None:
                for server_id in [i for i, s in self._sessions.items() if not s.alive()]:
                    self._sessions.pop(server_id).close()
                session = Session(spec, cluster.this_node(), RayTransport, cluster.resolve, RayMembership)
                if not session.all_here:
                    cluster.require(spec.labels(session.transports[0].shards))
                self._sessions[spec.server_id] = session
                while len(self._sessions) > self.KEPT:
                    self._sessions.popitem(last=False)  # handles that use it keep it
            return session

    def drop(self, server_id: str) -> None:
        with self._lock:
            session = self._sessions.pop(server_id, None)
        if session is not None:
            session.close()


class Creations:
    """The servers that this process has created and not closed. They live until it ends, since handles that have
    travelled work on them, whether or not it has kept one itself."""

    def __init__(self) -> None:
        self._servers: dict[str, tuple[ServerSpec, cluster.Owned, weakref.ref[ParameterServer]]] = {}

    def add(self, server: ParameterServer, owned: cluster.Owned) -> None:
        self._servers[server._spec.server_id] = server._spec, owned, weakref.ref(server)

    def remove(self, server_id: str) -> None:
        self._servers.pop(server_id, None)

    def handles(self) -> list[ParameterServer]:
        """One of each, with which it can be closed."""
        found = []
        for spec, owned, reference in self._living():
            server = reference()
            if server is None:
                server = ParameterServer._handle(spec)
                server._owned, server._owner_pid = owned, os.getpid()
                self.add(server, owned)
            found.append(server)
        return found

    def _living(self) -> list[tuple[ServerSpec, cluster.Owned, weakref.ref[ParameterServer]]]:
        """Not those of an earlier Ray, nor in a forked child those of its parent."""
        here = cluster.connection()
        return [server for server in self._servers.values() if server[1].connection == here]

    def warn(self) -> None:
        """Says how many there are that the program cannot close any more, having let go of their handles."""
        lost = [spec for spec, _, reference in self._living() if reference() is None]
        if lost:
            mib = sum(plan.params_bytes for spec in lost for plan in spec.plans) / 2**20
            warnings.warn(
                f"this process has let go of its handles of {len(lost)} server{'s' * (len(lost) > 1)} without close(), "
                f"which live on with {mib:,.0f} MiB of parameters; `for ps in fastps.servers(): ps.close()` ends all "
                f"servers that it has created",
                stacklevel=3,
            )


_attachments = Attachments()
_creations = Creations()


class ParameterServer:
    """The parameters of a model, stored in shards and served to workers.

    A handle: it travels to Ray tasks and actors, other processes and files, and every process that holds one works on
    the same parameters. The process that called the constructor owns the server, which lives until `close`, the end of
    a ``with`` block, or the end of that process, whether or not a handle is kept; see `fastps.servers`. Then, and when
    a shard's process has died, every operation and property that reads or changes its state raises ClosedError or
    ShardDiedError, on every handle, table, worker and view; facts of a handle, such as `num_shards`, stay. What asks
    one node alone, `hyper` and `worker`, cannot tell of a shard that has died elsewhere.

    Parameters
    ----------
    params : int, array or mapping
        An int is that many float64 zeros. Otherwise a float32 or float64 array, or a mapping (nested ones included) of
        names to such arrays: anything with the buffer protocol, ``__array_interface__``, DLPack or Arrow's C interface.
        Copied. A `fastps.Table`, alone or as a value of the mapping, is served by ``ps.table`` or ``ps[name]``; what
        else is said here of parameters is about the arrays.
    rule : Rule, or mapping of patterns to rules
        What a push does to the parameters, and to the rows of tables without a rule of their own; without one it adds
        gradients up. Compiled here, once a node, so no push ever compiles. A mapping gives each
        array the rule of the first pattern that fits its name (``fnmatch``; names of nested mappings are joined by
        "/"): ``{"bias*": fastps.SGD(0.1), "*": fastps.Adam(1e-3)}``. Every parameter has room for the slots of the rule
        with the most.
    num_shards : int
        Into how many shards the parameters are cut, each with its own process; equal to within one element.
    consistency : Consistency
        `Async()`, the default: nobody waits for anybody. `SSP(staleness=s)`: no worker begins a step more than s clocks
        ahead of the slowest live one. `BSP()`: the gradients of all workers are applied as one update. `LocalSGD(k)`:
        k steps on a worker's copy, then the mean of the copies. But for `Async` pushes need a worker's session, see
        `worker`.
    isolation : "shard" or "none"
        "shard": every pull sees, for each shard, the state after a whole number of pushes. "none" (Hogwild): no locks;
        concurrent pushes may lose each other's updates of an element, and a pull may mix states.
    clip_norm : float, optional
        Gradients whose global norm, over all arrays, is larger are scaled down to it, as by torch's `clip_grad_norm_`.
        Cost: one pass over the gradients.
    clip_value : float, optional
        Cuts each element of the gradients to [-clip_value, clip_value]; part of the kernel.
    nonfinite : "apply", "skip" or "raise"
        What happens to a push whose gradients hold a NaN or an infinity. "skip" and "raise" cost one pass over the
        gradients; such a push changes nothing on any shard, and `stats` counts it as skipped.
    placement : None, str, mapping or sequence
        Where the shards go. None: the node of this process. "SPREAD", "PACK", "STRICT_SPREAD" or "STRICT_PACK": Ray's
        placement strategies. A mapping: what each shard asks for, ``{"num_cpus": 1, "resources": {"label": 0.1}}``. A
        sequence: such a mapping, or a node id, for each shard.
    name : str, optional
        For `fastps.get` in other drivers of the cluster.
    timeout : float
        Seconds that creation and any operation wait unless told otherwise.
    max_sessions : int
        How many sessions a shard has, of 4 to 8 KiB for parameters and each slot. Every process of its node that works
        on it keeps as many as threads of it did so at the same moment, and under `BSP` one more for its views.
    max_workers : int
        How many `worker` sessions there can be at once, at most 256.

    Raises
    ------
    ParameterError, OptionError, PlacementError, NameTakenError, ArenaMemoryError, CompileError, WaitTimeoutError
        Nothing is left behind.

    Notes
    -----
    Cost: a Ray actor (about a quarter of a second) and a page fault per 4 KiB a shard; about a second to compile a rule
    that this machine has not seen yet. Threads: any number may use a handle.

    Examples
    --------
    >>> import numpy as np, fastps
    >>> with fastps.ParameterServer(np.zeros(3, np.float32)) as ps:  # doctest: +SKIP
    ...     ps.push(np.ones(3, np.float32))
    ...     ps.pull()
    array([1., 1., 1.], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        *,
        rule: Rule | RuleFamily | Mapping[str, Rule | RuleFamily] | None = None,
        num_shards: int = 1,
        consistency: Consistency | None = None,
        isolation: str = "shard",
        clip_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: str = "apply",
        placement: Placement = None,
        name: str | None = None,
        timeout: float = 60.0,
        max_sessions: int = 128,
        max_workers: int = 64,
    ) -> None:
        gradients = gradient_policy(nonfinite, clip_norm, clip_value)
        if isolation not in ISOLATIONS:
            raise OptionError(f"isolation: expected one of {ISOLATIONS}, got {isolation!r}")
        timeout = positive("timeout", timeout, 1e9, "seconds")
        max_sessions = whole("max_sessions", max_sessions, 1, 2048)
        if consistency is not None and not isinstance(consistency, Consistency):
            raise OptionError(
                f"consistency: expected fastps.Async(), SSP(s), BSP() or LocalSGD(k), got {consistency!r}"
            )
        policy = Async() if consistency is None else consistency
        if policy.rounds and isolation != "shard":
            raise OptionError(f"isolation: {policy} applies updates in rounds, so there is nothing to relax; omit it")
        max_workers = whole("max_workers", max_workers, policy.workers, 256)
        if name is not None and (not isinstance(name, str) or not name):
            raise OptionError(f"name: expected a non-empty str, got {name!r}")
        structure, arrays, tables = _initial(params)
        if tables and not isinstance(policy, Async):
            raise OptionError(
                f"consistency: tables are updated as pushes come, for which it must be fastps.Async(), got {policy}; "
                f"keep them on a server of their own"
            )
        inheriting = {"/".join(path) or "table": path for path, table in tables.items() if table.rule is None}
        assignment, of_tables = assign(
            Add() if rule is None else rule, [leaf.name for leaf in structure.leaves], list(inheriting)
        )
        tables |= {p: tables[p].with_rule(r) for p, r in zip(inheriting.values(), of_tables, strict=True)}
        late = [repr(rule) for rule in assignment.rules if rule.family.uses_pulled]
        if policy.rounds and late:
            raise OptionError(
                f"rule: {late[0]} compensates for stale gradients, of which there are none in rounds; use SGD"
            )
        plans = partition(structure, num_shards, at_least_one=not tables)
        infos_of_tables = infos_of(tables, len(plans))
        capacity.require_addressable(max(plan.params_bytes for plan in plans))
        rows = tuple((i, t.rule, t.life) for i, t in zip(infos_of_tables, tables.values(), strict=True))
        functions = packed((assignment, rows))

        cluster.start()
        _creations.warn()
        if name is not None and cluster.named_actor(name) is not None:
            raise NameTakenError(f"name: a server {name!r} lives already; use fastps.get({name!r}) or another name")
        server_id = os.urandom(16).hex()
        names = [cluster.generated(server_id, f"shard/{plan.index}") for plan in plans]
        names[0] = name or names[0]
        owned = cluster.Owned(cluster.require("create"), cluster.place(placement, len(plans), timeout), [])
        self._owned: cluster.Owned | None = owned
        self._session: Session | None = None
        self._closed = False
        self._owner_pid: int | None = os.getpid()
        actors = owned.actors
        try:
            kind = shard_actor(len(cluster.nodes()) > 1)
            for plan, options in zip(plans, owned.placed.options, strict=True):
                options = {**options, "name": names[plan.index], "namespace": cluster.NAMESPACE}
                actors.append(_start(kind.options(**options), plan, len(plans), name))
            what = (functions, gradients.clips, max_sessions, isolation == "shard", max_workers, policy)
            addresses = _create(actors, [(structure, plan.params_bytes, *what) for plan in plans], timeout)
            self._spec = ServerSpec(
                server_id, structure, plans, addresses, tuple(names), infos(assignment), assignment.of_leaf,
                gradients, policy, float(timeout), name, infos_of_tables,
            )  # fmt: skip
            cluster.get([a.join.remote(self._spec) for a in actors], timeout, "create: shards that meet")
            self._free = policy.bound is None
            self._session = _attachments.session(self._spec)
            if arrays is not None:
                _fill(self._spec, self._session, arrays, timeout)
            self._tables: dict[int, TableSession] = {}
            _fill_tables(self, tables, timeout)
            cluster.get(actors[0].publish.remote(), timeout, "create")
        except BaseException as error:
            if self._session is not None:
                _attachments.drop(self._spec.server_id)
            owned.kill()
            if isinstance(error, SystemError) and error.__cause__ is not None:
                raise error.__cause__ from None  # of a signal handler, which ran in a call of Ray's that hides it
            raise
        _creations.add(self, owned)

    @classmethod
    def _handle(cls, spec: ServerSpec) -> ParameterServer:
        handle = cls.__new__(cls)
        handle._spec, handle._session, handle._owner_pid, handle._owned = spec, None, None, None
        handle._closed, handle._free, handle._tables = False, spec.consistency.bound is None, {}
        return handle

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._handle, (self._spec,)

    @staticmethod
    def remote(params: Any, **options: Any) -> Any:
        """A server used like a Ray actor: ``ps.get_params.remote()``, ``ps.update_params.remote(grad)`` and every other
        verb answer Ray object references. Called without `remote`, verbs take no message at all. See
        `fastps.server.actor_style.ActorStyleServer`."""
        from fastps.server.actor_style import ActorStyleServer

        return ActorStyleServer(ParameterServer(params, **options))

    def _attach(self) -> Session:
        if self._closed:
            raise ClosedError(
                "this handle was closed; create a new server, or get another handle with fastps.get(name)"
            )
        if self._session is None:
            self._session = _attachments.session(self._spec)
        return self._session

    def _attach_table(self, number: int) -> TableSession:
        table = self._tables.get(number)
        session = self._session or self._attach()
        if table is None or table.session is not session:
            table = self._tables[number] = TableSession(session, number)
        return table

    def __getitem__(self, name: str) -> Any:
        """The table or the array of this name: a `TableHandle` or an `ArrayHandle`. Names of nested mappings are joined
        by "/"."""
        spec = self._spec
        if name in spec.table_names:
            return TableHandle(self, spec.table_names[name])
        for number, leaf in enumerate(spec.structure.leaves):
            if leaf.name == name:
                return ArrayHandle(self, number)
        raise NamesError(f"no array or table is called {name!r}; there are {few(spec.names)}")

    def __contains__(self, name: object) -> bool:
        """Whether there is an array or a table of this name."""
        return name in self._spec.names

    def __iter__(self) -> Iterator[str]:
        """The names of the arrays in order, then of the tables. A bare array is "params", a bare table "table"."""
        return iter(self._spec.names)

    def __len__(self) -> int:
        """How many arrays and tables there are."""
        return len(self._spec.names)

    @property
    def table(self) -> TableHandle:
        """The only table. Raises NamesError when there are more, or none."""
        names = self._spec.table_names
        if len(names) != 1:
            raise NamesError(f"table: expected a server with one table, it has {list(names)}; use ps[name]")
        return TableHandle(self, *names.values())

    def pull(self, *, out: Any = None, timeout: float | None = None) -> Any:
        """A copy of the parameters, in the structure that they came in.

        Parameters
        ----------
        out : array or mapping, optional
            Written in place and returned: writable, C-contiguous arrays of the parameters' shapes and dtypes.
        timeout : float, optional
            Seconds.

        Raises
        ------
        ShapeError, DtypeError, NamesError, OutputError
            `out` does not fit; nothing was done.
        ClosedError, ShardDiedError, WaitTimeoutError
            What `out` holds is undefined.

        Notes
        -----
        For each shard the state after a whole number of pushes (``isolation="shard"``); NaN passes through. Cost on the
        parameters' node: one C call that copies once; with `out` no allocation, and uncontended no system call. From
        another node: one Ray call for each node that has shards. From 12 MiB on `out` is written past the caches.
        """
        return (self._session or self._attach()).pull(out, seconds(timeout))[0]

    def push(self, grads: Any, *, pulled: Any = None, timeout: float | None = None, resume: Any = None) -> None:
        """Applies the rule to every parameter with its gradient. When it returns, it has happened.

        Parameters
        ----------
        grads : array or mapping
            Of the parameters' shapes and dtypes; read in place where C-contiguous. Ray object references and futures
            are waited for.
        pulled : array or mapping, optional
            The parameters with which the gradients were computed, for rules that use them (`fastps.DCASGD`).
        timeout : float, optional
            Seconds.
        resume : object, optional
            ``error.resume`` of the WaitTimeoutError that an earlier push of the same gradients raised: applies what is
            missing of it, once.

        Raises
        ------
        ShapeError, DtypeError, NamesError
            Nothing was applied.
        NonfiniteError
            With ``nonfinite="raise"``. Nothing was applied.
        WaitTimeoutError
            Says on which shards the push was applied.
        ClosedError, ShardDiedError
            A note on the error names shards where the push was applied all the same.
        """
        if not self._free:
            self._refuse("push")
        session, limit, outcome = self._session or self._attach(), seconds(timeout), Outcome()
        try:
            session.push(grads, pulled, limit, resume, outcome)
        except BaseException as error:
            outcome.tell(error)
            raise

    def push_pull(
        self, grads: Any, *, pulled: Any = None, out: Any = None, timeout: float | None = None, resume: Any = None
    ) -> Any:
        """A push, and the parameters as that push left them, in one pass over the memory.

        Parameters, errors and threads as for `push` and `pull`; on an error the parameters may be changed as the error
        says. Cost: at 8 MB and more about three quarters of a push and a pull.
        """
        if not self._free:
            self._refuse("push_pull")
        session, limit, outcome = self._session or self._attach(), seconds(timeout), Outcome()
        try:
            return session.push_pull(grads, pulled, out, limit, resume, outcome)[0]
        except BaseException as error:
            outcome.tell(error)
            raise

    def _refuse(self, verb: str) -> None:
        raise WorkerRequiredError(
            f"{verb}: under {self._spec.consistency} the server must know who pushes; use "
            f"`with ps.worker() as w:` and w.{verb}(...); nothing was applied"
        )

    def worker(self, rank: int | None = None, *, timeout: float | None = None) -> Worker:
        """A worker's session, for a ``with`` block: an identity and a clock. See `fastps.workers.worker.Worker`.

        Parameters
        ----------
        rank : int, optional
            Its number, from 0 to max_workers - 1; None for the first that is free.
        timeout : float, optional
            Seconds.

        Raises
        ------
        RankError
            A live worker has this rank, or all are taken.

        Notes
        -----
        The session dies with its process: on the node of shard 0 the others see that within 10 ms, elsewhere after the
        lease of the consistency. Cost: microseconds on the node of shard 0; elsewhere a few Ray calls, and for the
        first such worker of a server the start of an actor.
        """
        session = self._session or self._attach()
        limit = seconds(timeout)
        if rank is not None:
            try:
                rank = whole("rank", rank, 0, 2**31 - 1)
            except OptionError:
                raise RankError(f"worker: expected a rank of 0 or more, or None, got {rank!r}") from None
        policy = self._spec.consistency
        if isinstance(policy, BSP) and policy.deterministic and (rank is None or rank >= policy.workers):
            raise RankError(
                f"worker: deterministic=True needs to be told who is who: pass a rank from 0 to {policy.workers - 1}, "
                f"got {rank}; or raise workers="
            )
        kind = LocalWorker if policy.local else RoundWorker if policy.rounds else Worker
        membership = session.join(rank, limit)
        try:
            return kind(session, membership)
        except BaseException:
            membership.leave()  # nobody waits for a worker that never was
            raise

    def pull_async(self, *, out: Any = None, timeout: float | None = None) -> Future:
        """Starts a pull and answers a Future of its result. `out` is written until then.

        Asynchronous operations of one process on one server happen one after the other, in the order in which they were
        started, on a thread of their own; others do not wait for them. `timeout` counts from when the operation begins.
        One that is cancelled before it begins does nothing; one that has begun goes on, and a push of it counts. Cost:
        a thread switch, tens of microseconds.
        """
        session = self._session or self._attach()
        limit = seconds(timeout)
        return session.queue.submit("pull_async", lambda: session.pull(out, limit)[0])

    def push_async(self, grads: Any, *, pulled: Any = None, timeout: float | None = None) -> Future:
        """Starts a push and answers a Future. `grads` must not change until it is done. See `pull_async`."""
        if not self._free:
            self._refuse("push")
        session = self._session or self._attach()
        limit = seconds(timeout)
        return session.queue.submit("push_async", lambda: _push(session, grads, pulled, limit))

    def push_pull_async(
        self, grads: Any, *, pulled: Any = None, out: Any = None, timeout: float | None = None
    ) -> Future:
        """Starts a push_pull and answers a Future of its result. See `pull_async` and `push_async`."""
        if not self._free:
            self._refuse("push_pull")
        session = self._session or self._attach()
        limit = seconds(timeout)
        return session.queue.submit("push_pull_async", lambda: _push_pull(session, grads, pulled, out, limit))

    def flush(self, *, timeout: float | None = None) -> None:
        """Waits for all asynchronous operations of this process on this server, but for those that were cancelled.

        Raises the first error that was not asked for by `Future.result`, `Future.exception` or ``await``, with notes on
        the others: those of operations that had ended before count, too. WaitTimeoutError, with notes on all of them,
        when operations are still under way after `timeout` seconds.
        """
        limit = seconds(timeout)
        (self._session or self._attach()).queue.flush(self._spec.timeout if limit is None else limit)

    def slots(self, name: str | None = None, *, timeout: float | None = None) -> Any:
        """A copy of a slot of the rule, such as Adam's ``"m"``, in the structure of the parameters.

        Where arrays have different rules, those whose rule has the slot. Without `name`, a dict of all slots by name,
        one read after the other. For each shard a slot is read between two pushes. Raises OptionError for an unknown
        name.
        """
        session = self._session or self._attach()
        if name is None:
            return {slot: session.slots(slot, seconds(timeout)) for slot in self._spec.slot_names()}
        return session.slots(name, seconds(timeout))

    def set_slots(self, name: str, values: Any, *, timeout: float | None = None) -> None:
        """Sets a slot to `values`, in the structure in which `slots` answers it: for warm starts.

        For each shard it happens between two pushes; versions stay. Raises OptionError for an unknown name, ShapeError,
        DtypeError or NamesError for values that do not fit, with nothing set; WaitTimeoutError when it may be set in
        part.
        """
        session, outcome = self._session or self._attach(), Outcome()
        try:
            session.set_slots(name, values, seconds(timeout), outcome)
        except BaseException as error:
            outcome.tell(error, "set")
            raise

    def configure(self, pattern: str | None = None, /, *, timeout: float | None = None, **hyper: float | None) -> None:
        """Changes hyper-parameters: ``ps.configure(lr=0.01)``. Every push that enters a shard from then on uses them.

        With different rules, those that have the hyper-parameter; or the one that was given for `pattern`:
        ``ps.configure("bias*", lr=0.01)``. A number takes the place of a schedule, None brings it back. Shards change
        one after the other. Raises OptionError for unknown names and values that are not finite, with nothing changed.
        """
        session = self._session or self._attach()
        known = {h for rule in self._spec.rules for h in rule.hyper}
        known |= {h for i in self._spec.table_names.values() for h in self._spec.tables[i].rule.hyper}
        unknown = [name for name in hyper if name not in known]
        if unknown:
            raise OptionError(f"configure: unknown hyper-parameter `{unknown[0]}`; the rules have {sorted(known)}")
        chosen = [
            i for name, i in self._spec.table_names.items() if pattern is None or fnmatchcase(name, pattern)
        ]  # fmt: skip
        named = [i for i in chosen if pattern is not None or set(hyper) & set(self._spec.tables[i].rule.hyper)]
        changes = []
        for i in named:
            rule = self._spec.tables[i].rule
            own = {n: v for n, v in hyper.items() if pattern is not None or n in rule.hyper}
            changes.append((i, rule.numbers(own, "configure")))
        of_arrays = {n: v for n, v in hyper.items() if not named or any(n in r.hyper for r in self._spec.rules)}
        outcome = Outcome()
        try:
            if of_arrays and (not named or any(pattern in (None, rule.pattern) for rule in self._spec.rules)):
                session.configure(pattern, of_arrays, seconds(timeout), outcome)
            for i, numbers in changes:
                self._attach_table(i).configure(numbers, session.limit(timeout), outcome)
        except BaseException as error:
            outcome.tell(error, "change")
            raise

    @property
    def hyper(self) -> Any:
        """The hyper-parameters as they are now, by name; with several rules, such a dict for each pattern and each
        table. None stands for a schedule. Cost: a few loads; a Ray call when no shard is on this node."""
        by_pattern = (self._session or self._attach()).hyper(None) if self._spec.structure.leaves else {}
        by_pattern |= {name: TableHandle(self, i).hyper for name, i in self._spec.table_names.items()}
        return by_pattern if len(by_pattern) > 1 else next(iter(by_pattern.values()))

    def view(self) -> View:
        """Read-only arrays on the parameters themselves, for a ``with`` block: no copy, no lock. Live memory; under
        `BSP` the newest round's version, which does not change. See `fastps.View`.

        Raises SplitError when shards are on other nodes. Cost: microseconds, whatever the size.
        """
        return (self._session or self._attach()).view()

    @property
    def versions(self) -> tuple[int, ...]:
        """Per shard, how many pushes have entered it, or how many rounds have been applied.

        Cost: a load a shard; a Ray call a node for shards elsewhere.
        """
        return (self._session or self._attach()).versions(None)

    def stats(self, *, timeout: float | None = None) -> ServerStats:
        """Counters of every shard: operations, bytes, retries, lock waits, what deaths interrupted."""
        return (self._session or self._attach()).stats(timeout)

    @property
    def num_shards(self) -> int:
        return len(self._spec.plans)

    @property
    def name(self) -> str | None:
        return self._spec.name

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Ray's id of each shard's node."""
        return tuple(address.node_id for address in self._spec.addresses)

    def close(self) -> None:
        """Ends the server, when called by its owner: workers get ClosedError, the memory is given back, the shards'
        processes end. Called on another handle: lets go in this process only. Twice is as good as once."""
        session, self._session = self._session, None
        self._closed, self._tables = True, {}
        ends = self._owner_pid == os.getpid()
        if ends:
            self._owner_pid = None
            assert self._owned is not None
            _creations.remove(self._spec.server_id)
            self._owned.end(10.0)
            if session is not None:
                session.discard()
        if ends or session is not None:
            _attachments.drop(self._spec.server_id)

    def __enter__(self) -> ParameterServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        spec = self._spec
        parts = [f"{spec.structure}, {spec.rules_label}"] if spec.structure.leaves else []
        tables = [f"{i.name}: {i}, {i.rule.label}" for i in spec.tables if i.counts_for is None]
        parts += [few_of(tables, len(tables), 4)] if tables else []
        return f"<ParameterServer {'; '.join(parts)} on {self.num_shards} shards{', closed' if self._closed else ''}>"


def servers() -> list[ParameterServer]:
    """A handle of each server that this process has created and not closed, with which it can be closed.

    For those whose handles a program, or a notebook, has let go of: ``for ps in fastps.servers(): ps.close()``.
    """
    return _creations.handles()


def get(name: str, *, timeout: float | None = None) -> ParameterServer:
    """A handle of the server that another driver of the cluster created under `name`.

    A process that is not in Ray yet connects to the cluster at RAY_ADDRESS; or to that of the latest ``ray start`` on
    this machine, or the only one that runs on it. It starts none.

    Parameters
    ----------
    name : str
        As it was given to `ParameterServer`.
    timeout : float, optional
        Seconds that the server has to answer; None: 60. Connecting to a cluster takes up to 25 more.

    Raises
    ------
    ServerNotFoundError
        The cluster has no server of that name.
    RayRequiredError
        No cluster runs, or several do, or it does not let this process in: its token is missing or wrong.
    WaitTimeoutError
        The server's first process is stopped.

    Notes
    -----
    Cost: two Ray calls.
    """
    if not isinstance(name, str) or not name:
        raise OptionError(f"get: expected a non-empty str, got {name!r}")
    limit, what = seconds(timeout), f"get({name!r})"
    limit = GET_SECONDS if limit is None else limit
    cluster.join(what)
    actor = cluster.named_actor(name)
    try:
        spec = None if actor is None else cluster.get(actor.spec.remote(), limit, what)
    except WaitTimeoutError as error:
        raise WaitTimeoutError(
            f"{error}: the process of its first shard is stopped, or busy for longer; see it with `ray list actors`, "
            f"or pass a larger timeout="
        ) from None
    if spec is None:
        raise ServerNotFoundError(
            f"{what}: no server of that name lives in this cluster, only {cluster.names()}; create it with "
            f"ParameterServer(..., name={name!r}), or set RAY_ADDRESS to the address of the cluster in which it lives"
        )
    return ParameterServer._handle(spec)


def _initial(params: Any) -> tuple[Structure, list[Array] | None, dict[Path, Table]]:
    """The arrays' structure, their values, and the tables."""
    if isinstance(params, (int, np.integer)) and not isinstance(params, bool):
        return zeros(int(params)), None, {}
    tables: dict[Path, Table] = {}
    rest = _without_tables(params, (), tables)
    none = bool(tables) and isinstance(rest, Mapping) and not rest
    structure, arrays = (Structure(()), None) if none else structure_of(rest)
    require_distinct([*(leaf.path for leaf in structure.leaves), *tables])
    tables = with_sightings(tables)
    if len(tables) > MAX_TABLES:
        raise OptionError(
            f"create: expected at most {MAX_TABLES} tables, those of sightings included, got {len(tables)}"
        )
    return structure, arrays, tables


def _without_tables(params: Any, path: Path, tables: dict[Path, Table]) -> Any:
    """The mapping without its tables, which are put into `tables` by their names."""
    if isinstance(params, Table):
        tables[path] = params
        return {}
    if not isinstance(params, Mapping):
        return params
    rest: dict[Any, Any] = {}
    for name, value in params.items():
        require_name(name, path, "create")
        found = len(tables)
        kept = _without_tables(value, (*path, name), tables)
        if len(tables) == found or (isinstance(value, Mapping) and kept):  # nothing of it was a table, or not all
            rest[name] = kept
    return rest


def _fill_tables(server: ParameterServer, tables: dict[Path, Table], timeout: float) -> None:
    """The rows that are there from the beginning."""
    for number, table in enumerate(tables.values()):
        if isinstance(table.init, init.Array):
            values = np.asarray(table.init.values, table.dtype)
            keys = np.arange(len(values)) if table.init.keys is None else table.init.keys
            TableHandle(server, number).set(keys, values, timeout=timeout)


def _push_pull(session: Session, grads: Any, pulled: Any, out: Any, timeout: float | None) -> Any:
    """What a `Future` of `push_pull_async` runs."""
    outcome = Outcome()
    try:
        return session.push_pull(grads, pulled, out, timeout, None, outcome)[0]
    except BaseException as error:
        outcome.tell(error)
        raise


def _push(session: Session, grads: Any, pulled: Any, timeout: float | None) -> None:
    """What a `Future` of `push_async` runs."""
    outcome = Outcome()
    try:
        session.push(grads, pulled, timeout, None, outcome)
    except BaseException as error:
        outcome.tell(error)
        raise


def _start(kind: Any, plan: ShardPlan, num_shards: int, name: str | None) -> Any:
    try:
        return kind.remote(plan.index, num_shards)
    except ValueError as error:
        if name is not None and cluster.named_actor(name) is not None:
            raise NameTakenError(f"name: a server {name!r} lives already; use fastps.get({name!r})") from error
        raise


def _create(actors: list[Any], arguments: list[tuple[Any, ...]], timeout: float) -> tuple[ShardAddress, ...]:
    """All shards at once: each says what it needs before any takes it."""
    deadline, what = deadline_after(timeout), f"create: {len(actors)} shards"
    needs = [actor.prepare.remote(*given) for actor, given in zip(actors, arguments, strict=True)]
    try:
        capacity.require_all(cluster.get(needs, left_until(deadline), what))
    except WaitTimeoutError as error:
        raise WaitTimeoutError(
            f"{what}: not all processes started in time; Ray has {cluster.available()} free"
        ) from error
    return tuple(cluster.get([actor.create.remote() for actor in actors], left_until(deadline), what))


def _fill(spec: ServerSpec, session: Session, arrays: list[Array], timeout: float) -> None:
    """The initial values: written here for shards on this node, sent to the others."""
    if session.shm is not None:
        session.shm.group.fill(arrays)
    for transport in session.transports:
        if isinstance(transport, RayTransport):
            transport.fill(arrays, timeout)
