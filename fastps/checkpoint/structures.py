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
def structure_from(described: Any) -> Structure:
    """Raises CheckpointError, also where a class of a container cannot be found."""
    if len(described["leaves"]) > MOST_LEAVES:
        raise CheckpointError(f"structure: {len(described['leaves']):,} arrays")
    leaves = tuple(_leaf_from(leaf) for leaf in described["leaves"])
    constants = tuple(_constant_from(value) for value in described["constants"])
    tree = None if described["tree"] is None else _container_from(described["tree"], len(leaves) + len(constants), 0)
    return Structure(leaves, tree, constants)


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


def _container_from(described: Any, known: int, depth: int) -> Container:
    if depth > DEEPEST:
        raise CheckpointError(f"structure: containers in more than {DEEPEST} others")
    names, children = (
        described["names"],
        [_container_from(child, known, depth + 1) if type(child) is dict else child for child in described["children"]],
    )
    if len(names) != len(children) or not all(type(name) is str for name in names):
        raise CheckpointError(f"structure: {brief(described)} is no container")
    if any(type(child) is int and not 0 <= child < known for child in children):
        raise CheckpointError("structure: a container has arrays that are not there")
    return Container(_class_from(described["made_by"]), tuple(names), tuple(children))


def _class_from(described: Any) -> type:
    if type(described) is str:
        return PLAIN[described]
    module, name = described
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not is_record(found):
        raise CheckpointError(
            f"structure: the parameters were in containers of {module}.{name}, which this process does not know; "
            f"import {module} before restore()"
        )
    return found


def _constant_from(described: Any) -> Any:
    if type(described) is dict:
        if "bytes" in described:
            return bytes.fromhex(described["bytes"])
        return complex(*map(float, described["complex"]))
    if described is not None and type(described) not in (bool, int, str):
        raise CheckpointError(f"structure: {brief(described)} is no constant")
    return described
