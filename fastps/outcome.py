"""The outcome of an operation that an exception has ended."""

from __future__ import annotations

from fastps._core import Outcome

__all__ = ["Outcome", "outcome_of"]


def outcome_of(error: BaseException) -> Outcome | None:
    """What a push, a set, an eviction or a change of hyper-parameters had done when it raised `error`.

    Any exception that one of these raises has it, also that of a signal handler in the middle; its class, its text or a
    note says it in words. If a second handler has raised while the first exception was propagated, it is found on that
    one (``__context__``).

    Returns
    -------
    Outcome or None
        `applied`, `partial`, `unknown`: the shards on which the operation was applied, on which it was applied in part,
        and which had not replied. Of a worker's push under `BSP` and `LocalSGD`, `counts` says whether its gradients
        count, or will with the next operation: then they must not be pushed again. None, or neither shards nor
        `counts`: nothing was done.
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
