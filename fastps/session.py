"""A worker's side of a server: one per process and server, shared by all handles and threads of the process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastps.errors import FastPSError, OptionError, SplitError, WaitTimeoutError
from fastps.future import Queue
from fastps.observe.stats import ServerStats, ShardStats
from fastps.transport.shm import ShmTransport
from fastps.view import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastps.spec import ServerSpec
    from fastps.transport.contract import Arrays, Pending, Transport


class Session:
    """Runs operations on all shards of a server, each by the transport that reaches it.

    Parameters
    ----------
    spec : the server
    node_id : of this process
    connect : makes the transport to the shards of one other node
    resolve : replaces object references and futures in gradients by their values
    """

    def __init__(
        self,
        spec: ServerSpec,
        node_id: str,
        connect: Callable[[ServerSpec, tuple[int, ...]], Transport],
        resolve: Callable[[Any, float], Any],
    ) -> None:
        self.spec, self._resolve = spec, resolve
        self.queue = Queue()
        by_node: dict[str, list[int]] = {}
        for address in spec.addresses:
            by_node.setdefault(address.node_id, []).append(address.index)
        here = tuple(by_node.pop(node_id, ()))
        self.shm = ShmTransport(spec, here) if here else None
        # The others first: they work while this process works on its own shards.
        self.transports: list[Transport] = [connect(spec, tuple(shards)) for shards in by_node.values()]
        if self.shm:
            self.transports.append(self.shm)
        # All shards here: one C call checks and does everything, unless an argument needs a closer look.
        self._direct = self.shm.group if self.shm and not by_node else None

    def pull(self, out: Any, timeout: float | None) -> Any:
        structure = self.spec.structure
        arrays = structure.empty() if out is None else None
        target = structure.assemble(arrays) if arrays else out
        if self._direct is None or not self._run_directly(False, None, True, target, timeout):
            self._run(None, arrays or structure.outs(out, "pull"), timeout, "pull")
        return target

    def push(self, grads: Any, timeout: float | None, resume: Any) -> None:
        if self._direct is None or resume is not None or not self._run_directly(True, grads, False, None, timeout):
            self._run(self._grads(grads, "push", timeout), None, timeout, "push", resume)

    def push_pull(self, grads: Any, out: Any, timeout: float | None, resume: Any) -> Any:
        structure = self.spec.structure
        if resume is not None:  # what was pushed before is not in this `out`
            self.push(grads, timeout, resume)
            return self.pull(out, timeout)
        fresh = structure.empty() if out is None else None
        target = structure.assemble(fresh) if fresh else out
        if self._direct is None or not self._run_directly(True, grads, True, target, timeout):
            given = self._grads(grads, "push_pull", timeout)
            arrays = fresh or structure.outs(out, "push_pull")
            # A gradient in the memory of `out` would be overwritten while it is read.
            given = [g.copy() if any(np.may_share_memory(g, o) for o in arrays) else g for g in given]
            self._run(given, arrays, timeout, "push_pull")
        return target

    def _run_directly(self, pushes: bool, grads: Any, pulls: bool, outs: Any, timeout: float | None) -> bool:
        assert self._direct is not None
        try:
            return self._direct.run_if_fits(pushes, grads, pulls, outs, timeout)
        except WaitTimeoutError as error:
            raise self._merged([(0, error)], pushes) from None

    def _grads(self, grads: Any, verb: str, timeout: float | None) -> Arrays:
        ready = self._resolve(grads, self.spec.timeout if timeout is None else timeout)
        return self.spec.structure.grads(ready, verb)

    def _run(
        self, grads: Arrays | None, outs: Arrays | None, timeout: float | None, verb: str, resume: Any = None
    ) -> None:
        resumes = self._resumes(resume, verb)
        pending: list[tuple[int, Pending]] = []
        errors: list[tuple[int, BaseException]] = []
        for i, transport in enumerate(self.transports):
            if resumes is not None and i not in resumes:
                continue  # this part of the push was applied before
            try:
                pending.append((i, transport.start(grads, outs, timeout, resumes[i] if resumes else None)))
            except (FastPSError, KeyboardInterrupt) as error:
                errors.append((i, error))
        for i, operation in pending:
            try:
                operation.finish()
            except (FastPSError, KeyboardInterrupt) as error:
                errors.append((i, error))
        if errors:
            raise self._merged(errors, grads is not None)

    def _resumes(self, resume: Any, verb: str) -> dict[int, Any] | None:
        if resume is None:
            return None
        if not isinstance(resume, Resume) or resume.session is not self:
            raise OptionError(
                f"{verb}: expected resume= to be error.resume of a WaitTimeoutError of this server in this process"
            )
        if resume.used:
            raise OptionError(
                f"{verb}: resume= was used before; the push is finished, or a newer error has the rest of it"
            )
        resume.used = True
        return resume.tokens

    def _merged(self, errors: list[tuple[int, BaseException]], pushes: bool) -> BaseException:
        """One error for all transports: the worst, with what happened elsewhere."""
        failed = {i for i, _ in errors}
        first = next((e for _, e in errors if not isinstance(e, WaitTimeoutError)), errors[0][1])
        done = tuple(s for i, t in enumerate(self.transports) if i not in failed for s in t.shards)
        if not isinstance(first, WaitTimeoutError):
            if pushes and done:
                first.add_note(f"the push was applied on shards {sorted(done)}")
            return first
        if not pushes:
            return first
        timeouts = [(i, e) for i, e in errors if isinstance(e, WaitTimeoutError)]
        return WaitTimeoutError(
            "; ".join(str(e) for _, e in timeouts),
            tuple(sorted([*done, *(s for _, e in timeouts for s in e.applied)])),
            tuple(sorted(s for _, e in timeouts for s in e.partial)),
            tuple(sorted(s for _, e in timeouts for s in e.pending)),
            Resume(self, {i: e.resume for i, e in timeouts}),
        )

    def view(self) -> View:
        if self.shm is None or len(self.shm.shards) < len(self.spec.plans):
            here = set(self.shm.shards if self.shm else ())
            away = [plan.index for plan in self.spec.plans if plan.index not in here]
            raise SplitError(f"view: shards {away} are on other nodes, whose memory cannot be viewed; use pull()")
        return View(self.spec, self.shm.arenas)

    def stats(self, timeout: float | None) -> ServerStats:
        counted: dict[int, dict[str, int]] = {}
        for transport in self.transports:
            counted |= transport.counters(timeout)
        nodes = [address.node_id for address in self.spec.addresses]
        return ServerStats(tuple(ShardStats(i, nodes[i], **counted[i]) for i in sorted(counted)))

    def versions(self, timeout: float | None) -> tuple[int, ...]:
        if self.shm and len(self.shm.shards) == len(self.spec.plans):
            return tuple(self.shm.arenas[i].version for i in range(len(self.spec.plans)))
        return tuple(shard.version for shard in self.stats(timeout).shards)

    def alive(self) -> bool:
        """Whether the server is known to be open. Shards on other nodes are not asked."""
        return self.shm is None or self.shm.alive()

    def close(self) -> None:
        """Gives back what idle operations hold. Handles that are still in use go on."""
        self.queue.close()
        for transport in self.transports:
            transport.close()


class Resume:
    """What is missing of a push that timed out. Belongs to the session that it was made by."""

    def __init__(self, session: Session, tokens: dict[int, Any]) -> None:
        self.session, self.tokens, self.used = session, tokens, False
