"""A worker's side of a server: one per process and server, shared by all handles and threads of the process."""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import numpy as np

from fastps._core import Member, Outcome, all_finite, global_norm
from fastps.client.future import Queue
from fastps.client.rounds import Rounds, is_one_round
from fastps.client.view import View
from fastps.deadline import deadline_after, left_until
from fastps.errors import (
    FastPSError,
    NonfiniteError,
    OptionError,
    RayRequiredError,
    SplitError,
    TableFullError,
    WaitTimeoutError,
)
from fastps.observe.stats import ServerStats, ShardStats
from fastps.spec.arrays import Structure, byte_bounds
from fastps.transport.contract import MIXED, Work
from fastps.transport.shm import ShmTransport, is_here
from fastps.transport.shm_table import require_alive

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastps._core import Arena, Decision
    from fastps._core.core import Deposit
    from fastps.spec.arrays import Array
    from fastps.spec.server import ServerSpec
    from fastps.transport.contract import Arrays, Membership, Pending, Transport


class Session:
    """Runs operations on all shards of a server, each by the transport that reaches it.

    Parameters
    ----------
    spec : the server
    node_id : of this process; None outside of Ray, where it is the machine that decides which shards are here
    connect : makes the transport to the shards of one other node
    resolve : replaces object references and futures in gradients by their values
    enrol : makes a place among the workers of a server whose shard 0 is on another node
    """

    def __init__(
        self,
        spec: ServerSpec,
        node_id: str | None,
        connect: Callable[[ServerSpec, tuple[int, ...]], Transport],
        resolve: Callable[[Any, float], Any],
        enrol: Callable[[ServerSpec, int | None, float], Membership],
    ) -> None:
        self.spec, self._resolve, self._enrol = spec, resolve, enrol
        self.queue = Queue()
        by_node: dict[str, list[int]] = {}
        here = tuple(shard for shard, address in enumerate(spec.addresses) if is_here(address, node_id))
        for address in spec.addresses:
            if address.index not in here:
                by_node.setdefault(address.node_id, []).append(address.index)
        self.shm = ShmTransport(spec, here) if here else None
        # The others first: they work while this process works on its own shards.
        self.transports: list[Transport] = [connect(spec, tuple(shards)) for shards in by_node.values()]
        if self.shm:
            self.transports.append(self.shm)
        # All shards here: one C call checks and does everything, unless an argument needs a closer look.
        self._direct = self.shm.group if self.shm and not by_node else None
        self.all_here = not by_node
        self.rounds = Rounds(self) if spec.consistency.rounds else None
        self.own_shards: dict[int, Any] = {}  # whose actor's process this is: `table` of it, which cannot call itself

    def limit(self, timeout: float | None) -> float:
        return self.spec.timeout if timeout is None else timeout

    def pull(self, out: Any, timeout: float | None) -> tuple[Any, tuple[int, ...]]:
        """The parameters, and per shard their version."""
        if self.rounds is not None:
            return self.rounds.pull(out, timeout, None)
        structure = self.spec.structure
        arrays = structure.empty() if out is None else None
        target = out if arrays is None else structure.assemble(arrays)
        versions = None if self._direct is None else self._run_directly(False, None, True, target, timeout)
        if versions is None:
            versions = self.run(Work(outs=arrays or structure.outs(out, "pull")), timeout, "pull")
        return target, versions

    def push(
        self, grads: Any, pulled: Any, timeout: float | None, resume: Any, outcome: Outcome
    ) -> tuple[int, ...] | None:
        """Per shard the version that it made; None when it was skipped. Of shards that an earlier attempt had finished,
        0."""
        if resume is None and pulled is None and self._direct is not None:
            versions = self._run_directly(True, grads, False, None, timeout, outcome)
            if versions is not None:
                return versions
        work = self.work(grads, pulled, None, "push", timeout, resume)
        return None if work is None else self.run(work, timeout, "push", resume, outcome)

    def push_pull(
        self, grads: Any, pulled: Any, out: Any, timeout: float | None, resume: Any, outcome: Outcome
    ) -> tuple[Any, tuple[int, ...], bool]:
        """The parameters, their versions, and whether the push was applied, not skipped."""
        structure = self.spec.structure
        if resume is not None:  # what was pushed before is not in this `out`
            applied = self.push(grads, pulled, timeout, resume, outcome) is not None
            return *self.pull(out, timeout), applied
        fresh = structure.empty() if out is None else None
        target = out if fresh is None else structure.assemble(fresh)
        plain = pulled is None and self._direct is not None
        versions = self._run_directly(True, grads, True, target, timeout, outcome) if plain else None
        if versions is not None:
            return target, versions, True
        arrays = fresh or structure.outs(out, "push_pull")
        work = self.work(grads, pulled, arrays, "push_pull", timeout, theirs=out is not None)
        if work is None:
            return target, self.run(Work(outs=arrays), timeout, "push_pull"), False
        return target, self.run(work, timeout, "push_pull", None, outcome), True

    def work(
        self,
        grads: Any,
        pulled: Any,
        outs: Arrays | None,
        verb: str,
        timeout: float | None,
        resume: Any = None,
        theirs: bool = False,
    ) -> Work | None:
        """A push of checked gradients; None when it is to be skipped. `theirs`: `outs` are the caller's, and their
        memory may be that of the gradients."""
        limit = self.limit(timeout)
        given = self.spec.structure.grads(self._resolve(grads, limit), verb)
        wanted = [rule.label for rule in self.spec.rules if rule.uses_pulled]
        if wanted and pulled is None:
            raise OptionError(f"{verb}: {wanted[0]} needs pulled=, the parameters with which grads were computed")
        if pulled is not None and not wanted:
            raise OptionError(f"{verb}: pulled= is for rules that use it; {self.spec.rules_label} does not")
        had = None if pulled is None else self.spec.structure.grads(self._resolve(pulled, limit), f"{verb} pulled")
        if outs is not None and theirs:  # what lies in the memory of `out` would be overwritten while it is read
            given = apart(given, outs)
            had = None if had is None else apart(had, outs)
        policy, scale = self.spec.gradients, 1.0
        if policy.clip_norm < math.inf:
            norm = norm_of(given)
            finite, scale = math.isfinite(norm), policy.scale(norm)
        elif policy.inspects:
            finite = all_finite(given)
        if policy.nonfinite != "apply" and not finite:
            if resume is not None:
                raise OptionError(
                    f"{verb}: resume= is for the gradients of the push that timed out, and {self._nonfinite(given)} is "
                    f"NaN or infinite now; nothing more was applied, pass them as they were"
                )
            for transport in self.transports:
                transport.skipped()
            if policy.nonfinite == "raise":
                raise NonfiniteError(f"{verb}: {self._nonfinite(given)} is NaN or infinite; nothing was applied")
            return None
        return Work(given, outs, had, scale)

    def _nonfinite(self, grads: Arrays) -> str:
        for leaf, array in zip(self.spec.structure.leaves, grads, strict=True):
            if not all_finite([array]):
                return f"`{leaf.name}`{np.argwhere(~np.isfinite(array))[0].tolist()}"
        return "the norm of the gradients"

    def slots(self, name: str, timeout: float | None) -> Any:
        structure, with_slot = self._slot(name, "slots", timeout)
        arrays = structure.empty()
        work, deadline = self._slot_work(name, with_slot, outs=arrays), deadline_after(self.limit(timeout))
        while not is_one_round(self.run(work, left_until(deadline), "slots")) and self.rounds is not None:
            if left_until(deadline) == 0:
                raise WaitTimeoutError("slots: the shards did not come to one round in time; try again")
            self.rounds.reach(left_until(deadline))
        return structure.assemble(arrays)

    def set_slots(self, name: str, values: Any, timeout: float | None, outcome: Outcome) -> None:
        structure, with_slot = self._slot(name, "set_slots", timeout)
        given = structure.grads(values, "set_slots")
        try:
            self.run(self._slot_work(name, with_slot, grads=given), timeout, "set_slots", None, outcome)
        except WaitTimeoutError as error:
            raise WaitTimeoutError(f"set_slots: {error}; call it again to set all of it") from None

    def _slot(self, name: Any, verb: str, timeout: float | None) -> tuple[Structure, list[int]]:
        """The structure of a slot, and which arrays of the parameters it is of."""
        if self.spec.consistency.local:
            raise OptionError(f"{verb}: under {self.spec.consistency} each worker has slots of its own")
        if name not in self.spec.slot_names():
            raise OptionError(f"{verb}: {self.spec.rules_label} has no slot {name!r}, only {self.spec.slot_names()}")
        if self.rounds is not None:
            self.rounds.reach(self.limit(timeout))  # what has closed is there before slots are read or set
        with_slot = self.spec.leaves_with(name)
        return Structure(tuple(self.spec.structure.leaves[i] for i in with_slot)), with_slot

    def _slot_work(
        self, name: str, with_slot: list[int], grads: Arrays | None = None, outs: Arrays | None = None
    ) -> Work:
        nothing = np.empty(0, np.float32)

        def spread(arrays: Arrays | None) -> Arrays | None:
            if arrays is None:
                return None
            by_leaf = dict(zip(with_slot, arrays, strict=True))
            return [by_leaf.get(i, nothing) for i in range(len(self.spec.structure.leaves))]

        return Work(spread(grads), spread(outs), slot=name, streams=self.spec.streams(name))

    def configure(self, pattern: str | None, values: dict[str, Any], timeout: float | None, outcome: Outcome) -> None:
        limit = self.limit(timeout)
        rules = [(row, rule) for row, rule in enumerate(self.spec.rules) if pattern is None or rule.pattern == pattern]
        if not rules:
            raise OptionError(
                f"configure: no rule has the pattern {pattern!r}; they are {[rule.pattern for rule in self.spec.rules]}"
            )
        changes = []
        for name in values:
            if not any(name in rule.hyper for _, rule in rules):
                known = list(dict.fromkeys(h for _, rule in rules for h in rule.hyper))
                raise OptionError(f"configure: unknown hyper-parameter `{name}`; the rules have {known}")
        for row, rule in rules:
            numbers = rule.numbers({n: v for n, v in values.items() if n in rule.hyper}, "configure")
            if numbers:
                changes.append((row, numbers))
        if self.rounds is not None:
            self.rounds.reach(limit)  # what has closed is applied with what there was
        for row, numbers in changes:
            for transport in self.transports:
                transport.configure(row, numbers, limit, outcome)

    def hyper(self, timeout: float | None) -> dict[str, dict[str, float | None]]:
        rows = self.hyper_by_row(self.limit(timeout))
        return {rule.pattern: rule.named(values) for rule, values in zip(self.spec.rules, rows, strict=True)}

    def hyper_by_row(self, timeout: float) -> list[list[float]]:
        """The hyper-parameters of each rule in their order; NaN stands for a schedule."""
        transport = self.shm or self.transports[0]
        return [transport.hyper(row, len(rule.hyper), timeout) for row, rule in enumerate(self.spec.rules)]

    def _run_directly(
        self, pushes: bool, grads: Any, pulls: bool, outs: Any, timeout: float | None, outcome: Outcome | None = None
    ) -> tuple[int, ...] | None:
        """The versions, when one C call could check the arguments and do everything; None when it could not."""
        assert self._direct is not None
        try:
            return self._direct.run_if_fits(pushes, grads, pulls, outs, timeout, None, None, outcome)
        except WaitTimeoutError as error:
            raise self._merged([(0, error)], pushes) from None

    def run_round_directly(
        self, grads: Any, outs: Any, timeout: float, decision: Decision | None, deposit: Deposit | None = None
    ) -> tuple[int, ...] | None:
        """The same in rounds."""
        if self._direct is None:
            return None
        pushes = deposit is not None
        try:
            versions = self._direct.run_if_fits(pushes, grads, not pushes, outs, timeout, decision, deposit)
        except WaitTimeoutError as error:
            raise self._merged([(0, error)], False) from None
        return (MIXED,) if versions == () else versions

    def run(
        self, work: Work, timeout: float | None, verb: str, resume: Any = None, outcome: Outcome | None = None
    ) -> tuple[int, ...]:
        """A signal's exception leaves at once: what other nodes make of their part is not known then."""
        resumes = tokens_of(resume, self, verb)
        pending: list[tuple[int, Pending]] = []
        errors: list[tuple[int, BaseException]] = []
        versions: dict[int, int] = {}
        for i, transport in enumerate(self.transports):
            if resumes is not None and i not in resumes:  # this part of the push was applied before
                assert outcome is not None
                outcome.end(transport.shards)
                continue
            try:
                pending.append((i, transport.start(work, timeout, resumes[i] if resumes else None, outcome)))
            except RayRequiredError:
                raise  # other nodes come first: nothing has begun
            except FastPSError as error:
                errors.append((i, error))
        for i, operation in pending:
            try:
                versions |= operation.finish()
            except FastPSError as error:
                errors.append((i, error))
        if errors:
            try:
                raise self._merged(errors, work.grads is not None and work.deposit is None)
            finally:
                errors.clear()  # their tracebacks refer to this frame: else all of it stays until a collection
        return tuple([versions.get(i, 0) for i in range(len(self.spec.plans))])

    def _merged(self, errors: list[tuple[int, BaseException]], pushes: bool) -> BaseException:
        failed = {i for i, _ in errors}
        return merged(errors, self._shards_but(failed), pushes, self)

    def _shards_but(self, failed: set[int]) -> tuple[int, ...]:
        return tuple(s for i, t in enumerate(self.transports) if i not in failed for s in t.shards)

    def join(self, rank: int | None, timeout: float | None) -> Membership:
        """A place among the workers that share clocks."""
        limit = self.limit(timeout)
        self.require_alive()
        if self.shm is not None and 0 in self.shm.arenas:
            return Member(self.shm.arenas[0], rank, 0.0, limit)
        return self._enrol(self.spec, rank, limit)

    def view(self) -> View:
        if self.rounds is not None:
            return self.rounds.view(None, None)[0]
        arenas = self.arenas_of_all("view")
        self.require_alive()
        return View(
            self.spec, lambda shard, position, nbytes: arenas[shard].window(position, nbytes), self.require_alive
        )  # fmt: skip

    def arenas_of_all(self, verb: str) -> dict[int, Arena]:
        """The arenas by shard. Raises SplitError when some are on other nodes."""
        if self.shm is None or len(self.shm.shards) < len(self.spec.plans):
            here = set(self.shm.shards if self.shm else ())
            away = [plan.index for plan in self.spec.plans if plan.index not in here]
            raise SplitError(f"{verb}: shards {away} are on other nodes, whose memory cannot be viewed; use pull()")
        return self.shm.arenas

    def stats(self, timeout: float | None) -> ServerStats:
        counted: dict[int, dict[str, int]] = {}
        for transport in self.transports:
            counted |= transport.counters(timeout)
        nodes = [address.node_id for address in self.spec.addresses]
        return ServerStats(tuple(ShardStats(i, nodes[i], **counted[i]) for i in sorted(counted)))

    def versions(self, timeout: float | None) -> tuple[int, ...]:
        if self.shm and len(self.shm.shards) == len(self.spec.plans):
            versions = tuple(self.shm.arenas[i].version for i in range(len(self.spec.plans)))
            self.require_alive()
            return versions
        return tuple(shard.version for shard in self.stats(timeout).shards)

    def require_alive(self) -> None:
        """Raises ClosedError or ShardDiedError when a shard of this node is closed or dead. Others are not asked."""
        if self.shm is not None:
            require_alive(self.shm.arenas)

    def alive(self) -> bool:
        """Whether the server is known to be open. Shards on other nodes are not asked."""
        return self.shm is None or self.shm.alive()

    def discard(self) -> None:
        """Gives back the memory of shards whose processes have died: they cannot, and others may map it for long."""
        for arena in self.shm.arenas.values() if self.shm is not None else ():
            arena.discard()

    def close(self) -> None:
        """Gives back what idle operations hold. Handles that are still in use go on."""
        self.queue.close()
        for transport in self.transports:
            transport.close()


def norm_of(arrays: Arrays) -> float:
    """The global norm; in a second pass where squares of finite elements are too large for float64."""
    norm = global_norm(arrays)
    if math.isinf(norm) and all_finite(arrays):
        most = max(float(np.abs(array).max()) for array in arrays)
        norm = min(most * global_norm([array / most for array in arrays]), sys.float_info.max)
    return norm


def apart(arrays: Arrays, outs: Arrays) -> Arrays:
    """Copies of those arrays that share memory with one of `outs`, which do not share any with each other."""
    bounds = sorted(byte_bounds(out) for out in outs)
    starts = [start for start, _ in bounds]

    def shares(array: Array) -> bool:
        start, end = byte_bounds(array)
        last = bisect_left(starts, end)  # the outs before it begin before the array ends
        return last > 0 and bounds[last - 1][1] > start

    return [array.copy() if shares(array) else array for array in arrays]


class Resume:
    """What is missing of a push that timed out. Belongs to the session that it was made by."""

    def __init__(self, owner: Any, tokens: dict[int, Any]) -> None:
        self.owner, self.tokens, self.used = owner, tokens, False
        self.keys: Any = None  # of a table: all of the push,
        self.places: Any = None  # and which of them it was of


def tokens_of(resume: Any, owner: Any, verb: str) -> dict[int, Any] | None:
    """What each transport has left of a push that timed out, which `owner` made."""
    if resume is None:
        return None
    if not isinstance(resume, Resume) or resume.owner is not owner:
        raise OptionError(
            f"{verb}: expected resume= to be error.resume of a WaitTimeoutError of this server in this process"
        )
    if resume.used:
        raise OptionError(f"{verb}: resume= was used before; the push is finished, or a newer error has the rest of it")
    resume.used = True
    return resume.tokens


def merged(errors: list[tuple[int, BaseException]], done: tuple[int, ...], pushes: bool, owner: Any) -> BaseException:
    """One error for all transports: the worst, with what happened elsewhere, on the shards `done`."""
    first = next((e for _, e in errors if not isinstance(e, WaitTimeoutError)), errors[0][1])
    if not isinstance(first, WaitTimeoutError):
        if isinstance(first, TableFullError):
            first.applied = tuple(sorted({*first.applied, *done})) if pushes else ()
            tokens = {i: getattr(e, "resume", None) for i, e in errors}
            some = any(token is not None for token in tokens.values())
            first.resume = Resume(owner, tokens) if pushes and (some or done) else None
        return first
    if not pushes:
        return first
    timeouts = [(i, e) for i, e in errors if isinstance(e, WaitTimeoutError)]
    tokens = {i: e.resume for i, e in timeouts}
    return WaitTimeoutError(
        "; ".join(str(e) for _, e in timeouts),
        tuple(sorted([*done, *(s for _, e in timeouts for s in e.applied)])),
        tuple(sorted(s for _, e in timeouts for s in e.partial)),
        tuple(sorted(s for _, e in timeouts for s in e.pending)),
        Resume(owner, tokens) if done or any(token is not None for token in tokens.values()) else None,
    )
