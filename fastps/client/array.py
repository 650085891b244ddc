"""``ps[name]`` where that is an array of the parameters."""

from __future__ import annotations

from typing import Any

from fastps.arrays.types import Array
from fastps.client.attach import Attachment
from fastps.deadline import seconds
from fastps.spec.tree import children_of


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
        self.attachment, self._path = attachment, leaf.path
        self.name, self.shape, self.dtype = leaf.name, leaf.shape, leaf.given.name

    def pull(self, *, timeout: float | None = None) -> Array:
        """A copy of this array as `ParameterServer.pull` reads it with ``names=[name]``."""
        names = [self.name] if self._path else None
        return self._in((self.attachment.arrays or self.attachment.attach()).pull(None, seconds(timeout), names)[0])

    def view(self) -> Array:
        """This array read-only on the memory itself, as `ParameterServer.view` gives it. Raises SplitError where it is
        on several shards, or on another node."""
        with (self.attachment.arrays or self.attachment.attach()).view() as view:
            return self._in(view.params)

    def _in(self, params: Any) -> Array:
        for name in self._path:
            params = dict(children_of(params, (), "pull"))[name]
        array: Array = params
        return array

    def __repr__(self) -> str:
        return f"<array `{self.name}`: {self.dtype}[{', '.join(map(str, self.shape))}]>"
