"""The client side of a table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastps._core import Outcome, process_of, shards_of, table_initial
from fastps.arrays.checks import apart
from fastps.arrays.types import Array
from fastps.client.resume import Resume
from fastps.client.session import Session
from fastps.deadline import deadline_after, left_until
from fastps.errors import FastPSError, KeysError, OptionError, SplitError, TableFullError, WaitTimeoutError
from fastps.messages import few
from fastps.spec.initial import FirstRows
from fastps.spec.keys import from_keys
from fastps.transport.contract import Operation


class RowSession:
    """Runs operations on one table. Arguments are checked already. Threads: any number."""

    def __init__(self, session: Session, number: int) -> None:
        self.session, self.number, self.info = session, number, session.spec.tables[number]
        sightings = self.info.sightings
        self.sightings = None if sightings is None else RowSession(session, sightings)
        self.num_shards = len(session.spec.plans)
        # All shards here: one C call checks and does everything, unless an argument needs a closer look.
        here = session.shm if session.all_here and self.sightings is None else None
        self._direct = None if here is None else here.verbs.tables[number].group

    def limit(self, timeout: float | None) -> float:
        """As `Session.limit`."""
        return self.session.limit(timeout)

    def run(
        self, operation: Operation, timeout: float | None, verb: str, resume: Any = None, outcome: Outcome | None = None
    ) -> None:
        """Runs an operation. If the table evicts, full shards are asked to evict rows, and the operation is resumed."""
        deadline = deadline_after(self.session.limit(timeout))
        while True:
            try:
                self.session.run(operation, left_until(deadline), verb, resume, outcome)
                return
            except TableFullError as error:
                if self.info.evict is None:
                    self._explain(error)
                    raise
                assert operation.keys is not None
                self._make_room(error, operation.keys, deadline)
                resume = error.resume

    def _explain(self, error: TableFullError) -> None:
        """Explains the capacity per shard: the core knows one shard."""
        if self.num_shards > 1 and self.info.capacity is not None:
            add_to(
                error,
                f"each of {self.num_shards} shards may have that many: its part of the table's capacity and 6 standard "
                f"deviations of how a hash spreads keys",
            )

    def _make_room(self, error: TableFullError, keys: Array, deadline: float) -> None:
        """Asks a full shard to evict rows. Raises `error` where that does not help, and WaitTimeoutError when it takes
        too long; then the operation can be resumed."""
        shard = error.shard
        mine = np.unique(keys[shards_of(keys, self.num_shards) == shard])
        if len(mine) > error.capacity:
            add_to(
                error,
                f"evict= makes no room for the {len(mine)} keys of this shard at once: pass at most {error.capacity}",
            )
            raise error
        try:
            found = self.session.endpoint_of(shard).ask("find", self.number, mine, timeout=left_until(deadline))
            missing = int(np.count_nonzero(~found))
            process = self.session.process_of(shard)
            made = process.ask("make_room", self.number, missing, mine, timeout=left_until(deadline))
        except WaitTimeoutError as reason:
            raise self._late(error, reason) from None
        except FastPSError as reason:
            reason.resume = error.resume
            raise
        if not made and missing:
            self._explain(error)
            raise error
        if left_until(deadline) == 0:
            raise self._late(error, None)

    def _late(self, error: TableFullError, reason: WaitTimeoutError | None) -> WaitTimeoutError:
        """The error for a full shard that evicted no rows in time."""
        spec, shard = self.session.spec, error.shard
        address, endpoint = spec.addresses[shard], self.session.endpoint_of(shard)
        here = endpoint is self.session.shm
        node = spec.node_of(shard).node_id[:8]
        process = process_of(address.pid) if here else f"process {address.pid} on node {node}"
        because = f"its {process} has made no room in time ({reason})" if reason else "the time is up"
        rest = tuple(shard for shard in endpoint.shards if shard not in error.applied)
        begun = isinstance(error.resume, Resume) and error.resume.begun
        return WaitTimeoutError(
            f"table `{self.info.name}`, {spec.label(shard)}: it is full, and {because}",
            error.applied, rest if begun else (), () if begun else rest, error.resume,
        )  # fmt: skip

    def _admitted(self, keys: Array, deadline: float) -> Array:
        """Counts a sighting of each key that has no row. Returns which keys have a row, or are admitted now."""
        found = self.find(keys, left_until(deadline))
        if self.sightings is None or found.all():
            return found
        missing, places, counts = np.unique(keys[~found], return_inverse=True, return_counts=True)
        seen = self.sightings.info.empty(len(missing))
        counting = Operation(
            self.sightings.number, missing, [counts.astype(np.float32)[:, np.newaxis]], [seen]
        )  # fmt: skip
        try:
            self.sightings.run(counting, left_until(deadline), "pull")
        except FastPSError as error:
            error.resume = None  # nothing of the operation itself has begun
            raise
        found[~found] = (seen[:, 0] >= self.info.admit)[places]
        return found

    def _forget_sightings(self, keys: Array, deadline: float) -> None:
        """Removes the sightings of keys that have rows now; those for which there is no time, with the next pull."""
        if self.sightings is not None and len(keys):
            with contextlib.suppress(WaitTimeoutError):
                counted = keys[self.sightings.find(keys, left_until(deadline))]
                if len(counted):
                    self.sightings.remove(counted, [False], left_until(deadline))

    def pull_directly(self, keys: Any, out: Any, create: bool, timeout: float | None) -> Array | None:
        """The rows, if one C call could check the arguments and do everything; otherwise None."""
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
        """The same for a push: whether it was done."""
        if self._direct is None or self.info.evict is not None or self.session.spec.gradients.inspects:
            return False
        try:
            limit = self.session.limit(timeout)
            return self._direct.run_if_fits(keys, grads, False, None, True, limit, outcome) is not None
        except (WaitTimeoutError, TableFullError) as error:
            if isinstance(error, TableFullError):
                self._explain(error)
            token, worst = error.resume, self.session.late(error, True, self.number)
            resume = getattr(worst, "resume", None)
            if isinstance(resume, Resume) and token is not None:
                resume.keys = token.keys()  # type: ignore[attr-defined]
            raise worst from None

    def pull(self, keys: Array, outs: Array, create: bool, timeout: float | None) -> None:
        if create and self.sightings is not None:
            deadline = deadline_after(self.session.limit(timeout))
            admitted = self._admitted(keys, deadline)
            if not admitted.all():
                for places, created in ((np.flatnonzero(admitted), True), (np.flatnonzero(~admitted), False)):
                    rows = np.empty((len(places), self.info.dim), outs.dtype)
                    pulling = Operation(self.number, keys[places], outs=[rows], create=created)
                    self.run(pulling, left_until(deadline), "pull")
                    outs[places] = rows
            else:
                self.run(Operation(self.number, keys, outs=[outs], create=create), left_until(deadline), "pull")
            self._forget_sightings(keys[admitted], deadline)
            return
        self.run(Operation(self.number, keys, outs=[outs], create=create), timeout, "pull" if create else "peek")

    def push(
        self, keys: Array, grads: Array, outs: Array | None, timeout: float | None, resume: Any, outcome: Outcome
    ) -> bool:
        """False when the push was skipped: a gradient was not finite."""
        verb = f"push to `{self.info.name}`"
        if isinstance(resume, Resume) and not np.array_equal(resume.keys, keys):  # keys are None after set or counts
            raise OptionError(
                f"{verb}: resume= is for the keys and gradients of the push that did not end; nothing more was applied"
            )
        if outs is not None:
            (grads,) = apart([grads], [outs])
        scale = self.session.scale([grads], lambda _: "grads", verb, resume)
        if scale is None:
            return False
        pushing = Operation(self.number, keys, [grads], None if outs is None else [outs], scale=scale)
        try:
            if self.sightings is None:
                self.run(pushing, timeout, "push", resume, outcome)
            else:
                self._push_admitted(pushing, timeout, resume, outcome)
        except FastPSError as error:
            if isinstance(error.resume, Resume):
                error.resume.keys = keys
            raise
        return True

    def _push_admitted(self, pushing: Operation, timeout: float | None, resume: Any, outcome: Outcome) -> None:
        """Pushes the admitted keys only; the others keep their initial values."""
        keys, outs, deadline = pushing.keys, pushing.outs, deadline_after(self.session.limit(timeout))
        assert keys is not None
        places = getattr(resume, "places", None)
        if places is None:
            known = self.find(keys, left_until(deadline)) if outs is None else self._admitted(keys, deadline)
            places = np.flatnonzero(known)
        part = pushing.rows(places)
        try:
            self.run(part, left_until(deadline), "push", resume, outcome)
        except FastPSError as error:
            if isinstance(error.resume, Resume):
                error.resume.places = places
            raise
        if outs is not None and part.outs is not None:
            table_initial(self.info.layout(1), keys, outs[0])
            outs[0][places] = part.outs[0]
            self._forget_sightings(keys[places], deadline)

    def set(self, keys: Array, streams: list[Any], timeout: float | None, outcome: Outcome | None = None) -> None:
        self.run(Operation(self.number, keys, sets=streams), timeout, "set", None, outcome)

    def begin(self, rows: FirstRows, timeout: float) -> None:
        """Sets the rows with which the table begins. `timeout` is for each operation."""
        for endpoint in self.session.endpoints if rows.steps else ():
            for shard in endpoint.shards:
                endpoint.ask("resume", self.number, shard, rows.steps[shard], rows.now, timeout=timeout)
        for batch in rows.batches:
            outcome = Outcome()
            try:
                self.set(batch.keys, batch.streams, timeout, outcome)
                for endpoint, places in zip(self.session.endpoints, self.session.places(batch.keys), strict=True):
                    if batch.uses is not None:
                        endpoint.ask("use", self.number, batch.keys[places], batch.uses[places], timeout=timeout)
            except BaseException as error:
                outcome.tell(error, "set")
                raise

    def find(self, keys: Array, timeout: float | None) -> Array:
        found = np.zeros(len(keys), np.bool_)
        for places, some in self._ask("find", keys, timeout=timeout):
            found[places] = some
        return found

    def seen(self, keys: Array, timeout: float | None) -> tuple[Array, Array]:
        ages, counts = np.empty(len(keys)), np.empty(len(keys), np.int64)
        for places, some in self._ask("seen", keys, timeout=timeout):
            ages[places], counts[places] = some
        return ages, counts

    def remove(
        self, keys: Array, wanted: list[bool], timeout: float | None, outcome: Outcome | None = None
    ) -> tuple[Array, list[Any]]:
        """Removes rows. Returns which keys had one, and what it held."""
        removed = np.zeros(len(keys), np.bool_)
        streams = [self.info.empty(len(keys), k) if want else None for k, want in enumerate(wanted)]
        for places, (some, held) in self._ask("remove", keys, wanted, timeout=timeout, outcome=outcome):
            removed[places] = some
            for out, values in zip(streams, held, strict=True):
                if out is not None:
                    out[places] = values
        return removed, streams

    def _ask(
        self, verb: str, keys: Array, *arguments: Any, timeout: float | None, outcome: Outcome | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """Per node, the positions of its keys, and what the verb returned."""
        deadline = deadline_after(self.session.limit(timeout))
        for endpoint, places in zip(self.session.endpoints, self.session.places(keys), strict=True):
            left = left_until(deadline)
            yield places, endpoint.ask(verb, self.number, keys[places], *arguments, timeout=left, outcome=outcome)

    def scan(self, most: int, wanted: list[bool], timeout: float | None) -> Iterator[tuple[Array, list[Any]]]:
        """All rows in batches of at most `most`, shard by shard; `timeout` is for each batch."""
        limit = self.session.limit(timeout)
        for endpoint in self.session.endpoints:
            for shard in endpoint.shards:
                cursor = 0
                while True:
                    keys, streams, cursor = endpoint.ask(
                        "scan", self.number, shard, cursor, most, wanted, timeout=limit
                    )  # fmt: skip
                    if len(keys) == 0:
                        break
                    yield keys, streams

    def views(self, keys: Array, create: bool) -> list[Array]:
        """Read-only arrays on the rows of keys. Missing rows are created, or if not, KeysError. Raises SplitError."""
        here = self.session.shm
        if here is None or not self.session.all_here:
            raise SplitError(
                f"view `{self.info.name}`: shards are on other nodes, whose memory cannot be viewed; use pull()"
            )
        if create:
            self.run(Operation(self.number, keys, outs=[self.info.empty(len(keys))]), None, "view")  # admitted at once
        elif not (found := self.find(keys, None)).all():
            missing = from_keys(keys[~found], self.info.keys).tolist()
            raise KeysError(f"view `{self.info.name}`: no row for {few(missing)}; read with peek(keys)")
        return here.verbs.tables[self.number].views(keys)

    def require_alive(self) -> None:
        """As `Session.require_alive`."""
        self.session.require_alive()

    def counters(self, timeout: float | None) -> dict[int, dict[str, int]]:
        return self.session.counters(self.number, timeout)

    def configure(self, numbers: dict[int, float], timeout: float | None, outcome: Outcome) -> None:
        self.session.ask("configure", self.number, 0, numbers, timeout=timeout, outcome=outcome)

    def hyper(self, timeout: float | None) -> list[float]:
        endpoint, count = self.session.endpoints[-1], len(self.info.rule.hyper)
        values: list[float] = endpoint.ask("hyper", self.number, 0, count, timeout=self.session.limit(timeout))
        return values


def add_to(error: BaseException, text: str) -> None:
    error.args = (f"{error}; {text}",)
