"""The structure of parameters: one array, or containers of arrays. Pulls return the structure that was given.

Pure: no Ray, no shared memory. A `Structure` is made when a server is created and travels in its handles; its leaves
are the arrays, in order. Arrays that no rule can train are carried: stored, pulled and saved, and never pushed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastps.arrays.checks import overlap
from fastps.arrays.interchange import as_array, conversion
from fastps.arrays.types import Array, Arrays, describe, fits, item_bytes, type_name
from fastps.errors import DtypeError, NamesError, OutputError, ShapeError
from fastps.messages import brief, few, few_of
from fastps.scalars import whole
from fastps.spec.tree import Container, Path, is_container, leaves_by_path

CARRIED = "bytes"  # how arrays are stored that no rule can train
MOST_STEPS = 2**63 - 1  # of one array


@dataclass(frozen=True)
class Leaf:
    """One array of the parameters.

    Attributes
    ----------
    path : what leads to it; empty when the parameters are one array
    shape : elements per dimension
    dtype : how it is stored: "float32" or "float64", or CARRIED
    given : the dtype of the initial value, which pulls without `out` return
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    given: np.dtype[Any]

    @classmethod
    def of(cls, path: Path, shape: tuple[int, ...], dtype: str) -> Leaf:
        """One that is stored as float32 or float64 and pulled as that."""
        return cls(path, shape, dtype, np.dtype(dtype))

    def __reduce__(self) -> Any:
        return Leaf, (self.path, self.shape, self.dtype, self.given)  # what is cached does not travel

    @cached_property
    def trains(self) -> bool:
        """Whether gradients are pushed to it."""
        return self.dtype != CARRIED

    @cached_property
    def size(self) -> int:
        """Elements as they are stored; bytes of one that is carried."""
        return math.prod(self.shape) * (1 if self.trains else self.given.itemsize)

    @cached_property
    def item_bytes(self) -> int:
        return item_bytes(self.dtype) if self.trains else 1

    @cached_property
    def in_memory(self) -> np.dtype[Any]:
        """The dtype of its elements as they are stored."""
        return np.dtype(self.dtype) if self.trains else self.given

    @property
    def name(self) -> str:
        return "/".join(self.path) or "params"

    def fits(self, dtype: np.dtype[Any]) -> bool:
        """Whether arrays of a dtype can be pushed, or pulled into."""
        return fits(dtype, self.dtype) if self.trains else dtype == self.given

    def __str__(self) -> str:
        return type_name(self.given, self.shape)


@dataclass(frozen=True)
class Structure:
    """The arrays of the parameters, in order. One leaf with an empty path means that the parameters are one array.

    Attributes
    ----------
    leaves : the arrays
    tree : what they are in; None: the one array, or arrays in a dict of their own, nested as their paths say
    constants : values that are no arrays, by their number behind those of the leaves
    """

    leaves: tuple[Leaf, ...]
    tree: Container | None = None
    constants: tuple[Any, ...] = ()

    def __reduce__(self) -> Any:
        return Structure, (self.leaves, self.tree, self.constants)  # what is cached does not travel

    @property
    def is_array(self) -> bool:
        return len(self.leaves) == 1 and not self.leaves[0].path

    @property
    def is_plain(self) -> bool:
        """Whether the parameters are one array, or a dict of arrays that are all trained."""
        in_order = self.tree is not None and self.tree.children == tuple(range(len(self.leaves)))
        flat = self.tree is not None and issubclass(self.tree.made_by, dict) and in_order
        return (self.is_array or flat) and all(leaf.trains for leaf in self.leaves)

    @property
    def size(self) -> int:
        """Elements of all arrays together."""
        return sum(leaf.size for leaf in self.leaves)

    @cached_property
    def trained(self) -> list[int]:
        """The numbers of the arrays to which gradients are pushed."""
        return [number for number, leaf in enumerate(self.leaves) if leaf.trains]

    def __str__(self) -> str:
        if self.is_array:
            return str(self.leaves[0])
        return "{" + few_of((f"{leaf.name}: {leaf}" for leaf in self.leaves), len(self.leaves)) + "}"

    def empty(self) -> Arrays:
        """A new uninitialised array for each leaf."""
        return [np.empty(leaf.shape, leaf.given) for leaf in self.leaves]

    def stored(self) -> Arrays:
        """The same of the types in which they are stored."""
        return [np.empty(leaf.shape, leaf.in_memory) for leaf in self.leaves]

    def assemble(self, arrays: list[Any]) -> Any:
        """One value for each leaf, put into the structure of the parameters."""
        if self.is_array:
            return arrays[0]
        assert self.tree is not None
        return self.tree.build([*arrays, *self.constants])

    @classmethod
    def nothing(cls) -> Structure:
        """That of an empty mapping, for servers of tables alone."""
        return cls((), Container(dict, (), ()))

    def bare(self) -> Structure:
        """The leaves alone: what shards know, whose processes may lack the classes of containers."""
        return Structure(self.leaves)

    def only(self, numbers: list[int]) -> Structure:
        """The structure of some of the leaves."""
        leaves = tuple(self.leaves[number] for number in numbers)
        renumbered = {number: i for i, number in enumerate(numbers)}
        if not leaves:
            return Structure.nothing()
        return Structure(leaves, None if self.tree is None else self.tree.only(renumbered))

    def alone(self, number: int) -> Structure:
        """The structure of one of the leaves, in a dict by its name."""
        leaf = self.leaves[number]
        return Structure((leaf,), Container(dict, (leaf.name,), (0,)))

    def named(self, names: Any, verb: str) -> tuple[int, ...]:
        """The numbers of the arrays with these names, or in containers with these names, sorted.

        Raises
        ------
        NamesError
            There is none of that name.
        """
        if self.is_array:
            raise NamesError(f"{verb}: the parameters are one array, which has no name; omit names=")
        found: set[int] = set()
        for name in [names] if isinstance(names, str) or not isinstance(names, Iterable) else names:
            if not isinstance(name, str):
                raise NamesError(f"{verb}: expected names to be str, got {type(name).__name__} {brief(name)}")
            some = self._by_name.get(name)
            if some is None:
                import difflib  # loaded only for this message

                close = difflib.get_close_matches(name, self._by_name, 3) or list(self._by_name)
                raise NamesError(f"{verb}: no array is called {brief(name)}; there are {few(close)}")
            found.update(some)
        return tuple(sorted(found))

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        """The arrays of each name, and of each container by its path."""
        found: dict[str, list[int]] = {}
        for path, number in self._numbers.items():
            for end in range(1, len(path) + 1):
                if number < len(self.leaves):
                    found.setdefault("/".join(path[:end]), []).append(number)
        return found

    def part(self, value: Any, verb: str) -> tuple[Arrays, tuple[int, ...]]:
        """As `grads` for some of the leaves: what is missing or None is left out. Also their numbers, sorted."""
        if self.is_array:
            given = {} if value is None else {0: value}
        elif self._is_list_of(value, len(self.trained)):
            given = dict(zip(self.trained, value, strict=True))
        else:
            given = self._match(value, verb, self.trained, partial=True)
        given = {number: one for number, one in given.items() if one is not None}
        return self._checked_grads(given, verb), tuple(sorted(given))

    def grads(self, value: Any, verb: str) -> Arrays:
        """The arrays of `value`, checked against the leaves; those that are not C-contiguous are copied. For a mapping
        of arrays also a list of them in order. Gradients of an array that comes twice are added up. Leaves that are
        carried get an empty array.

        Raises
        ------
        NamesError, DtypeError, ShapeError
        """
        trained = self.trained
        if self._is_list_of(value, len(trained)):
            found = dict(zip(trained, value, strict=True))
        else:
            found = self._match(value, verb, trained)
        return self._checked_grads(found, verb)

    def values(self, value: Any, verb: str, partial: bool = False) -> dict[int, Array]:
        """By the number of its leaf, what is to be stored for each: an array as for `grads`, and of leaves that are
        carried their bytes. With `partial` for those that are there and not None. An array that comes twice must be
        the same in both places.

        Raises
        ------
        NamesError, DtypeError, ShapeError
        """
        if self._is_list_of(value, len(self.leaves)):
            found = dict(enumerate(value))
        else:
            found = self._match(value, verb, range(len(self.leaves)), partial)
        return {
            number: self.value(number, given, verb)
            for number, given in sorted(found.items())
            if not (partial and given is None)
        }

    def value(self, number: int, given: Any, verb: str) -> Array:
        """The same for the leaf of this number; `given` may be Several."""
        leaf, several = self.leaves[number], given.values if isinstance(given, Several) else [given]
        checked = [np.ascontiguousarray(self._checked(number, one, verb)).reshape(leaf.shape) for one in several]
        if any(one.tobytes() != checked[0].tobytes() for one in checked[1:]):
            raise NamesError(
                f"{verb} `{leaf.name}`: it comes twice in the parameters, so its values must be the same in both "
                f"places; pass one array in both"
            )
        return checked[0] if leaf.trains else checked[0].reshape(-1).view(np.uint8)

    def counts(self, value: Any, leaves: Sequence[int], verb: str) -> dict[int, int]:
        """A whole number for each of these leaves, given as one for all, or in the structure of those that are trained.
        What is carried gets the largest."""
        trained = [number for number in leaves if self.leaves[number].trains]
        if not is_container(value):  # one for all, or it is refused as that
            found = dict.fromkeys(trained, whole(verb, value, 0, MOST_STEPS))
        else:
            found = self._match(value, verb, trained)
        counted = {
            number: whole(f"{verb} `{self.leaves[number].name}`", one, 0, MOST_STEPS) for number, one in found.items()
        }
        return dict.fromkeys(leaves, max(counted.values(), default=0)) | counted

    def _checked_grads(self, found: dict[int, Any], verb: str) -> Arrays:
        arrays: Arrays = [np.empty(0, np.uint8)] * len(self.leaves)
        for number, given in found.items():
            several = given if isinstance(given, Several) else Several([given])
            checked = [np.ascontiguousarray(self._checked(number, one, verb)) for one in several.values]
            arrays[number] = sum_of(checked)
        return arrays

    def _is_list_of(self, value: Any, count: int) -> bool:
        """Whether it is a list of values in the order of the leaves of a mapping."""
        mapping = self.tree is not None and issubclass(self.tree.made_by, Mapping)
        is_list = type(value) in (list, tuple) and len(value) == count
        return mapping and is_list and not any(is_container(one) for one in value)

    def outs(self, value: Any, verb: str, whole: Structure | None = None) -> Arrays:
        """The arrays of `value`, checked against the leaves, and that they can be written in place. `whole`: the
        structure of which this is a part; what else is in that may be None.

        Raises
        ------
        NamesError, DtypeError, ShapeError
        OutputError
            An array is read-only, not C-contiguous or not aligned, or shares memory with another one.
        """
        if self.is_array and not hasattr(value, "__len__") and isinstance(value, (int, float, np.generic)):
            raise OutputError(f"{verb} out: expected an array, got {type(value).__name__}; pass np.empty(())")
        arrays: Arrays = []
        for number, given in self._match(value, verb, range(len(self.leaves)), whole=whole).items():
            leaf, several = self.leaves[number], given.values if isinstance(given, Several) else [given]
            checked = [self._checked(number, one, verb, out=True) for one in several]
            if any(memory_of(one) != memory_of(checked[0]) for one in checked):
                raise OutputError(
                    f"{verb} out of `{leaf.name}`: it comes twice in the parameters, so it must be the same memory; "
                    f"pass one array in both places"
                )
            array = checked[0]
            problem = (
                "is read-only"
                if not array.flags.writeable
                else "is not C-contiguous"
                if not array.flags.c_contiguous
                else "is not aligned"
                if not array.flags.aligned
                else None
            )
            if problem:
                raise OutputError(
                    f"{verb} out of `{leaf.name}`: expected a writable, C-contiguous {leaf}, got one that {problem}; "
                    f"{replacement(leaf)}"
                )
            arrays.append(array)
        if (both := overlap(arrays)) is not None:
            one, other = (self.leaves[i].name for i in both)
            raise OutputError(f"{verb} out: `{one}` and `{other}` share memory; pass separate arrays")
        return arrays

    def _match(
        self, value: Any, verb: str, wanted: Sequence[int], partial: bool = False, whole: Structure | None = None
    ) -> dict[int, Any]:
        """The values for the wanted leaves, by number; with `partial` None for those that are missing. What is given
        for others must be None, or a constant; for what is only in `whole`, and with `partial` for containers, None."""
        if self.is_array:
            return {0: value}
        assert self.tree is not None
        is_list, takes_list = type(value) in (list, tuple), self.tree.made_by in (list, tuple)
        if not is_container(value) or (is_list and not takes_list):
            told = f"{type(value).__name__} of {len(value)}" if is_list else type(value).__name__
            name, listed = verb.split()[0], ""
            if issubclass(self.tree.made_by, Mapping) and name in ("push", "push_pull", "set") and " out" not in verb:
                gradients, everything = f"the {len(self.trained)} arrays of gradients", f"its {len(self.leaves)} arrays"
                listed = f", or {everything if name == 'set' else gradients} in a list"
            raise NamesError(f"{verb}: expected {article(self.tree.made_by)} {self}{listed}, got a {told}")
        found: dict[int, Any] = dict.fromkeys(wanted)
        numbers, values = self._numbers, leaves_by_path(value, verb)
        missing = [path for path, number in numbers.items() if number in found and path not in values and not partial]
        unknown = [path for path in values if path not in numbers]
        model = self if partial else whole
        if unknown and model is not None:
            unknown = [path for path in unknown if values[path] is not None or not model.has(path)]
        if missing or unknown:
            told = " and ".join(
                f"{what} {few(['/'.join(path) for path in paths])}"
                for what, paths in (("missing", missing), ("unknown", unknown))
                if paths
            )
            may_be_partial = verb.split()[0] in ("push", "push_pull", "set")
            hint = ", or partial=True for some of them" if missing and may_be_partial else ""
            if partial:
                advice = "pass no other names than those of the parameters"
            elif whole is not None and len(whole.leaves) > len(self.leaves):
                advice = "pass exactly the arrays of names="
            else:
                advice = f"pass exactly the names of the parameters{hint}"
            raise NamesError(f"{verb}: {told}; expected {'some of ' if partial else ''}{self}: {advice}")
        for path, number in numbers.items():
            given = values.get(path)
            if number not in found or (partial and given is None):
                continue
            before = found[number]
            if before is None:
                found[number] = given
            else:
                found[number] = Several([*(before.values if isinstance(before, Several) else [before]), given])
        return found

    def has(self, path: Path) -> bool:
        """Whether an array, a constant or a container is there."""
        return path in self._numbers or path in self._containers

    @cached_property
    def _containers(self) -> frozenset[Path]:
        """The paths of the containers, but the outermost."""
        return frozenset(path[:end] for path in self._numbers for end in range(1, len(path)))

    @cached_property
    def _numbers(self) -> dict[Path, int]:
        """The leaf, or constant, of each path."""
        return {} if self.tree is None else dict(self.tree.paths())

    def _checked(self, number: int, given: Any, verb: str, out: bool = False) -> Array:
        """A value for a leaf as an array of its shape and a fitting dtype."""
        leaf = self.leaves[number]
        wanted = leaf.dtype if leaf.trains else stored_name(leaf.given)
        array = as_array(given, f"{verb} `{leaf.name}`", wanted, (lambda: replacement(leaf)) if out else None)
        if not leaf.fits(array.dtype):
            hint = replacement(leaf) if out else conversion(given, wanted)
            raise DtypeError(f"{verb} `{leaf.name}`: expected {leaf}, got {describe(array)}; {hint}")
        if array.shape != leaf.shape:
            hint = replacement(leaf) if out else reshaping(array, leaf)
            raise ShapeError(f"{verb} `{leaf.name}`: expected {leaf}, got {describe(array)}; {hint}")
        return array


def article(made_by: type) -> str:
    """How messages name a container."""
    return "a mapping" if issubclass(made_by, Mapping) else f"a {made_by.__name__}"


@dataclass(frozen=True)
class Several:
    """The values for an array that comes several times in the parameters."""

    values: list[Any]


def memory_of(array: Array) -> tuple[Any, ...]:
    """What two arrays have in common that are the same memory."""
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype


def sum_of(arrays: Arrays) -> Array:
    """Their sum; those that are the same memory count once."""
    apart = list({memory_of(array): array for array in arrays}.values())
    if len(apart) == 1:
        return apart[0]
    stored = np.float64 if apart[0].dtype == np.float64 else np.float32
    total: Array = apart[0].astype(stored)
    for array in apart[1:]:
        total = np.add(total, array, dtype=stored)
    return total


def stored_name(dtype: np.dtype[Any]) -> str:
    """A name by which numpy knows a dtype: of text and records there is no np.NAME."""
    return dtype.name if hasattr(np, dtype.name) else dtype.str


def replacement(leaf: Leaf) -> str:
    """What to pass instead of an `out` that does not fit: a new array, since a conversion would make a copy."""
    dtype = f"np.{leaf.dtype}" if leaf.trains else repr(leaf.given.str)
    return f"pass np.empty({leaf.shape}, {dtype}), or omit out="


def reshaping(array: Array, leaf: Leaf) -> str:
    """What to pass instead of an array of another shape."""
    if array.size == math.prod(leaf.shape):
        return f"pass it as .reshape{leaf.shape if len(leaf.shape) != 1 else f'({leaf.shape[0]})'}"
    return "pass an array of the parameter's own shape"
