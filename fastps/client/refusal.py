"""What a reader does not have: calling it raises ReadOnlyError."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

from fastps.errors import ReadOnlyError

HANDLE = "use the handle that ParameterServer() or fastps.get() returned"
Class = TypeVar("Class", bound=type)


class Refusal:
    """Stands for a verb that a reader does not have. Called here or by `remote`, it raises ReadOnlyError.

    Attributes
    ----------
    verb : its name
    reason : why not, and what to use instead
    """

    def __init__(self, verb: str, reason: str) -> None:
        self.verb, self.reason = verb, reason

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise ReadOnlyError(f"{self.verb}: {self.reason}; nothing was done")

    remote = __call__

    def __repr__(self) -> str:
        return f"<{self.verb}, refused: {self.reason}>"


def refuses(verbs: set[str], hints: Mapping[str, str] | None = None) -> Callable[[Class], Class]:
    """A decorator of a reader's class: it gets a Refusal for each of a handle's verbs that it does not have.

    `hints` are reasons by verb, where there is more to say than to use another handle.
    """

    def decorate(reader: Class) -> Class:
        for verb in verbs - set(dir(reader)):
            setattr(reader, verb, Refusal(verb, (hints or {}).get(verb, f"a reader changes nothing; {HANDLE}")))
        return reader

    return decorate


def verbs_of(handle: type) -> set[str]:
    """The public methods and properties of a handle's class."""
    return {name for name in dir(handle) if not name.startswith("_")}
