"""A process's side of a table: which node has which keys, and one answer from all of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastps._core import all_finite, shards_of
from fastps.errors import FastPSError, NonfiniteError
from fastps.session import Session, apart, merged, norm_of, tokens_of
from fastps.transport.contract import TableWork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastps.transport.contract import Pending, TableTransport

Array = np.ndarray[Any, np.dtype[Any]]


class TableSession:
    """Runs operations on one table, each key by the transport that reaches its shard. Arguments are checked already.

    Threads: any number.
    """

    def __init__(self, session: Session, number: int) -> None:
        self.session, self.info = session, session.spec.tables[number]
        self.transports: list[TableTransport] = [transport.table(number) for transport in session.transports]
        self.num_shards = len(session.spec.plans)
        self._transport_of_shard = np.zeros(self.num_shards, np.intp)
        for i, transport in enumerate(self.transports):
            self._transport_of_shard[list(transport.shards)] = i

    def _split(self, keys: Array) -> list[Any]:
        """Per transport the places of its keys; a slice when it has all of them."""
        if len(self.transports) == 1:
            return [slice(None)]
        owner = self._transport_of_shard[shards_of(keys, self.num_shards)]
        return [np.flatnonzero(owner == i) for i in range(len(self.transports))]

    def run(self, work: TableWork, timeout: float | None, verb: str, resume: Any = None) -> None:
        """Raises what went wrong on any node, with where it went right."""
        resumes = tokens_of(resume, self, verb)
        pending: list[tuple[int, Pending, TableWork, Any]] = []
        errors: list[tuple[int, BaseException]] = []
        for i, places in enumerate(self._split(work.keys)):
            if resumes is not None and i not in resumes:
                continue  # this part of the push was applied before
            part = work if isinstance(places, slice) else part_of(work, places)
            if len(part.keys) == 0 and work.grads is None:
                continue  # a push is counted on every shard
            try:
                started = self.transports[i].start(part, timeout, resumes[i] if resumes else None)
                pending.append((i, started, part, places))
            except (FastPSError, KeyboardInterrupt) as error:
                errors.append((i, error))
        for i, operation, part, places in pending:
            try:
                operation.finish()
                if part is not work and work.outs is not None:
                    work.outs[places] = part.outs
            except (FastPSError, KeyboardInterrupt) as error:
                errors.append((i, error))
        if errors:
            failed = {i for i, _ in errors}
            done = tuple(s for i, t in enumerate(self.transports) if i not in failed for s in t.shards)
            raise merged(errors, done, work.grads is not None or work.sets is not None, self)

    def pull(self, keys: Array, outs: Array, create: bool, timeout: float | None) -> None:
        self.run(TableWork(keys, outs=outs, create=create), timeout, "pull")

    def push(self, keys: Array, grads: Array, outs: Array | None, timeout: float | None, resume: Any) -> bool:
        """False when the push was skipped: a gradient was not finite."""
        policy, scale = self.session.spec.gradients, 1.0
        if outs is not None:
            grads = apart(grads, [outs])
        if policy.clip_norm < math.inf:
            norm = norm_of([grads])
            finite, scale = math.isfinite(norm), policy.scale(norm)
        elif policy.inspects:
            finite = all_finite([grads])
        if policy.nonfinite != "apply" and not finite:
            for transport in self.session.transports:
                transport.skipped()
            if policy.nonfinite == "raise":
                at = np.argwhere(~np.isfinite(grads))
                where = f"grads{at[0].tolist()}" if len(at) else "the norm of the gradients"
                raise NonfiniteError(f"push to `{self.info.name}`: {where} is NaN or infinite; nothing was applied")
            return False
        self.run(TableWork(keys, grads, outs, scale=scale), timeout, "push", resume)
        return True

    def set(self, keys: Array, streams: list[Any], timeout: float | None) -> None:
        self.run(TableWork(keys, sets=streams), timeout, "set")

    def find(self, keys: Array, timeout: float | None) -> Array:
        found = np.zeros(len(keys), np.bool_)
        for transport, places in zip(self.transports, self._split(keys), strict=True):
            found[places] = transport.find(keys[places], timeout)
        return found

    def remove(self, keys: Array, wanted: list[bool], timeout: float | None) -> tuple[Array, list[Any]]:
        """Which keys had a row, and what it held."""
        removed = np.zeros(len(keys), np.bool_)
        streams = [self.info.empty(len(keys), k) if want else None for k, want in enumerate(wanted)]
        for transport, places in zip(self.transports, self._split(keys), strict=True):
            removed[places], held = transport.remove(keys[places], wanted, timeout)
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

    def configure(self, numbers: dict[int, float], timeout: float) -> None:
        for transport in self.transports:
            transport.configure(numbers, timeout)

    def hyper(self, timeout: float) -> list[float]:
        return self.transports[-1].hyper(len(self.info.rule.hyper), timeout)


def part_of(work: TableWork, places: Array) -> TableWork:
    def some(array: Array | None) -> Any:
        return None if array is None else np.ascontiguousarray(array[places])

    outs = None if work.outs is None else np.empty((len(places), *work.outs.shape[1:]), work.outs.dtype)
    sets = None if work.sets is None else [some(stream) for stream in work.sets]
    return TableWork(some(work.keys), some(work.grads), outs, sets, work.create, work.scale)
