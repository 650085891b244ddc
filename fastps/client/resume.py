"""The rest of an operation that some nodes did not finish, and one error for all nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastps.errors import ClosedError, FastPSError, OptionError, ShardDiedError, TableFullError, WaitTimeoutError

Errors = list[tuple[int, FastPSError]]


class Resume:
    """The rest of a push, to be finished once, by the same session on the same target.

    Attributes
    ----------
    owner : the session and the target
    tokens : by number of the endpoint, what it resumes from, None for all of its part; endpoints that are missing have
        nothing to do
    used : whether an attempt is under way, has finished the push, or has ended with an error that has the rest
    keys, places : of a table: all keys of the push, and the positions of those that it was for
    """

    def __init__(self, owner: Any, tokens: dict[int, Any]) -> None:
        self.owner, self.tokens, self.used = owner, tokens, False
        self.keys: Any = None
        self.places: Any = None

    @property
    def begun(self) -> bool:
        """Whether an endpoint stopped in the middle."""
        return any(token is not None for token in self.tokens.values())


@contextmanager
def resuming(resume: Any, owner: Any, verb: str) -> Iterator[dict[int, Any]]:
    """One attempt to finish a push that `owner` made: its tokens, from which the attempt removes what it has done. If
    it ends with an error that does not have the rest, `resume` still has it. Raises OptionError."""
    if not isinstance(resume, Resume) or resume.owner != owner:
        raise OptionError(
            f"{verb}: expected resume= to be error.resume of a WaitTimeoutError of this server in this process"
        )
    if resume.used:
        raise OptionError(f"{verb}: resume= was used before; the push is finished, or a newer error has the rest of it")
    try:
        resume.used = True
        yield resume.tokens
    except BaseException as error:
        resume.used = isinstance(getattr(error, "resume", None), Resume)
        if isinstance(error, ValueError) and not isinstance(error, FastPSError):
            raise OptionError(f"{verb}: {error}") from None  # an interrupted attempt had begun
        raise


def merged(
    errors: Errors, done: tuple[int, ...], writes: bool, pushes: bool, owner: Any, tokens: dict[int, Any] | None = None,
    begun: bool = False,
) -> FastPSError:  # fmt: skip
    """One error for all endpoints: the most severe, with what happened elsewhere.

    Parameters
    ----------
    errors : with the number of the endpoint
    done : the shards that succeeded, or have nothing of a partial operation's arrays
    writes, pushes : whether the operation changes something, and by gradients
    tokens : what the operation was resumed from; is brought up to date. An endpoint whose error came before it began
        keeps its own
    begun : whether an endpoint succeeded that has something of the arrays
    """
    first = next((e for _, e in errors if not isinstance(e, WaitTimeoutError)), errors[0][1])
    if not writes:
        return first
    left = {i: token_after(error, (tokens or {}).get(i)) for i, error in errors}
    if tokens is not None:
        tokens.update(left)
    rest = Resume(owner, left)
    resume = rest if begun or rest.begun else None
    if isinstance(first, TableFullError):
        first.applied = tuple(sorted({*first.applied, *done}))
        first.resume = resume
        return first
    if not isinstance(first, WaitTimeoutError):
        if resume is not None and pushes and not isinstance(first, (ClosedError, ShardDiedError)):
            first.resume = resume
            first.add_note("a part of the push is applied: push the same with resume=error.resume to finish it")
        return first
    timeouts = [error for _, error in errors if isinstance(error, WaitTimeoutError)]
    return WaitTimeoutError(
        "; ".join(map(str, timeouts)),
        tuple(sorted([*done, *(shard for error in timeouts for shard in error.applied)])),
        tuple(sorted(shard for error in timeouts for shard in error.partial)),
        tuple(sorted(shard for error in timeouts for shard in error.pending)),
        resume if pushes else None,
    )


def token_after(error: FastPSError, before: Any) -> Any:
    """What an endpoint resumes from after an error, or None for all of its part."""
    if error.resume is None and not isinstance(error, TableFullError):  # which says that nothing was applied
        return before
    return error.resume
