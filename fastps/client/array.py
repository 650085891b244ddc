"""``ps[name]`` where that is an array of the parameters."""

from __future__ import annotations

from fastps.arrays.types import Array
from fastps.client.attach import Attachment
from fastps.client.refusal import refuses
from fastps.deadline import seconds

CHANGES = {"push", "push_async", "push_pull", "push_pull_async", "set"}  # of a server, and so of its arrays


class ArrayHandle:
    """One array of a server's parameters.

    Attributes
    ----------
    name : str
        Names of nested mappings are joined by "/".
    shape : tuple[int, ...]
    dtype : str
        That of pulls: "float32", "float64", "bfloat16" or "float16"; any other where no rule can train it.
    """

    def __init__(self, attachment: Attachment, number: int) -> None:
        leaf = attachment.spec.structure.leaves[number]
        self.attachment, self._number = attachment, number
        self.name, self.shape, self.dtype = leaf.name, leaf.shape, leaf.given.name

    def pull(self, *, timeout: float | None = None) -> Array:
        """A copy of this array as `ParameterServer.pull` reads it with ``names=[name]``, without the containers that it
        is in."""
        return (self.attachment.arrays or self.attachment.attach()).pull_one(self._number, seconds(timeout))

    def view(self) -> Array:
        """This array read-only on the memory itself, as `ParameterServer.view` gives it. Raises SplitError where it is
        on several shards, or on another node."""
        with (self.attachment.arrays or self.attachment.attach()).view() as view:
            return view.array(self._number)

    def __repr__(self) -> str:
        return f"<array `{self.name}`: {self.dtype}[{', '.join(map(str, self.shape))}]>"


@refuses(CHANGES)
class ArrayReader(ArrayHandle):
    """One array of a `Reader`. It reads, as every handle of an array does; the verbs with which a server and its tables
    are changed raise ReadOnlyError."""

    def __repr__(self) -> str:
        return f"<reader of {super().__repr__()[1:]}"
