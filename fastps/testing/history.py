"""What workers saw and did, and whether their consistency allows it.

`Recorder` wraps a worker's session and records its operations; `check_ssp` and `check_bsp` find violations in the
events of all workers. They rely on the update counts that operations report and on the order of times on one machine.
Missing events (a killed worker's last ones) weaken the checks, but cause no false violations. `check_sums` does not
rely on reports: it compares with the values of the parameters, and needs all events.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np

OPERATIONS = ("pull", "push", "push_pull", "end_step")
LIMIT = 100  # violations that are reported one by one


@dataclass(frozen=True)
class Event:
    """An operation of a worker, or that it joined or left.

    Attributes
    ----------
    rank : of the worker
    member : number of its session; a new one after it was expelled and rejoined
    kind : join, pull, push, push_pull, end_step, leave; failed: an operation that raised, whose effect is unknown
    clock, staleness, versions, counted : as in the worker's reply
    began_ns, ended_ns : time.monotonic_ns, the same for all processes of a machine
    step : whether it was to end the step
    gave, read : the recorder's `value` of the gradients and of the parameters; None: not recorded
    """

    rank: int
    member: int
    kind: str
    clock: int
    staleness: int = 0
    versions: tuple[int, ...] = ()
    counted: bool = True
    began_ns: int = 0
    ended_ns: int = 0
    step: bool = False
    gave: float | None = None
    read: float | None = None

    @property
    def gives(self) -> bool:
        return self.kind in ("push", "push_pull") and self.counted and self.versions != ()

    @property
    def reads(self) -> bool:
        return self.kind == "pull" or (self.kind == "push_pull" and self.gives)

    def __str__(self) -> str:
        return f"{self.kind} of rank {self.rank} (member {self.member:016x}) at clock {self.clock}"


@dataclass(frozen=True)
class Violation:
    """A violation of the consistency: a sentence, and its events."""

    text: str
    events: tuple[Event, ...] = ()


class Session(Protocol):
    """What a recorder needs of a worker's session. `fastps.workers.worker.Worker` says what each one means."""

    @property
    def rank(self) -> int: ...
    @property
    def clock(self) -> int: ...
    @property
    def returns(self) -> int: ...
    @property
    def reply(self) -> Any: ...
    @property
    def pull(self) -> Callable[..., Any]: ...
    @property
    def push(self) -> Callable[..., Any]: ...
    @property
    def push_pull(self) -> Callable[..., Any]: ...
    @property
    def end_step(self) -> Callable[..., Any]: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> None: ...


class Recorder:
    """A worker's session that records what it does: ``with Recorder(ps.worker()) as w:``.

    Everything that is not recorded is passed to the session. With `path`, each of `events` is appended to that file as
    a line, with one write, so that a kill loses nothing that had ended. `value` maps gradients, or parameters, to one
    number, for `check_sums`.
    """

    def __init__(
        self,
        worker: Session,
        *,
        path: str | os.PathLike[str] | None = None,
        value: Callable[[Any], float] | None = None,
    ) -> None:
        self._worker, self._returns, self.member = worker, worker.returns, secrets.randbits(64)
        self._value = value
        self.events: list[Event] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = None if path is None else os.open(path, flags, 0o644)

    def pull(self, **options: Any) -> Any:
        return self._run("pull", False, None, lambda: self._worker.pull(**options))

    def push(self, grads: Any, *, step: bool = True, **options: Any) -> Any:
        return self._run("push", step, grads, lambda: self._worker.push(grads, step=step, **options))

    def push_pull(self, grads: Any, *, step: bool = True, **options: Any) -> Any:
        return self._run("push_pull", step, grads, lambda: self._worker.push_pull(grads, step=step, **options))

    def end_step(self, **options: Any) -> None:
        self._run("end_step", True, None, lambda: self._worker.end_step(**options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worker, name)

    def __enter__(self) -> Recorder:
        self._worker.__enter__()
        self._note(time.monotonic_ns(), kind="join", clock=self._worker.clock)
        return self

    def __exit__(self, *error: Any) -> None:
        began = time.monotonic_ns()
        try:
            self._worker.__exit__(*error)
            self._note(began, kind="leave", clock=self._worker.clock)
        finally:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _run(self, kind: str, step: bool, grads: Any, call: Callable[[], Any]) -> Any:
        worker, began = self._worker, time.monotonic_ns()
        event: dict[str, Any] = {"kind": "failed", "clock": worker.clock}
        try:
            result = call()
            event |= {"kind": kind, "step": step}
            if kind != "end_step" and worker.reply is not None:
                event |= {name: getattr(worker.reply, name) for name in ("clock", "staleness", "versions", "counted")}
            if self._value is not None and kind in ("push", "push_pull"):
                event["gave"] = self._value(grads)
            if self._value is not None and kind in ("pull", "push_pull"):
                event["read"] = self._value(result)
            return result
        finally:
            # The others do not wait for an expelled worker, so its push may be late. It is unknown whether this
            # operation came before or after it rejoined: it belongs to a member that joins when all of it is over.
            came_back = worker.returns != self._returns
            if came_back:
                self._returns, self.member = worker.returns, secrets.randbits(64)
            self._note(began, **event)
            if came_back:
                self._note(time.monotonic_ns(), kind="join", clock=worker.clock)

    def _note(self, began: int, **known: Any) -> None:
        known |= {"began_ns": began, "ended_ns": time.monotonic_ns()}
        event = Event(rank=self._worker.rank, member=self.member, **known)
        self.events.append(event)
        if self._file is not None:
            os.write(self._file, json.dumps(vars(event)).encode() + b"\n")


def load(path: str | os.PathLike[str]) -> list[Event]:
    """The events in a recorder's file. An incomplete last line is ignored."""
    with open(path, "rb") as file:
        *lines, _ = file.read().split(b"\n")
    told = [json.loads(line) for line in lines]
    return [Event(**{**event, "versions": tuple(event["versions"])}) for event in told]


def check_ssp(events: Iterable[Event], staleness: int) -> list[Violation]:
    """Violations of `SSP(staleness)` in the events of all workers, those of each member in order.

    A pull at clock c sees the pushes of clocks below c - staleness of every worker that had joined before, and all
    earlier ones of its own; what a worker reads never goes back, its clock grows by one a step, it is told a staleness
    within the bound, and each update count is made by one push. A push_pull is both.

    Cost: linear in the events, and in the members for each pull.
    """
    return _limited(_against_ssp(list(events), staleness))


def check_bsp(events: Iterable[Event], backup: int = 0) -> list[Violation]:
    """Violations of `BSP(backup=backup)` in the events of all workers, those of each member in order.

    A pull reads one round of all shards: that of its clock, or with backup workers that or a later one. A push that
    counts goes to the round of its clock, and no other that ends a step of this rank goes to the same. A push_pull that
    ends its step reads the round that it is in. Without backup workers a clock grows by one a step.
    """
    return _limited(_against_bsp(events, backup))


def check_sums(events: Iterable[Event], initial: float = 0.0) -> list[Violation]:
    """Violations of `BSP(reduce="sum")` with the rule `Add`, where recorders record values: parameters that differ from
    `initial` plus the sum of what counts in the rounds up to theirs.

    Needs the events of all workers. Rounds after that of an operation that failed are not checked.
    """
    return _limited(_against_sums(list(events), initial))


def _limited(found: Iterator[Violation]) -> list[Violation]:
    kept, more = list(islice(found, LIMIT)), sum(1 for _ in found)
    return [*kept, Violation(f"and {more} more")] if more else kept


def _by_member(events: Iterable[Event]) -> dict[int, list[Event]]:
    members = defaultdict(list)
    for event in events:
        members[event.member].append(event)
    return members


def _against_ssp(events: Sequence[Event], staleness: int) -> Iterator[Violation]:
    members, made = _by_member(events), dict[tuple[int, int], Event]()
    for history in members.values():
        yield from _against_clocks(history, staleness)
        yield from _against_order(history)
    for event in events:
        for shard, version in enumerate(event.versions if event.gives else ()):
            before = made.setdefault((shard, version), event)
            if before is not event and version > 0:
                yield Violation(f"{event} made version {version} of shard {shard}, as {before} did", (event, before))
    yield from _against_bound(events, members, staleness)


def _against_clocks(history: Sequence[Event], staleness: float) -> Iterator[Violation]:
    least, most, last = 0, math.inf, history[0]
    for event in history:
        if event.kind == "failed":
            most = math.inf  # it may have ended its step, or the next operation does it for it
        elif event.kind != "leave":
            if event.kind != "join" and not least <= event.clock <= most:
                yield Violation(f"{event} should be at clock {least}, after {last}", (event, last))
            if event.staleness > staleness:
                yield Violation(f"{event} was told a staleness of {event.staleness}, more than {staleness}", (event,))
            least = most = event.clock + event.step
            last = event


def _against_order(history: Sequence[Event]) -> Iterator[Violation]:
    newest: dict[int, tuple[int, Event]] = {}  # by shard, what this member has read or made, and when
    for event in history:
        for shard, version in enumerate(event.versions if event.reads or event.gives else ()):
            before, by = newest.get(shard, (0, event))
            if version >= before:
                newest[shard] = version, event
            elif event.kind == "pull" or (event.reads and version > 0):
                text = f"{event} read version {version} of shard {shard} after version {before} of {by}"
                yield Violation(text, (event, by))


def _against_bound(events: Iterable[Event], members: dict[int, list[Event]], staleness: int) -> Iterator[Violation]:
    reads = [event for event in events if event.reads]
    if not reads:
        return
    reader = np.array([event.member for event in reads], np.uint64)
    began = np.array([event.began_ns for event in reads])
    due = np.array([event.clock for event in reads]) - staleness - 1
    versions = np.array([event.versions for event in reads])
    both = np.array([event.kind == "push_pull" for event in reads])
    versions[(versions == 0) & both[:, None]] = np.iinfo(np.int64).max  # resumed: what it read is not known
    for member, history in members.items():
        joined = min((event.ended_ns for event in history if event.kind == "join"), default=None)
        pushes = sorted(_ended(history), key=lambda push: push.clock)
        if joined is None or not pushes:
            continue
        # For each push, the newest versions of all up to its clock, and which of them made each.
        made = np.array([push.versions for push in pushes])
        newest = np.maximum.accumulate(made)
        by = np.maximum.accumulate(np.where(made == newest, np.arange(len(pushes))[:, None], 0))
        last = np.searchsorted([push.clock for push in pushes], due, side="right") - 1
        rows = np.flatnonzero((last >= 0) & (began >= joined) & (reader != np.uint64(member)))
        missing = newest[last[rows]] > versions[rows]
        for at in np.flatnonzero(missing.any(axis=1)):
            shard, read = int(missing[at].argmax()), reads[rows[at]]
            push = pushes[by[last[rows[at]], shard]]
            text = f"{read} read version {read.versions[shard]} of shard {shard}, before version {push.versions[shard]}"
            yield Violation(f"{text} of {push}", (read, push))


def _ended(history: Iterable[Event]) -> Iterator[Event]:
    """The pushes whose step the member has ended: before that it could be expelled, and the push come late."""
    in_step: list[Event] = []
    for event in history:
        if event.gives:
            in_step.append(event)
        if event.kind in OPERATIONS and event.step:
            yield from in_step
            in_step = []


def _against_bsp(events: Iterable[Event], backup: int) -> Iterator[Violation]:
    ended: dict[tuple[int, int], Event] = {}
    for history in _by_member(events).values():
        # A push without `step` has no effect until the push that ends the step.
        yield from _against_order([event for event in history if event.kind != "push" or event.step])
        if not backup:
            yield from _against_clocks(history, math.inf)
        # A worker that was expelled while it read may read a later round. It then continues as another member, if at
        # all.
        joined = next((at for at, event in enumerate(history) if event.kind == "join"), 0)
        last = max((at for at, event in enumerate(history) if event.kind in (*OPERATIONS, "leave")), default=0)
        for at, event in enumerate(history):
            if not (event.reads or event.gives):
                continue
            number = event.versions[0]
            due = event.clock + (event.kind == "push" or (event.gives and event.step))
            if event.versions != (number,) * len(event.versions):
                yield Violation(f"{event} has different rounds on its shards, {event.versions}", (event,))
            if event.reads and number < due:
                yield Violation(f"{event} read round {number}, an earlier one", (event,))
            if event.reads and number > due and not backup and joined <= at < last:
                yield Violation(f"{event} read round {number}, which closed without it", (event,))
            if event.gives and (event.staleness or (event.kind == "push" and number != due)):
                yield Violation(f"{event} counts in round {number} with staleness {event.staleness}", (event,))
            before = ended.setdefault((event.rank, event.clock), event) if event.gives and event.step else event
            if before is not event:
                yield Violation(f"{event} counts in round {event.clock + 1}, and so does {before}", (event, before))


def _against_sums(events: Sequence[Event], initial: float) -> Iterator[Violation]:
    given: dict[int, list[Event]] = defaultdict(list)  # by clock, what counts in its round
    for history in _by_member(events).values():
        kept: list[Event] = []
        for event in history:
            if event.gives and event.gave is not None:
                kept.append(event)
            if event.kind in OPERATIONS and event.step:
                if event.kind == "end_step" or event.counted:
                    given[event.clock] += [push for push in kept if push.clock == event.clock]
                kept = []
    known = min((event.clock for event in events if event.kind == "failed"), default=math.inf)
    reads = sorted((e for e in events if e.reads and e.read is not None), key=lambda e: e.versions)
    clocks = sorted(given)
    total, done = initial, 0
    for event in reads:
        number = event.versions[0]
        if number > known or event.versions != (number,) * len(event.versions):
            continue
        while done < len(clocks) and clocks[done] < number:
            total += sum(push.gave for push in given[clocks[done]] if push.gave is not None)
            done += 1
        if event.read != total:
            text = f"{event} read {event.read:g} in round {number}, where {total:g} counts"
            yield Violation(text, (event, *given.get(number - 1, ())))
