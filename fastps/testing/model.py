"""A model of a server: the behaviour of ParameterServer, in one process and without failures.

Use it as the oracle of a test, or in place of a server to test a trainer without Ray. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastps.errors import ClosedError, DtypeError, NamesError, OutputError, ShapeError
from fastps.rules import Add, Rule
from fastps.rules.assignment import assign
from fastps.testing.naive import Naive

Array = np.ndarray[Any, np.dtype[Any]]
Flat = dict[tuple[str, ...], Array]


class ModelServer:
    """Parameters with one state.

    Parameters
    ----------
    params : int, array or (nested) mapping of names to numpy arrays, float32 or float64; copied
    rule : what a push does; or a mapping of patterns to rules: the first pattern that fits a leaf's names, joined by
        "/", says which rule is the leaf's
    num_shards : the length of `versions`
    """

    def __init__(self, params: Any, *, rule: Rule | Mapping[str, Rule] | None = None, num_shards: int = 1) -> None:
        value = np.zeros(params) if isinstance(params, int) else params
        self._bare = not isinstance(value, Mapping)
        flat = _flat(value)
        assigned, _ = assign(Add() if rule is None else rule, ["/".join(path) for path in flat], [])
        self._leaves = {
            path: Naive(assigned.rules[which], array)
            for (path, array), which in zip(flat.items(), assigned.of_leaf, strict=True)
        }
        self._num_shards = num_shards
        self._pushes = 0
        self._closed = False

    def pull(self, *, out: Any = None, timeout: float | None = None) -> Any:
        outs = self._outs(out)
        return self._result(out, outs)

    def push(self, grads: Any, *, pulled: Any = None, timeout: float | None = None) -> None:
        self._apply(self._fitting(grads), pulled)

    def push_pull(self, grads: Any, *, pulled: Any = None, out: Any = None, timeout: float | None = None) -> Any:
        checked = {path: array.copy() for path, array in self._fitting(grads).items()}  # `out` may be the gradient
        outs = self._outs(out)
        self._apply(checked, pulled)
        return self._result(out, outs)

    @property
    def versions(self) -> tuple[int, ...]:
        return (self._pushes,) * self._num_shards

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _state(self) -> Flat:
        return {path: leaf.params for path, leaf in self._leaves.items()}

    def _apply(self, grads: Flat, pulled: Any) -> None:
        seen = {} if pulled is None else self._fitting(pulled)
        for path, leaf in self._leaves.items():
            leaf.push(grads[path], seen.get(path))
        self._pushes += 1

    def _outs(self, out: Any) -> Flat | None:
        if out is None:
            self._fitting(_nested(self._state))
            return None
        outs = self._fitting(out)
        for path, array in outs.items():
            if not (array.flags.writeable and array.flags.c_contiguous and array.flags.aligned):
                raise OutputError(f"out of {path}: cannot be written in place")
        return outs

    def _result(self, out: Any, outs: Flat | None) -> Any:
        if outs is None:
            return _nested({path: array.copy() for path, array in self._state.items()})
        for path, array in outs.items():
            array[...] = self._state[path]
        return out

    def _fitting(self, value: Any) -> Flat:
        if self._closed:
            raise ClosedError("the model server was closed")
        if not self._bare and not isinstance(value, Mapping):
            raise NamesError(f"expected a mapping, got {type(value).__name__}")
        if self._bare and isinstance(value, Mapping):
            raise DtypeError("expected an array, got a mapping")
        given = _flat(value)
        if given.keys() != self._state.keys():
            raise NamesError(f"expected {list(self._state)}, got {list(given)}")
        for path, array in self._state.items():
            if not isinstance(given[path], np.ndarray) or given[path].dtype != array.dtype:
                raise DtypeError(f"{path}: expected {array.dtype}")
            if given[path].shape != array.shape:
                raise ShapeError(f"{path}: expected {array.shape}, got {given[path].shape}")
        return given


def _flat(value: Any, path: tuple[str, ...] = ()) -> Flat:
    if not isinstance(value, Mapping):
        return {path: value}
    flat: Flat = {}
    for name, item in value.items():
        flat |= _flat(item, (*path, name))
    return flat


def _nested(flat: Flat) -> Any:
    if () in flat:
        return flat[()]
    tree: dict[str, Any] = {}
    for path, array in flat.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = array
    return tree
