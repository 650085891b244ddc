"""Read-only arrays on the arenas themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fastps.errors import ClosedError, NamesError, SplitError
from fastps.messages import brief, few
from fastps.spec.tree import Container

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastps._core.core import Window
    from fastps.arrays.types import Array
    from fastps.spec.arrays import Leaf
    from fastps.spec.partition import Run
    from fastps.spec.server import ServerSpec


@dataclass(frozen=True)
class Piece:
    """Part of one array of the parameters, on one shard.

    Attributes
    ----------
    name : the names that lead to the array, joined by "/"; "params" for a bare array
    shard : the shard that holds it
    start : its first element in the flattened array
    array : read-only, one-dimensional, live
    """

    name: str
    shard: int
    start: int
    array: Array


class View:
    """The parameters on this node without a copy: read-only arrays on the memory of the shards.

    Where pushes are applied as they arrive (`Async`, `SSP`), the memory is live: any worker's push changes it while you
    read, and what you read may mix the states before and after that push. Copy with `ps.pull()` when you need one
    state. Where pushes are applied in rounds (`BSP`), the view has the parameters of one round on all shards, which do
    not change for as long as the view is open or an array of it is kept.

    The memory stays mapped for as long as an array refers to it. After the server was closed, an array that was taken
    before reads as zeros, and new ones are refused: ClosedError, or ShardDiedError when a shard's process has died.

    An array that lies on one shard is returned in its own shape by `params`, `view[name]` and ``np.asarray(view)``; an
    array that is split over shards is available through `pieces`.
    """

    def __init__(
        self, spec: ServerSpec, window: Callable[[int, int, int], Window], require_alive: Callable[[], None]
    ) -> None:
        self._spec = spec
        self._window: Callable[[int, int, int], Window] | None = window  # of (shard, position, bytes)
        self._require_alive: Callable[[], None] | None = require_alive

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self._window = self._require_alive = None  # they keep the arenas mapped

    def _require_open(self) -> None:
        if self._require_alive is None:
            raise ClosedError("view: it was left; take a new one with `with ps.view() as view:`")
        self._require_alive()

    def _array(self, shard: int, position: int, leaf: Leaf, count: int) -> Array:
        assert self._window is not None
        window = self._window(shard, position, count * leaf.item_bytes)
        return np.frombuffer(memoryview(window), leaf.in_memory)

    @cached_property
    def _first_runs(self) -> dict[int, tuple[int, Run]]:
        """Per leaf, the shard on which it begins, and its run there."""
        runs: dict[int, tuple[int, Run]] = {}
        for plan in self._spec.plans:
            for run in plan.runs:
                runs.setdefault(run.leaf, (plan.index, run))
        return runs

    def _whole(self, number: int) -> Array:
        leaf = self._spec.structure.leaves[number]
        if number not in self._first_runs:
            return np.empty(leaf.shape, leaf.given)
        shard, run = self._first_runs[number]
        if run.count == leaf.size:
            return self._array(shard, run.position, leaf, run.count).reshape(leaf.shape)
        raise SplitError(
            f"view of `{leaf.name}`: it lies on several of the {len(self._spec.plans)} shards, so no single array is "
            f"on its memory; use view.pieces, or copy with pull()"
        )

    @property
    def params(self) -> Any:
        """All parameters in the structure that the server was created with. Raises SplitError when an array is split
        over shards."""
        self._require_open()
        structure = self._spec.structure
        return structure.assemble([self._whole(i) for i in range(len(structure.leaves))])

    def array(self, number: int) -> Array:
        """One of the arrays, by its number among them. Raises SplitError when it is split over shards."""
        self._require_open()
        return self._whole(number)

    @property
    def pieces(self) -> list[Piece]:
        """All parameters to which gradients are pushed, shard by shard, in order."""
        self._require_open()
        leaves = self._spec.structure.leaves
        return [
            Piece(
                leaves[run.leaf].name,
                plan.index,
                run.start,
                self._array(plan.index, run.position, leaves[run.leaf], run.count),
            )
            for plan in self._spec.plans
            for run in plan.runs
            if leaves[run.leaf].trains
        ]

    def to_arrow(self) -> Any:
        """The parameters as Arrow tensors on the same memory, in the structure that the server was created with.

        Raises SplitError when an array is split over shards.
        """
        from fastps.arrays import arrow  # pyarrow is loaded only where it is used

        self._require_open()
        structure = self._spec.structure
        return structure.assemble([arrow.tensor(self._whole(i)) for i in range(len(structure.leaves))])

    @cached_property
    def _children(self) -> dict[str, Container | int | None]:
        """What is in the outermost container, by name."""
        tree = self._spec.structure.tree
        return {} if tree is None else dict(zip(tree.names, tree.children, strict=True))

    def __getitem__(self, key: Any) -> Any:
        if self._spec.structure.is_array:
            return self.params if isinstance(key, str) and key == "params" else self.params[key]
        self._require_open()
        if str(key) not in self._children:
            raise NamesError(f"view: no array is called {brief(key)}; there are {few(self._children)}")
        child, structure = self._children[str(key)], self._spec.structure
        values = dict(enumerate(structure.constants, len(structure.leaves)))
        if isinstance(child, int):
            return values[child] if child in values else self._whole(child)
        assert child is not None
        return child.build(values | {n: self._whole(n) for _, n in child.paths() if n not in values})

    def __len__(self) -> int:
        self._require_open()
        return len(self.params if self._spec.structure.is_array else self._children)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        self._require_open()
        if not self._spec.structure.is_array:
            raise TypeError("view: a mapping of arrays is no single array; use view.params or view[name]")
        return np.array(self.params, dtype=dtype, copy=copy)
