"""ParameterServer: creates a server, and is the handle of one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from fastps._core import Outcome
from fastps.client.attach import Attachment, attachments
from fastps.cluster.placement import Owned
from fastps.consistency import Consistency
from fastps.deadline import deadline_after, left_until, seconds
from fastps.errors import OptionError
from fastps.rules import Rule, RuleFamily
from fastps.server.actor_style import ActorStyleServer
from fastps.server.creations import Creations
from fastps.server.reader import Reader
from fastps.server.verbs import ArrayVerbs
from fastps.spec.placement import Placement
from fastps.spec.server import ServerSpec
from fastps.tables.handle import TableHandle
from fastps.tables.named import handle_named

CLOSE_SECONDS = 10.0
creations = Creations()


class ParameterServer(ArrayVerbs):
    """The parameters of a model, stored in shards and served to workers.

    An instance is a handle: it travels to Ray tasks and actors, other processes and files, and every process that holds
    one works on the same parameters. The process that called the constructor owns the server. The server lives until
    `close`, the end of a ``with`` block, or the end of that process, whether or not a handle is kept; see
    `fastps.servers`. After that, and when a shard's process has died, every operation and property that reads or
    changes the server's state raises ClosedError or ShardDiedError, on every handle, table, worker and view; facts of a
    handle, such as `num_shards`, remain. `hyper` and `worker` ask only one node, so they cannot tell that a shard of
    another node has died.

    Parameters
    ----------
    params : int, array or container of arrays
        An int is that many float64 zeros. Otherwise an array of float32, float64, bfloat16 or float16, or such arrays
        in mappings, lists, tuples, named tuples and dataclasses, nested: anything with the buffer protocol,
        ``__array_interface__``, DLPack or Arrow's C interface; tensors are read without their graph. Copied. Half
        precision is stored as float32; `pull` without `out` returns the dtype that was given. The same memory twice is
        one array. Arrays that no rule can train (of other dtypes, or without elements), and str, bytes, bool, int,
        complex and None, are carried: pulled as they were given, never pushed. Names are keys, positions and fields,
        joined by "/". A `fastps.Table`, alone or as a value of the mapping, is used through ``ps.table`` or
        ``ps[name]``; everything else said of parameters here is about arrays.
    rule : Rule, or mapping of patterns to rules
        What a push does to the parameters, and to the rows of tables without a rule of their own. Default: `Add`, which
        adds gradients up. Compiled by the constructor, once per node, so no push ever compiles. A mapping gives each
        array the rule of the first pattern that matches its name (``fnmatch``; names of nested mappings are joined by
        "/"): ``{"bias*": fastps.SGD(0.1), "*": fastps.Adam(1e-3)}``. Memory for slots is allocated as if every
        parameter had the rule with the most slots.
    num_shards : int
        Number of shards that the parameters are split into, equal to within one element; each has its own process.
    consistency : Consistency
        `Async()`, the default: no worker waits. `SSP(staleness=s)`: no worker begins a step more than s clocks
        ahead of the slowest live one. `BSP()`: the gradients of all workers are applied as one update. `LocalSGD(k)`:
        k steps on a worker's copy, then the mean of the copies. Except under `Async`, pushes need a worker's session,
        see `worker`.
    isolation : "shard" or "none"
        "shard": every pull sees, for each shard, the state after a whole number of pushes. "none" (Hogwild): no locks;
        concurrent pushes may lose each other's updates of an element, and a pull may mix states.
    clip_norm : float, optional
        Gradients whose global norm, over all arrays, is larger are scaled down to it, as by torch's `clip_grad_norm_`.
        Cost: one pass over the gradients.
    clip_value : float, optional
        Clips each element of the gradients to [-clip_value, clip_value], inside the kernel.
    nonfinite : "apply", "skip" or "raise"
        What happens to a push whose gradients hold a NaN or an infinity. "skip" and "raise" cost one pass over the
        gradients; such a push is applied on no shard, and `stats` counts it as skipped.
    placement : None, str, mapping or sequence
        Where the shards go. None: the node of this process. "SPREAD", "PACK", "STRICT_SPREAD" or "STRICT_PACK": Ray's
        placement strategies. A mapping: what each shard asks for, ``{"num_cpus": 1, "resources": {"label": 0.1}}``. A
        sequence: such a mapping, or a node id, for each shard.
    name : str, optional
        For `fastps.get` in other drivers of the cluster.
    timeout : float
        Seconds after which creation, and an operation without a `timeout` of its own, stops waiting. ``math.inf``, here
        as in an operation: never.
    max_sessions : int
        Sessions per shard; each takes 2 to 8 KiB for the parameters and for each slot, and with tables at least the
        bytes of the longest row. A process of the shard's node keeps one session per thread that ever worked
        concurrently, and under `BSP` one more for its views.
    max_workers : int
        The most `worker` sessions at once, at most 256.

    Raises
    ------
    ParameterError, OptionError, PlacementError, NameTakenError, ArenaMemoryError, CompileError, WaitTimeoutError
        No process, actor or memory is left behind.

    Notes
    -----
    Cost: for each shard a Ray actor (about a quarter of a second) and a page fault per 4 KiB; about a second to compile
    a rule that this machine has not compiled before. Threads: any number may use a handle.

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
        from fastps.server.launch import launch  # loaded only where servers are created: takes 10 ms
        from fastps.server.options import plan_server

        plan = plan_server(
            params, rule=rule, num_shards=num_shards, consistency=consistency, isolation=isolation,
            clip_norm=clip_norm, clip_value=clip_value, nonfinite=nonfinite, placement=placement, name=name,
            timeout=timeout, max_sessions=max_sessions, max_workers=max_workers,
        )  # fmt: skip
        creations.warn()
        launched = launch(plan, attachments.session, attachments.drop)
        try:
            self.__setstate__((launched.spec, launched.owned))
            self.attachment.use(launched.session)
            creations.add(launched.spec, launched.owned, self)
        except BaseException:  # of a signal handler: nobody could close the server
            launched.owned.kill()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return handle_of, (self.attachment.spec,)

    def __setstate__(self, state: tuple[ServerSpec, Owned | None]) -> None:
        """A handle of a server. `Owned` makes it the handle of the owner, whose `close` ends the server."""
        spec, self._owned = state
        self._owner_pid = None if self._owned is None else os.getpid()
        self.attachment = Attachment(spec)
        self._free = spec.consistency.bound is None

    @staticmethod
    def remote(params: Any, **options: Any) -> ActorStyleServer:
        """A server used like a Ray actor: ``ps.get_params.remote()``, ``ps.update_params.remote(grad)`` and other verbs
        return Ray object references. Verbs of the calling process alone (`view`, `worker`, `flush`, `close`, futures,
        files, rows in batches) raise OptionError by `remote`. Without `remote`, verbs run in the calling process. See
        `fastps.server.actor_style.ActorStyleServer`."""
        return ActorStyleServer(ParameterServer(params, **options), handle_of)

    def __getitem__(self, name: str) -> Any:
        """The table or the array of this name: a `TableHandle` or an `ArrayHandle`. Names of nested mappings are
        joined by "/"."""
        return handle_named(self.attachment, name, TableHandle)

    @property
    def table(self) -> TableHandle:
        """The only table. Raises NamesError if there are several, or none."""
        return TableHandle(self.attachment, self._only_table())

    def reader(self) -> Reader:
        """A handle of the server that can only read: for programs that evaluate or serve the model. A guard against
        mistakes, not a security boundary. See `fastps.Reader`. Cost: none; nothing is sent."""
        return Reader(self.attachment)

    def configure(self, pattern: str | None = None, /, *, timeout: float | None = None, **hyper: float | None) -> None:
        """Changes hyper-parameters: ``ps.configure(lr=0.01)``. Every push that begins on a shard after that uses them.

        Where there are several rules, all that have the hyper-parameter are changed, or with `pattern` the one that was
        given for it: ``ps.configure("bias*", lr=0.01)``. A number replaces a schedule, None restores it. Shards change
        one after the other. Raises OptionError for unknown names and values that are not finite, with nothing changed.
        """
        arrays, spec = self.attachment.arrays or self.attachment.attach(), self.attachment.spec
        known = {h for rule in spec.rules for h in rule.hyper}
        known |= {h for i in spec.table_names.values() for h in spec.tables[i].rule.hyper}
        unknown = [name for name in hyper if name not in known]
        if unknown:
            raise OptionError(f"configure: unknown hyper-parameter `{unknown[0]}`; the rules have {sorted(known)}")
        chosen = [i for name, i in spec.table_names.items() if pattern is None or fnmatchcase(name, pattern)]
        named = [i for i in chosen if pattern is not None or set(hyper) & set(spec.tables[i].rule.hyper)]
        changes = []
        for i in named:
            rule = spec.tables[i].rule
            own = {n: v for n, v in hyper.items() if pattern is not None or n in rule.hyper}
            changes.append((i, rule.numbers(own, "configure")))
        of_arrays = {n: v for n, v in hyper.items() if not named or any(n in r.hyper for r in spec.rules)}
        outcome, deadline = Outcome(), deadline_after(arrays.session.limit(seconds(timeout)))
        try:
            if of_arrays and (not named or any(pattern in (None, rule.pattern) for rule in spec.rules)):
                arrays.configure(pattern, of_arrays, left_until(deadline), outcome)
            for i, numbers in changes:
                self.attachment.rows(i).configure(numbers, left_until(deadline), outcome)
        except BaseException as error:
            outcome.tell(error, "change")
            raise

    def close(self) -> None:
        """Called by the owner, ends the server: workers get ClosedError, memory is freed, the shards' processes end.
        Called on another handle, closes that handle in this process only. Idempotent."""
        owned = self._owned if self._owner_pid == os.getpid() else None
        session, spec = self.attachment.close(ends=owned is not None), self.attachment.spec
        if owned is not None:
            try:
                owned.end(CLOSE_SECONDS)
            finally:
                if session is not None:
                    session.discard()
            self._owner_pid = None  # only now: a close that was interrupted can be called again
            creations.remove(spec.server_id)
        if owned is not None or session is not None:
            attachments.drop(spec.server_id)

    def __enter__(self) -> ParameterServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def handle_of(spec: ServerSpec, owned: Owned | None = None) -> ParameterServer:
    """A handle. `owned` makes it the handle of the owner, whose `close` ends the server."""
    handle = ParameterServer.__new__(ParameterServer)
    handle.__setstate__((spec, owned))
    return handle
