"""A process's side of a table: which node has which keys, and one answer from all of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastps._core import Outcome, all_finite, process_of, shards_of, table_initial
from fastps.client.session import Resume, Session, apart, merged, norm_of, tokens_of
from fastps.cluster import ray as cluster
from fastps.deadline import deadline_after, left_until
from fastps.errors import (
    FastPSError,
    NonfiniteError,
    OptionError,
    RayRequiredError,
    TableFullError,
    WaitTimeoutError,
)
from fastps.transport.contract import TableWork
from fastps.transport.shm_table import ShmTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastps.transport.contract import Pending, TableTransport

Array = np.ndarray[Any, np.dtype[Any]]


class TableSession:
    """Runs operations on one table, each key by the transport that reaches its shard. Arguments are checked already.

    Threads: any number.
    """

    def __init__(self, session: Session, number: int) -> None:
        self.session, self.number, self.info = session, number, session.spec.tables[number]
        sightings = self.info.sightings
        self.sightings = None if sightings is None else TableSession(session, sightings)
        self.transports: list[TableTransport] = [transport.table(number) for transport in session.transports]
        self.num_shards = len(session.spec.plans)
        # All shards here: one C call checks and does everything, unless an argument needs a closer look.
        (first, *others) = self.transports
        self._direct = first.group if isinstance(first, ShmTable) and not others and self.sightings is None else None
        self._transport_of_shard = np.zeros(self.num_shards, np.intp)
        for i, transport in enumerate(self.transports):
            self._transport_of_shard[list(transport.shards)] = i

    def _split(self, keys: Array) -> list[Any]:
        """Per transport the places of its keys; a slice when it has all of them."""
        if len(self.transports) == 1:
            return [slice(None)]
        owner = self._transport_of_shard[shards_of(keys, self.num_shards)]
        return [np.flatnonzero(owner == i) for i in range(len(self.transports))]

    def run(
        self, work: TableWork, timeout: float | None, verb: str, resume: Any = None, outcome: Outcome | None = None
    ) -> None:
        """Raises what went wrong on any node, with where it went right."""
        resumes = tokens_of(resume, self, verb)
        deadline = deadline_after(self.session.limit(timeout))
        left: dict[int, tuple[TableWork, Any, Any]] = {}  # per transport its part, the places of that, what to resume
        for i, places in enumerate(self._split(work.keys)):
            if resumes is not None and i not in resumes:  # this part of the push was applied before
                assert outcome is not None
                outcome.end(self.transports[i].shards)
                continue
            part = work if isinstance(places, slice) else part_of(work, places)
            if len(part.keys) > 0 or work.grads is not None:  # a push is counted on every shard
                left[i] = part, places, resumes[i] if resumes else None
        if not left:  # no key at all: nobody else would say that the server is gone
            self.session.require_alive()
        while left:
            errors = self._run(left, work, left_until(deadline), outcome)
            if self.info.evict is None or any(not isinstance(error, TableFullError) for _, error in errors):
                break
            errors = self._make_room(errors, work.keys, deadline)
            if errors:
                break
        if left:
            for _, error in errors:
                self._explain(error)
            done = tuple(s for i, t in enumerate(self.transports) if i not in left for s in t.shards)
            try:
                raise merged(errors, done, work.grads is not None or work.sets is not None, self)
            finally:
                errors.clear()  # their tracebacks refer to this frame: else all of it stays until a collection

    def _explain(self, error: BaseException) -> None:
        """What a capacity is where there are several shards: the core knows of one."""
        if isinstance(error, TableFullError) and self.num_shards > 1 and self.info.capacity is not None:
            add_to(
                error,
                f"each of {self.num_shards} shards may have that many: its part of the table's capacity and 6 standard "
                f"deviations of how a hash spreads keys",
            )

    def _run(
        self, left: dict[int, tuple[TableWork, Any, Any]], work: TableWork, timeout: float, outcome: Outcome | None
    ) -> list[tuple[int, BaseException]]:
        """Runs what is left, all nodes at once. What succeeds is not left any more."""
        pending: list[tuple[int, Pending]] = []
        errors: list[tuple[int, BaseException]] = []
        for i, (part, places, resume) in list(left.items()):
            try:
                pending.append((i, self.transports[i].start(part, timeout, resume, outcome)))
            except RayRequiredError:
                raise  # other nodes come first: nothing has begun
            except FastPSError as error:
                errors.append((i, error))
                left[i] = part, places, getattr(error, "resume", None)
        for i, operation in pending:
            try:
                operation.finish()
            except FastPSError as error:
                errors.append((i, error))
                left[i] = *left[i][:2], getattr(error, "resume", None)
                continue
            part, places, _ = left.pop(i)
            if part is not work and work.outs is not None:
                work.outs[places] = part.outs
        return errors

    def _make_room(
        self, errors: list[tuple[int, BaseException]], keys: Array, deadline: float
    ) -> list[tuple[int, BaseException]]:
        """Rows of full shards end. Answers what to raise where that is of no use, or cannot be; nothing otherwise."""
        for i, error in errors:
            assert isinstance(error, TableFullError)
            try:
                if not self._make_room_on(error, keys, deadline):
                    return errors
            except WaitTimeoutError as reason:  # the push goes on from where the nodes have left it
                return [(j, self._late(full, j, reason if j == i else None)) for j, full in errors]
            except FastPSError as reason:
                return [(i, reason), *((j, full) for j, full in errors if j != i)]
        return []

    def _make_room_on(self, error: TableFullError, keys: Array, deadline: float) -> bool:
        """Rows of one shard end. False when that does not help."""
        mine = np.unique(keys[shards_of(keys, self.num_shards) == error.shard])
        if len(mine) > error.capacity:
            add_to(
                error,
                f"evict= makes no room for the {len(mine)} keys of this shard at once: pass at most {error.capacity}",
            )
            return False
        transport = self.transports[self._transport_of_shard[error.shard]]
        missing = int(np.count_nonzero(~transport.find(mine, left_until(deadline))))
        arguments = ("make_room", self.number, missing, mine, left_until(deadline))
        if error.shard in self.session.own_shards:
            made = self.session.own_shards[error.shard](*arguments)
        else:
            ref = cluster.actor_of(self.session.spec, error.shard).table.remote(*arguments)
            made = cluster.get(ref, left_until(deadline), "making room")
        return bool(made > 0 or missing == 0)

    def _late(self, error: BaseException, i: int, reason: WaitTimeoutError | None) -> WaitTimeoutError:
        """In the place of the error of a full shard, of transport `i`, that has made no room in time."""
        assert isinstance(error, TableFullError)
        address = self.session.spec.addresses[error.shard]
        here = self.session.shm is not None and error.shard in self.session.shm.arenas
        process = process_of(address.pid) if here else f"process {address.pid} on node {address.node_id[:8]}"
        because = f"its {process} has made no room in time ({reason})" if reason else "the time is up"
        rest = tuple(shard for shard in self.transports[i].shards if shard not in error.applied)
        begun = error.resume is not None
        return WaitTimeoutError(
            f"table `{self.info.name}`, {self.session.spec.label(error.shard)}: it is full, and {because}",
            error.applied, rest if begun else (), () if begun else rest, error.resume,
        )  # fmt: skip

    def _admitted(self, keys: Array, timeout: float | None) -> Array:
        """Counts a sighting of each key that has no row; which keys have one, or may have."""
        found = self.find(keys, timeout)
        if self.sightings is None or found.all():
            return found
        missing, places, counts = np.unique(keys[~found], return_inverse=True, return_counts=True)
        seen = self.sightings.info.empty(len(missing))
        try:
            self.sightings.run(TableWork(missing, counts.astype(np.float32)[:, np.newaxis], seen), timeout, "pull")
        except (WaitTimeoutError, TableFullError) as error:  # nothing of the operation itself has begun
            error.resume = None
            raise
        found[~found] = (seen[:, 0] >= self.info.admit)[places]
        return found

    def _forget_sightings(self, keys: Array, timeout: float | None) -> None:
        """Of keys that have rows now."""
        if self.sightings is not None and len(keys):
            counted = keys[self.sightings.find(keys, timeout)]
            if len(counted):
                self.sightings.remove(counted, [False], timeout)

    def pull_directly(self, keys: Any, out: Any, create: bool, timeout: float | None) -> Array | None:
        """The rows, when one C call could check the arguments and do everything; None when it could not."""
        if self._direct is None:
            return None
        try:
            rows: Array | None = self._direct.run_if_fits(keys, None, True, out, create, self.session.limit(timeout))
        except TableFullError as error:
            if self.info.evict is None:
                self._explain(error)
                raise
            return None
        return rows

    def push_directly(self, keys: Any, grads: Any, timeout: float | None, outcome: Outcome) -> bool:
        """The same of a push: whether it is done."""
        if self._direct is None or self.info.evict is not None or self.session.spec.gradients.inspects:
            return False
        try:
            limit = self.session.limit(timeout)
            return self._direct.run_if_fits(keys, grads, False, None, True, limit, outcome) is not None
        except (WaitTimeoutError, TableFullError) as error:
            self._explain(error)
            token, worst = error.resume, merged([(0, error)], (), True, self)
            if token is not None:
                worst.resume.keys = token.keys()  # type: ignore[attr-defined]
            raise worst from None

    def pull(self, keys: Array, outs: Array, create: bool, timeout: float | None) -> None:
        if create and self.sightings is not None:
            admitted = self._admitted(keys, timeout)
            if not admitted.all():
                for places, born in ((np.flatnonzero(admitted), True), (np.flatnonzero(~admitted), False)):
                    rows = np.empty((len(places), self.info.dim), self.info.dtype)
                    self.run(TableWork(keys[places], outs=rows, create=born), timeout, "pull")
                    outs[places] = rows
            else:
                self.run(TableWork(keys, outs=outs, create=create), timeout, "pull")
            self._forget_sightings(keys[admitted], timeout)
            return
        self.run(TableWork(keys, outs=outs, create=create), timeout, "pull")

    def push(
        self, keys: Array, grads: Array, outs: Array | None, timeout: float | None, resume: Any, outcome: Outcome
    ) -> bool:
        """False when the push was skipped: a gradient was not finite."""
        if isinstance(resume, Resume) and not np.array_equal(resume.keys, keys):  # of a set or a count: None
            raise OptionError(
                f"push to `{self.info.name}`: resume= is for the keys and gradients of the push that did not end; "
                f"nothing more was applied"
            )
        policy, scale = self.session.spec.gradients, 1.0
        if outs is not None:
            (grads,) = apart([grads], [outs])
        if policy.clip_norm < math.inf:
            norm = norm_of([grads])
            finite, scale = math.isfinite(norm), policy.scale(norm)
        elif policy.inspects:
            finite = all_finite([grads])
        if policy.nonfinite != "apply" and not finite:
            if resume is not None:
                raise OptionError(
                    f"push to `{self.info.name}`: resume= is for the gradients of the push that did not end, and some "
                    f"are NaN or infinite now; nothing more was applied, pass them as they were"
                )
            for transport in self.session.transports:
                transport.skipped()
            if policy.nonfinite == "raise":
                at = np.argwhere(~np.isfinite(grads))
                where = f"grads{at[0].tolist()}" if len(at) else "the norm of the gradients"
                raise NonfiniteError(f"push to `{self.info.name}`: {where} is NaN or infinite; nothing was applied")
            return False
        try:
            if self.sightings is None:
                self.run(TableWork(keys, grads, outs, scale=scale), timeout, "push", resume, outcome)
            else:
                self._push_admitted(keys, grads, outs, scale, timeout, resume, outcome)
        except (WaitTimeoutError, TableFullError) as error:
            if isinstance(error.resume, Resume):
                error.resume.keys = keys
            raise
        return True

    def _push_admitted(
        self,
        keys: Array,
        grads: Array,
        outs: Array | None,
        scale: float,
        timeout: float | None,
        resume: Any,
        outcome: Outcome,
    ) -> None:
        """Pushes of other keys are dropped; they keep their first values."""
        places = getattr(resume, "places", None)
        if places is None:
            places = np.flatnonzero(self.find(keys, timeout) if outs is None else self._admitted(keys, timeout))
        rows = None if outs is None else np.empty((len(places), self.info.dim), self.info.dtype)
        try:
            self.run(TableWork(keys[places], grads[places], rows, scale=scale), timeout, "push", resume, outcome)
        except (WaitTimeoutError, TableFullError) as error:
            if isinstance(error.resume, Resume):
                error.resume.places = places
            raise
        if outs is not None:
            table_initial(self.info.layout(1), keys, outs)
            outs[places] = rows
            self._forget_sightings(keys[places], timeout)

    def set(self, keys: Array, streams: list[Any], timeout: float | None, outcome: Outcome | None = None) -> None:
        self.run(TableWork(keys, sets=streams), timeout, "set", None, outcome)

    def find(self, keys: Array, timeout: float | None) -> Array:
        found = np.zeros(len(keys), np.bool_)
        for transport, places in zip(self.transports, self._split(keys), strict=True):
            found[places] = transport.find(keys[places], timeout)
        return found

    def seen(self, keys: Array, timeout: float | None) -> tuple[Array, Array]:
        ages, counts = np.empty(len(keys)), np.empty(len(keys), np.int64)
        for transport, places in zip(self.transports, self._split(keys), strict=True):
            ages[places], counts[places] = transport.seen(keys[places], timeout)
        return ages, counts

    def remove(
        self, keys: Array, wanted: list[bool], timeout: float | None, outcome: Outcome | None = None
    ) -> tuple[Array, list[Any]]:
        """Which keys had a row, and what it held."""
        removed = np.zeros(len(keys), np.bool_)
        streams = [self.info.empty(len(keys), k) if want else None for k, want in enumerate(wanted)]
        for transport, places in zip(self.transports, self._split(keys), strict=True):
            removed[places], held = transport.remove(keys[places], wanted, timeout, outcome)
            for out, some in zip(streams, held, strict=True):
                if out is not None:
                    out[places] = some
        return removed, streams

    def scan(self, most: int, wanted: list[bool], timeout: float | None) -> Iterator[tuple[Array, list[Any]]]:
        """All rows in batches of at most `most`, shard by shard."""
        for transport in self.transports:
            for shard in transport.shards:
                cursor = 0
                while True:
                    keys, streams, cursor = transport.scan(shard, cursor, most, wanted, timeout)
                    if len(keys) == 0:
                        break
                    yield keys, streams

    def counters(self, timeout: float | None) -> dict[int, dict[str, int]]:
        counted: dict[int, dict[str, int]] = {}
        for transport in self.transports:
            counted |= transport.counters(timeout)
        return counted

    def configure(self, numbers: dict[int, float], timeout: float, outcome: Outcome) -> None:
        deadline = deadline_after(timeout)
        for transport in self.transports:
            transport.configure(numbers, left_until(deadline), outcome)

    def hyper(self, timeout: float) -> list[float]:
        return self.transports[-1].hyper(len(self.info.rule.hyper), timeout)


def part_of(work: TableWork, places: Array) -> TableWork:
    def some(array: Array | None) -> Any:
        return None if array is None else np.ascontiguousarray(array[places])

    outs = None if work.outs is None else np.empty((len(places), *work.outs.shape[1:]), work.outs.dtype)
    sets = None if work.sets is None else [some(stream) for stream in work.sets]
    return TableWork(some(work.keys), some(work.grads), outs, sets, work.create, work.scale)


def add_to(error: BaseException, text: str) -> None:
    error.args = (f"{error}; {text}",)
