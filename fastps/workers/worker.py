"""A worker's session: an identity and a clock, for policies that depend on how far each worker is."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

from fastps._core import Outcome
from fastps.client.array import ArrayHandle
from fastps.client.attach import Attachment
from fastps.client.view import View
from fastps.deadline import deadline_after, left_until, seconds
from fastps.errors import ClosedError, WorkerExpelledError
from fastps.tables.handle import TableHandle
from fastps.tables.named import handle_named
from fastps.transport.contract import Membership

OWED = "the next operation ends the step"
ENDED = "the step has ended"
LEFT = "worker: it has left; open another one with `with ps.worker() as w:`"


@dataclass(frozen=True)
class Reply:
    """What is known of an operation besides the parameters.

    Attributes
    ----------
    clock : steps that the worker had ended when the operation began
    staleness : by how many clocks the worker was ahead of the slowest live one then, 0 for the slowest itself. On
        another node than that of shard 0 it may be reported larger than it was, never smaller
    versions : per shard, the update count that a pull read or a push made, in rounds that of the round; 0 where a
        resumed push was applied before, and on other nodes that have none of a partial operation's arrays. Shards
        without them on a node that has some report the count that they have
    counted : False for a push that was not applied: its gradients were not finite, or its round had closed without it
    """

    clock: int
    staleness: int
    versions: tuple[int, ...]
    counted: bool = True


class Worker:
    """A worker of a server, opened with ``with ps.worker() as w:``.

    An operation waits until the consistency lets the worker begin its step. A push ends the step, unless it says
    ``step=False``. Operations have the arguments and errors of the server's; they also raise WaitTimeoutError when
    others are too far behind, with nothing done.

    A worker that was stopped, or could not be reached, for longer than the server allows is expelled: the others no
    longer wait for it. It rejoins with its next operation, at the clock of the others: `clock` jumps, and `returns`
    counts that.

    For one thread at a time, in the process that opened it.

    Attributes
    ----------
    rank : int
        Its number among the workers.
    clock : int
        Steps that it has ended, counted from the clock of the others when it joined.
    reply : Reply or None
        Of the last operation.
    returns : int
        How often it was expelled and has rejoined.
    """

    def __init__(self, attachment: Attachment, membership: Membership) -> None:
        self._attachment, self._membership = attachment, membership
        self._arrays = attachment.arrays or attachment.attach()
        self._open, self._owes_end = True, False
        self._shards = tuple(range(len(attachment.spec.plans)))
        self.rank = membership.rank
        self.clock, self._progress = membership.state()
        self.reply: Reply | None = None
        self.returns = 0

    def pull(self, *, out: Any = None, names: Any = None, timeout: float | None = None) -> Any:
        """As `ParameterServer.pull`, once the worker may begin its step."""
        deadline = self._begin(timeout)
        params, versions = self._arrays.pull(out, left_until(deadline), names)
        self._reply(versions)
        return params

    def push(
        self,
        grads: Any,
        *,
        step: bool = True,
        partial: bool = False,
        pulled: Any = None,
        timeout: float | None = None,
        resume: Any = None,
    ) -> Reply:
        """As `ParameterServer.push`; ends the step unless `step` is False.

        A push that raises has ended no step. If the push was applied but the end of the step could not be recorded in
        time, the next operation records it first.
        """
        outcome, versions, ends = Outcome(), None, False
        try:
            deadline = self._begin(timeout)
            versions = self._arrays.push(grads, pulled, left_until(deadline), resume, outcome, partial)
            reply = self._reply(versions or (), versions is not None)
            if step:
                ends = self._owes_end = True
                self._end_step(deadline)
            return reply
        except BaseException as error:  # only plain stores before `tell`: another handler may raise behind any call
            if step and not ends and (versions is not None or outcome.applied == self._shards):
                self._owes_end = True
            outcome.tell(error, "push", OWED if self._owes_end else "")
            raise

    def push_pull(
        self,
        grads: Any,
        *,
        step: bool = True,
        partial: bool = False,
        pulled: Any = None,
        out: Any = None,
        timeout: float | None = None,
        resume: Any = None,
    ) -> Any:
        """As `ParameterServer.push_pull`: the parameters as this push left them. Ends the step, as `push` does."""
        outcome, ends, done = Outcome(), False, None
        try:
            deadline = self._begin(timeout)
            done = self._arrays.push_pull(grads, pulled, out, left_until(deadline), resume, outcome, partial)
            params, versions, applied = done
            self._reply(versions, applied)
            if step:
                ends = self._owes_end = True
                self._end_step(deadline)
            return params
        except BaseException as error:
            if step and not ends and (done is not None or outcome.applied == self._shards):
                self._owes_end = True
            outcome.tell(error, "push", OWED if self._owes_end else "")
            raise

    def view(self, *, timeout: float | None = None) -> View:
        """As `ParameterServer.view`, once the worker may begin its step."""
        self._begin(timeout)
        return self._arrays.view()

    def __getitem__(self, name: str) -> TableHandle | ArrayHandle:
        """A table or an array by its name, as ``ps[name]``. A push to a table ends no step."""
        if not self._open:
            raise ClosedError(LEFT)
        return handle_named(self._attachment, name, TableHandle)

    def end_step(self, *, timeout: float | None = None) -> None:
        """Ends a step without a push: after pushes with ``step=False``, or for a worker that has nothing to push."""
        deadline, outcome = self._begin(timeout), Outcome()
        self._arrays.session.require_alive()
        self._owes_end = True
        try:
            self._end_step(deadline)
        except BaseException as error:
            outcome.tell(error, None, OWED if self._owes_end else ENDED)
            raise

    def close(self) -> None:
        """Leaves: the others no longer wait for this worker. Idempotent."""
        self._open = False
        self._membership.leave()

    def _deadline(self, timeout: float | None) -> float:
        if not self._open:
            raise ClosedError(LEFT)
        limit = seconds(timeout)
        if limit is None:
            limit = self._attachment.spec.timeout
        return deadline_after(limit)

    def _begin(self, timeout: float | None) -> float:
        deadline = self._deadline(timeout)
        if self._owes_end:
            self._end_step(deadline)
        while True:
            try:
                self.clock, self._progress = self._membership.begin(left_until(deadline))
                return deadline
            except WorkerExpelledError:
                self._return(deadline)

    def _end_step(self, deadline: float) -> None:
        try:
            self._membership.end_step(self.clock, left_until(deadline))
        except WorkerExpelledError:
            self._return(deadline)
        self._owes_end = False
        self.clock, self._progress = self._membership.state()

    def _return(self, deadline: float) -> None:
        self._membership.rejoin(left_until(deadline))
        self.returns += 1

    def _reply(self, versions: tuple[int, ...], counted: bool = True) -> Reply:
        self.reply = Reply(self.clock, max(0, self.clock - self._progress), versions, counted)
        return self.reply

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a worker's session does not travel: send the server, and open a worker where it runs")

    def __repr__(self) -> str:
        return f"<Worker of rank {self.rank} at clock {self.clock}{'' if self._open else ', which has left'}>"
