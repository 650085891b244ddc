"""What a table is: the description that a server is created from, and what a handle carries. Pure."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastps.errors import OptionError, ShapeError
from fastps.init import Array, Initializer, initializer
from fastps.rules import SGD, Rule, RuleFamily
from fastps.rules.assignment import as_rule
from fastps.spec import RuleInfo
from fastps.structure import DTYPES, Path
from fastps.tables.keys import KINDS

MAX_TABLES, MAX_DIM, MAX_ROWS = 64, 65536, 2**31  # csrc/layout.h
SIGMAS = 6  # of how many rows a hash puts on a shard


class Table:
    """Rows of `dim` values by key, as a value in the parameters of a `ParameterServer`, or alone.

    A row is born when its key is first pulled or pushed. ``ps[name]``, or ``ps.table`` where there is only one, is the
    handle that serves it: see `fastps.tables.handle.TableHandle`.

    Parameters
    ----------
    dim : int
        Values a row, 1 to 65536.
    rule : Rule
        What a push does to a row. Without it ``SGD(0.01)``.
    init : number, array[n, dim] or one of `fastps.init`
        How rows begin. Without it normal, of standard deviation 1 / sqrt(dim).
    dtype : "float32" or "float64"
    keys : "int64", "uint64" or "bytes"
        Of what kind. "bytes" takes str (as UTF-8) and bytes and keeps a hash of 64 bits in their place: two of n different
        keys share a row with probability n**2 / 2**65, and `keys()` answers the hashes.
    capacity : int, optional
        The most rows. Each shard has room for its part, and for six standard deviations more if there are several, as a
        hash spreads them. Without it as many as the memory of the shard's node had room for at creation. Memory is taken
        as rows come.
    seed : int
        Of random initializers.

    Raises
    ------
    OptionError, ShapeError
        Nothing was created.
    """

    def __init__(
        self,
        dim: int,
        *,
        rule: Rule | RuleFamily | None = None,
        init: Any = None,
        dtype: Any = "float32",
        keys: str = "int64",
        capacity: int | None = None,
        seed: int = 0,
    ) -> None:
        self.dim = _whole("dim", dim, 1, MAX_DIM)
        self.rule: Rule = as_rule(SGD(0.01) if rule is None else rule, "Table rule")
        if self.rule.family.uses_pulled:
            raise OptionError(f"Table rule: {self.rule!r} needs the parameters that the worker had; use it on arrays")
        try:
            self.dtype: str = np.dtype(dtype).name
        except TypeError:
            self.dtype = str(dtype)
        if self.dtype not in DTYPES:
            raise OptionError(f"Table dtype: expected one of {DTYPES}, got {dtype!r}")
        if keys not in KINDS:
            raise OptionError(f"Table keys: expected one of {KINDS}, got {keys!r}")
        self.keys = keys
        self.capacity = None if capacity is None else _whole("capacity", capacity, 1, 2**62)
        self.seed = _whole("seed", seed, 0, 2**64 - 1)
        self.init: Initializer = initializer(init, self.dim)
        if isinstance(self.init, Array) and np.shape(self.init.values)[1] != self.dim:
            raise ShapeError(f"Table init: expected values[n, {self.dim}], got {np.shape(self.init.values)}")

    def __repr__(self) -> str:
        return f"Table({self.dim}, rule={self.rule!r}, init={self.init!r}, dtype={self.dtype!r}, keys={self.keys!r})"


@dataclass(frozen=True)
class TableInfo:
    """What a handle knows of a table.

    Attributes
    ----------
    path : the names that lead to it; empty when it is all of the parameters
    dim, dtype, keys : as in `Table`
    rule : without its code
    initial : (kind, first, second) of csrc/initial.c
    seed : of random initializers
    capacity : the most rows a shard, or None
    tracked : whether rows know when they were last seen
    """

    path: Path
    dim: int
    dtype: str
    keys: str
    rule: RuleInfo
    initial: tuple[int, float, float]
    seed: int
    capacity: int | None
    tracked: bool = False

    @classmethod
    def of(cls, path: Path, table: Table, num_shards: int) -> TableInfo:
        name = "/".join(path) or "table"
        return cls(
            path, table.dim, table.dtype, table.keys, RuleInfo.of(name, table.rule), table.init.numbers(table.dim),
            table.seed, None if table.capacity is None else capacity_of_shard(table.capacity, num_shards),
        )  # fmt: skip

    @property
    def name(self) -> str:
        return "/".join(self.path) or "table"

    @property
    def item_bytes(self) -> int:
        return 4 if self.dtype == "float32" else 8

    @property
    def streams(self) -> list[tuple[str, int]]:
        """The name and the elements a row of the values and each slot."""
        slots = zip(self.rule.slots, self.rule.row_slots, strict=True)
        return [("row", self.dim), *((name, 1 if one else self.dim) for name, one in slots)]

    def layout(self, max_rows: int) -> tuple[Any, ...]:
        """As `Arena.create` takes it."""
        kind, first, second = self.initial
        return (
            self.dim, self.item_bytes, self.rule.initial, self.rule.row_slots, kind, first, second, self.seed,
            int(self.tracked), max_rows,
        )  # fmt: skip

    def empty(self, n: int, stream: int = 0) -> np.ndarray[Any, np.dtype[Any]]:
        """A new uninitialised array for n rows."""
        elements = self.streams[stream][1]
        return np.empty((n, elements), self.dtype)

    def __str__(self) -> str:
        return f"Table({self.dim}, {self.dtype}, {self.keys})"


def capacity_of_shard(capacity: int, num_shards: int) -> int:
    """The most rows of one of the shards."""
    if num_shards == 1:
        return min(capacity, MAX_ROWS)
    share = capacity / num_shards
    return min(math.ceil(share + SIGMAS * math.sqrt(share)), MAX_ROWS)


def _whole(name: str, value: Any, least: int, most: int) -> int:
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= most:
        raise OptionError(f"Table {name}: expected a whole number from {least} to {most}, got {value!r}")
    return number
