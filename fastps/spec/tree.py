"""The containers that parameters come in: how values are found in them, and how they are put together again. Pure.

Containers are mappings, lists, tuples, named tuples and dataclasses, nested; everything else is a leaf. What leads to a
leaf is its path: keys, positions and fields, as str.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastps.errors import NamesError, ShapeError
from fastps.messages import brief, few

Path = tuple[str, ...]


@dataclass(frozen=True)
class Container:
    """A container and what is in it.

    Attributes
    ----------
    made_by : the class that it is made with: dict, OrderedDict, list, tuple, or a class of named tuples or dataclasses
    names : of the children
    children : containers, and the numbers of leaves; a leaf that comes twice has one number. None: nothing is there
    """

    made_by: type
    names: tuple[str, ...]
    children: tuple[Container | int | None, ...]

    def build(self, values: Sequence[Any] | Mapping[int, Any]) -> Any:
        """The container with one value for each leaf, by its number.

        Raises
        ------
        NamesError
            A named tuple or dataclass refuses None for the fields in which nothing is.
        """
        found = [
            child.build(values) if isinstance(child, Container) else None if child is None else values[child]
            for child in self.children
        ]
        if self.made_by in (list, tuple):
            return self.made_by(found)
        named = dict(zip(self.names, found, strict=True))
        return self._record(named) if is_record(self.made_by) else self.made_by(named)

    def _record(self, named: dict[str, Any]) -> Any:
        try:
            return self.made_by(**named)
        except Exception as error:
            lacking = [name for name, child in zip(self.names, self.children, strict=True) if child is None]
            if not lacking:
                raise
            raise NamesError(
                f"{self.made_by.__name__}: it cannot be made with None for {few(lacking)}, of which nothing was asked "
                f"({type(error).__name__}: {brief(str(error))}); read single arrays by ps[name].pull(), or pull all"
            ) from error

    def paths(self, before: Path = ()) -> Iterable[tuple[Path, int]]:
        """The path of each leaf and its number, in order."""
        for name, child in zip(self.names, self.children, strict=True):
            if isinstance(child, Container):
                yield from child.paths((*before, name))
            elif child is not None:
                yield (*before, name), child

    def renumbered(self, numbers: Sequence[int]) -> Container:
        """With the new number of each leaf."""
        children = [
            child.renumbered(numbers) if isinstance(child, Container) else None if child is None else numbers[child]
            for child in self.children
        ]
        return Container(self.made_by, self.names, tuple(children))

    def only(self, numbers: Mapping[int, int]) -> Container | None:
        """With some of the leaves, which get other numbers. What is left out of a mapping is not there, elsewhere it is
        None; None if nothing is left."""
        kept: list[tuple[str, Container | int | None]] = []
        for name, child in zip(self.names, self.children, strict=True):
            some = child.only(numbers) if isinstance(child, Container) else None
            if isinstance(child, int):
                kept.append((name, numbers.get(child)))
            else:
                kept.append((name, some))
        if all(child is None for _, child in kept):
            return None
        if issubclass(self.made_by, dict):
            kept = [(name, child) for name, child in kept if child is not None]
        return Container(self.made_by, tuple(name for name, _ in kept), tuple(child for _, child in kept))


def is_record(cls: type) -> bool:
    """Whether it is a class of named tuples or of dataclasses."""
    return dataclasses.is_dataclass(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def is_container(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple)) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type) and not hasattr(value, "__array__")
    )


def children_of(value: Any, path: Path, verb: str) -> list[tuple[str, Any]]:
    """The names and values in a container. Raises NamesError for names that are not str, or empty."""
    if isinstance(value, Mapping):
        for name in value:
            require_name(name, path, verb)
        return list(value.items())
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value) if field.init]
    fields = getattr(value, "_fields", None)
    return list(zip(fields or map(str, range(len(value))), value, strict=True))


def taken_apart(value: Any, verb: str) -> tuple[Container | int, list[tuple[Path, Any]]]:
    """The containers of a value, and its leaves in order.

    Raises
    ------
    NamesError
        A name is not a str, or empty.
    ShapeError
        It is an empty container.
    """
    leaves: list[tuple[Path, Any]] = []
    tree = _taken(value, (), verb, leaves)
    if not leaves:
        raise ShapeError(f"{verb}: expected at least one array, got an empty {type(value).__name__}")
    return tree, leaves


def _taken(value: Any, path: Path, verb: str, leaves: list[tuple[Path, Any]]) -> Container | int:
    if not is_container(value):
        leaves.append((path, value))
        return len(leaves) - 1
    found = children_of(value, path, verb)
    children = tuple(_taken(child, (*path, name), verb, leaves) for name, child in found)
    return Container(_class_of(value), tuple(name for name, _ in found), children)


def _class_of(value: Any) -> type:
    """The class with which a container like this one is made."""
    if isinstance(value, Mapping):
        return OrderedDict if isinstance(value, OrderedDict) else dict
    if is_record(type(value)):
        return type(value)
    return list if isinstance(value, list) else tuple


def leaves_by_path(value: Any, verb: str) -> dict[Path, Any]:
    """The leaves of a container; empty containers have none."""
    found: dict[Path, Any] = {}

    def walk(value: Any, path: Path) -> None:
        if is_container(value):
            for name, child in children_of(value, path, verb):
                walk(child, (*path, name))
        else:
            found[path] = value

    walk(value, ())
    return found


def require_name(name: Any, path: Path, verb: str) -> None:
    """Raises NamesError for a key of a mapping that is not a str, or empty. `path` leads to the mapping."""
    if not isinstance(name, str) or not name:
        raise NamesError(
            f"{verb}: expected names to be non-empty str, got {type(name).__name__} {brief(name)} - at "
            f"`{'/'.join(path) or 'the top'}`"
        )
