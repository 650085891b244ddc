"""The structure of the parameters as JSON, and back: arrays, containers, constants."""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from typing import Any

import numpy as np

from fastps.arrays.types import DTYPES, numpy_dtype
from fastps.checkpoint.untrusted import DEEPEST, refusing
from fastps.errors import CheckpointError
from fastps.messages import brief
from fastps.spec.arrays import CARRIED, Leaf, Structure
from fastps.spec.tree import Container, is_record

PLAIN = {"dict": dict, "OrderedDict": OrderedDict, "list": list, "tuple": tuple}
MOST_LEAVES = 2**24


def structure_to(structure: Structure) -> dict[str, Any]:
    return {
        "leaves": [
            {
                "path": list(leaf.path),
                "shape": list(leaf.shape),
                "stored": leaf.dtype,
                "dtype": leaf.given.name if leaf.given.name in ("bfloat16", "float16") else _descr(leaf.given),
            }
            for leaf in structure.leaves
        ],
        "tree": None if structure.tree is None else _container_to(structure.tree),
        "constants": [_constant_to(value) for value in structure.constants],
    }


def _descr(dtype: np.dtype[Any]) -> Any:
    return np.lib.format.dtype_to_descr(dtype)


def _container_to(container: Container) -> dict[str, Any]:
    plain = next((name for name, cls in PLAIN.items() if cls is container.made_by), None)
    children = [_container_to(child) if isinstance(child, Container) else child for child in container.children]
    made_by = plain or [container.made_by.__module__, container.made_by.__qualname__]
    return {"made_by": made_by, "names": list(container.names), "children": children}


def _constant_to(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [repr(value.real), repr(value.imag)]}
    return value


@refusing("structure")
def structure_from(described: Any, unknown_as_dicts: bool = False) -> Structure:
    """Raises CheckpointError, also where a class of a container cannot be found; with `unknown_as_dicts`, such a
    container is a dict: enough to read arrays by their names."""
    if len(described["leaves"]) > MOST_LEAVES:
        raise CheckpointError(f"structure: {len(described['leaves']):,} arrays")
    leaves = tuple(_leaf_from(leaf) for leaf in described["leaves"])
    constants = tuple(_constant_from(value) for value in described["constants"])
    known, tree = len(leaves) + len(constants), described["tree"]
    return Structure(leaves, None if tree is None else _container_from(tree, known, 0, unknown_as_dicts), constants)


def _leaf_from(described: Any) -> Leaf:
    path, shape, stored, given = (described[name] for name in ("path", "shape", "stored", "dtype"))
    dtype = numpy_dtype(given) if given in ("bfloat16", "float16") else np.dtype(_as_descr(given))
    sound = all(type(name) is str for name in path) and all(type(n) is int and 0 <= n < 2**48 for n in shape)
    if not sound or stored not in (*DTYPES, CARRIED) or dtype.hasobject or math.prod(shape) * dtype.itemsize >= 2**60:
        raise CheckpointError(f"structure: {brief(described)} is no array")
    return Leaf(tuple(path), tuple(shape), stored, dtype)


def _as_descr(value: Any) -> Any:
    """JSON has no tuples, of which the fields of a structured type are."""
    if not isinstance(value, list):
        return value
    return [tuple(tuple(part) if i == 2 else _as_descr(part) for i, part in enumerate(field)) for field in value]


def _container_from(described: Any, known: int, depth: int, unknown_as_dicts: bool) -> Container:
    if depth > DEEPEST:
        raise CheckpointError(f"structure: containers in more than {DEEPEST} others")
    names, children = (
        described["names"],
        [
            _container_from(child, known, depth + 1, unknown_as_dicts) if type(child) is dict else child
            for child in described["children"]
        ],
    )
    if len(names) != len(children) or not all(type(name) is str for name in names):
        raise CheckpointError(f"structure: {brief(described)} is no container")
    numbers = [child for child in children if not isinstance(child, Container) and child is not None]
    if any(type(number) is not int or not 0 <= number < known for number in numbers):
        raise CheckpointError("structure: a container has arrays that are not there")
    made_by = _class_from(described["made_by"], unknown_as_dicts)
    return Container(made_by, tuple(names), tuple(children))


def _class_from(described: Any, unknown_as_dicts: bool) -> type:
    if type(described) is str:
        return PLAIN[described]
    module, name = described
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not is_record(found):
        if unknown_as_dicts:
            return dict
        raise CheckpointError(
            f"structure: the parameters were in containers of {module}.{name}, which this process does not know; "
            f"import {module} before restore()"
        )
    return found


@refusing("structure")
def classes_of(described: Any) -> list[str]:
    """The classes of containers that must have been imported, sorted. Raises CheckpointError."""
    found: set[str] = set()

    def walk(container: Any) -> None:
        made_by = container["made_by"]
        if type(made_by) is not str:
            found.add(".".join(made_by))
        for child in container["children"]:
            if type(child) is dict:
                walk(child)

    if described["tree"] is not None:
        walk(described["tree"])
    return sorted(found)


def names_of(structure: Structure) -> list[tuple[str, ...]]:
    """The names of each array: several of one that comes several times in the parameters."""
    found: list[list[str]] = [[] for _ in structure.leaves]
    for path, number in () if structure.tree is None else structure.tree.paths():
        if number < len(found):
            found[number].append("/".join(path))
    return [tuple(names) or (leaf.name,) for names, leaf in zip(found, structure.leaves, strict=True)]


def _constant_from(described: Any) -> Any:
    if type(described) is dict:
        if "bytes" in described:
            return bytes.fromhex(described["bytes"])
        return complex(*map(float, described["complex"]))
    if described is not None and type(described) not in (bool, int, str):
        raise CheckpointError(f"structure: {brief(described)} is no constant")
    return described
