"""Operations that change the arrays of a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastps._core import Outcome
from fastps.client.future import Future
from fastps.client.grad_buffer import GradBuffer
from fastps.client.queued import push_async, push_pull_async
from fastps.client.state import Loaded, load_state
from fastps.consistency import BSP
from fastps.deadline import seconds
from fastps.errors import OptionError, RankError, WorkerRequiredError
from fastps.scalars import flag, whole
from fastps.server.reading import ServerReading
from fastps.workers.policies import worker_of
from fastps.workers.worker import Worker


class ArrayVerbs(ServerReading):
    """The operations of `fastps.ParameterServer` that change its arrays."""

    _free: bool  # whether a push needs no worker's session

    def push(
        self, grads: Any, *, partial: bool = False, pulled: Any = None, timeout: float | None = None, resume: Any = None
    ) -> None:
        """Applies the rule to every parameter with its gradient. The push has been applied when this returns.

        Parameters
        ----------
        grads : array or container of arrays
            Of the parameters' shapes and dtypes, for float32 also bfloat16 and float16; read in place if C-contiguous.
            For a mapping also a list in its order. What is carried may be left out. Of an array that comes twice in the
            parameters, the gradients are added up. Ray object references and futures are resolved first.
        partial : bool
            Gradients may be missing, or None: the rule is applied to the arrays that have one, and the others stay as
            they are. The `step` of a rule counts, for each array, the pushes that had it.
        pulled : array or container of arrays, optional
            The parameters with which the gradients were computed, for rules that use them (`fastps.DCASGD`).
        timeout : float, optional
            Seconds.
        resume : object, optional
            ``error.resume`` of the error that an earlier push of the same gradients raised, a WaitTimeoutError mostly:
            applies what is missing of it, once.

        Raises
        ------
        ShapeError, DtypeError, NamesError
            Nothing was applied.
        NonfiniteError
            With ``nonfinite="raise"``. Nothing was applied.
        WaitTimeoutError
            Says on which shards the push was applied.
        ClosedError, ShardDiedError
            A note on the error names the shards where the push was applied.
        """
        if not self._free:
            self._refuse("push")
        arrays, outcome = self.attachment.arrays or self.attachment.attach(), Outcome()
        limit = None if timeout is None else seconds(timeout)
        try:
            arrays.push(grads, pulled, limit, resume, outcome, partial)
        except BaseException as error:
            outcome.tell(error)
            raise

    def push_pull(
        self,
        grads: Any,
        *,
        partial: bool = False,
        pulled: Any = None,
        out: Any = None,
        timeout: float | None = None,
        resume: Any = None,
    ) -> Any:
        """A push that returns the parameters as it left them, in one pass over the memory; of a partial push those of
        its arrays.

        Parameters, errors and threads as for `push` and `pull`; after an error, the push may have been applied, as the
        error says. Cost: from 8 MB on about three quarters of a push and a pull.
        """
        if not self._free:
            self._refuse("push_pull")
        arrays, outcome = self.attachment.arrays or self.attachment.attach(), Outcome()
        limit = None if timeout is None else seconds(timeout)
        try:
            return arrays.push_pull(grads, pulled, out, limit, resume, outcome, partial)[0]
        except BaseException as error:
            outcome.tell(error)
            raise

    def _refuse(self, verb: str) -> None:
        raise WorkerRequiredError(
            f"{verb}: under {self.attachment.spec.consistency} the server must know who pushes; use "
            f"`with ps.worker() as w:` and w.{verb}(...); nothing was applied"
        )

    def worker(self, rank: int | None = None, *, timeout: float | None = None) -> Worker:
        """A worker's session, for a ``with`` block: an identity and a clock. See `fastps.workers.worker.Worker`.

        Parameters
        ----------
        rank : int, optional
            Its number, from 0 to max_workers - 1; None for the lowest free one.
        timeout : float, optional
            Seconds.

        Raises
        ------
        RankError
            A live worker has this rank, or all are taken.

        Notes
        -----
        The session ends with its process. Other workers notice a death within 10 ms on the node of shard 0, and
        elsewhere when the lease has expired. Cost: microseconds on the node of shard 0; elsewhere a few Ray calls, and
        for the first such worker of a server the start of an actor.
        """
        session = self.attachment.session
        limit = seconds(timeout)
        if rank is not None:
            try:
                rank = whole("rank", rank, 0, 2**31 - 1)
            except OptionError:
                raise RankError(f"worker: expected a rank of 0 or more, or None, got {rank!r}") from None
        policy = self.attachment.spec.consistency
        if isinstance(policy, BSP) and policy.deterministic and (rank is None or rank >= policy.workers):
            raise RankError(
                f"worker: deterministic=True needs to be told who is who: pass a rank from 0 to {policy.workers - 1}, "
                f"got {rank}; or raise workers="
            )
        membership = session.join(rank, limit)
        try:
            return worker_of(self.attachment, membership)
        except BaseException:
            membership.leave()  # other workers must not wait for it
            raise

    def push_async(
        self,
        grads: Any,
        *,
        partial: bool = False,
        pulled: Any = None,
        copy: bool = True,
        timeout: float | None = None,
    ) -> Future:
        """Starts a push and returns a Future. See `push` and `pull_async`.

        Parameters
        ----------
        grads : as for `push`, or a `GradBuffer`
            A buffer is handed over without a copy, and belongs to the operation until it ends.
        copy : bool
            Arrays are copied before it returns, and may be changed then. With False nothing is copied, and they must
            not change until the operation has ended.
        """
        if not self._free:
            self._refuse("push")
        arrays = self.attachment.arrays or self.attachment.attach()
        return push_async(arrays, grads, pulled, seconds(timeout), partial, flag("push_async copy", copy))

    def push_pull_async(
        self,
        grads: Any,
        *,
        partial: bool = False,
        pulled: Any = None,
        out: Any = None,
        copy: bool = True,
        timeout: float | None = None,
    ) -> Future:
        """Starts a push_pull and returns a Future of its result. See `pull_async` and `push_async`."""
        if not self._free:
            self._refuse("push_pull")
        arrays = self.attachment.arrays or self.attachment.attach()
        copies = flag("push_pull_async copy", copy)
        return push_pull_async(arrays, grads, pulled, out, seconds(timeout), partial, copies)

    def grad_buffer(self, *, timeout: float | None = None) -> GradBuffer:
        """Memory to compute gradients into, which `push_async` and `push_pull_async` take over without a copy.

        Each thread has two of a handle, lent by turns: while an operation has one, gradients are computed into the
        other. Waits until the operation that has it has ended; raises WaitTimeoutError after `timeout` seconds. What is
        in it is what was computed before. Cost: microseconds; memory for two models in each such thread.
        """
        arrays = self.attachment.arrays or self.attachment.attach()
        return arrays.grad_buffers.lend(arrays.session.limit(seconds(timeout)))

    def set(
        self,
        params: Any = None,
        *,
        slots: Mapping[str, Any] | None = None,
        steps: Any = None,
        partial: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Overwrites parameters, slots or both, without the rule: to load weights, reset a layer or copy another model.

        Parameters
        ----------
        params : array or container of arrays, optional
            In the structure of the parameters, carried ones included; for float32 also bfloat16 and float16. For a
            mapping also a list in its order. An array that comes twice in the parameters has the same values in both
            places. Ray object references and futures are resolved first.
        slots : dict, optional
            By the name of a slot, values in the structure that `slots` returns.
        steps : int or container of int, optional
            With `params`: the update counts of their arrays, as `steps` returns them, or one for all. None: they do not
            change.
        partial : bool
            Arrays may be missing, or None: the others stay as they are.
        timeout : float, optional
            Seconds.

        Raises
        ------
        ShapeError, DtypeError, NamesError, OptionError
            Nothing was set.
        WaitTimeoutError
            A part of it may be set; call it again to set all of it.
        ClosedError, ShardDiedError
            A note on the error names the shards where it was set.

        Notes
        -----
        Each shard's part is set between two pushes, parameters, slots and counts at once; with `partial`, parameters
        and each slot one after the other. Under `BSP` and `LocalSGD` it is set after the rounds that have closed, in
        the round that is current then. A process that dies in the middle leaves a part of it set, and counts that are
        wrong until it is called again. `versions` never decreases, but may grow with `steps`. Cost: as that of a push
        of as many bytes.
        """
        arrays, outcome = self.attachment.arrays or self.attachment.attach(), Outcome()
        try:
            arrays.set(params, slots, steps, partial, seconds(timeout), outcome)
        except BaseException as error:
            outcome.tell(error, "set")
            raise

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True, timeout: float | None = None) -> Loaded:
        """Replaces the state of the arrays by one that `state_dict` returned, of this server or of another one with the
        same parameters and rules on any number of shards, which then goes on bit for bit.

        Everything is checked before anything changes. Rules and consistency remain those of this server.

        Parameters
        ----------
        state : mapping
            As `state_dict` returns it. Values are arrays of the same shapes and dtypes of any library, such as tensors;
            for float32 also bfloat16 and float16. Ray object references and futures are resolved first. A name that is
            a constant among the parameters may be there, with the value that it has.
        strict : bool
            Whether `state` must have exactly the keys of `state_dict`. With False, as in torch, what is missing stays
            as it is, and what is unexpected is ignored: for the state of a model, which has no slots, or that of
            another rule. An update count is loaded with the values of its array.
        timeout : float, optional
            Seconds for all of it.

        Returns
        -------
        Loaded
            A named tuple of `missing_keys` and `unexpected_keys`, list[str] each; both are empty with ``strict=True``.

        Raises
        ------
        NamesError
            Names are missing or unexpected. Nothing was loaded.
        RuleError
            The parameters' names fit, and slots or hyper-parameters are missing or unexpected: the state is that of
            another rule. Or it has a schedule where this server's rule has none. Nothing was loaded.
        ShapeError, DtypeError, OptionError
            Nothing was loaded.
        WaitTimeoutError
            A part of it may be loaded; call it again to load all of it.
        ClosedError, ShardDiedError
            A note on the error names the shards where it was loaded.

        Notes
        -----
        Each shard's part is set between two pushes, parameters, slots and counts at once, as by `set`; hyper-parameters
        follow, as by `configure`. With ``strict=False``, arrays of which all is there are set at once, then those of
        which only a part is there. Under `BSP` and `LocalSGD` it is set after the rounds that have closed, in the round
        that is current then. Cost: as that of a push of as many bytes; for each rule a `configure`.
        """
        strict = flag("load_state_dict strict", strict)
        return load_state(self.attachment.arrays or self.attachment.attach(), state, strict, seconds(timeout))
