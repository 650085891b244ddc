"""What became of an operation that an exception has ended."""

from __future__ import annotations

from fastps._core import Outcome

__all__ = ["Outcome", "outcome_of"]


def outcome_of(error: BaseException) -> Outcome | None:
    """What had happened when `error` left a push, a set, an eviction or a change of hyper-parameters.

    Any exception that leaves one of these says it, what a signal handler raised in the middle of it included; a note on
    the exception says it in words. Where a second handler has raised while the first exception was on its way, it is
    found on that one (``__context__``).

    Returns
    -------
    Outcome or None
        `applied`, `partial`, `unknown`: the shards on which the operation was applied, to a part of which it was, and
        which had not answered. Of a worker's push under `BSP` and `LocalSGD`, `counts` says whether its gradients
        count, or will with the next operation: then they must not be pushed again. None: nothing was done.
    """
    at: BaseException | None = error
    seen: set[int] = set()
    while at is not None and id(at) not in seen:
        told = getattr(at, "fastps_outcome", None)
        if isinstance(told, Outcome):
            return told
        seen.add(id(at))
        at = at.__cause__ or at.__context__
    return None
