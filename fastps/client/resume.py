"""The rest of an operation that some nodes did not finish, and one error for all nodes."""

from __future__ import annotations

from typing import Any

from fastps.errors import OptionError, TableFullError, WaitTimeoutError


class Resume:
    """The rest of a push, to be resumed once, by the same session on the same target.

    Attributes
    ----------
    owner : the session and the target
    tokens : by number of the endpoint, what it resumes from; endpoints that are missing have nothing to do
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


def tokens_of(resume: Any, owner: Any, verb: str) -> dict[int, Any] | None:
    """Per endpoint, the rest of a push that `owner` made. Raises OptionError."""
    if resume is None:
        return None
    if not isinstance(resume, Resume) or resume.owner != owner:
        raise OptionError(
            f"{verb}: expected resume= to be error.resume of a WaitTimeoutError of this server in this process"
        )
    if resume.used:
        raise OptionError(f"{verb}: resume= was used before; the push is finished, or a newer error has the rest of it")
    resume.used = True
    return resume.tokens


def merged(errors: list[tuple[int, BaseException]], done: tuple[int, ...], pushes: bool, owner: Any) -> BaseException:
    """One error for all endpoints: the most severe, with what happened elsewhere; the shards `done` succeeded."""
    first = next((e for _, e in errors if not isinstance(e, WaitTimeoutError)), errors[0][1])
    resume = Resume(owner, {i: getattr(error, "resume", None) for i, error in errors})
    if isinstance(first, TableFullError):
        first.applied = tuple(sorted({*first.applied, *done})) if pushes else ()
        first.resume = resume if pushes and (resume.begun or done) else None
        return first
    if not isinstance(first, WaitTimeoutError) or not pushes:
        return first
    timeouts = [error for _, error in errors if isinstance(error, WaitTimeoutError)]
    return WaitTimeoutError(
        "; ".join(map(str, timeouts)),
        tuple(sorted([*done, *(shard for error in timeouts for shard in error.applied)])),
        tuple(sorted(shard for error in timeouts for shard in error.partial)),
        tuple(sorted(shard for error in timeouts for shard in error.pending)),
        resume if done or resume.begun else None,
    )
