"""Tables: the description that a server is created from, and what a handle carries. Pure."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastps._core import table_row_bytes
from fastps.arrays import types
from fastps.errors import NamesError, OptionError, ShapeError
from fastps.init import Array, Initializer, initializer
from fastps.messages import brief
from fastps.rules import Add, Rule, RuleFamily
from fastps.rules.assignment import as_rule
from fastps.scalars import choice, flag, positive, whole
from fastps.spec.keys import KINDS
from fastps.spec.rule import RuleInfo
from fastps.spec.tree import Path

MAX_TABLES, MAX_DIM, MAX_ROWS = 64, 65536, 2**31  # csrc/layout.h
MAX_TTL = 3e8  # seconds; csrc/layout.h counts in 32 bits
EVICTIONS = ("lru", "lfu")
ROUNDINGS = ("stochastic", "nearest")
SIGHTINGS = "(sightings)"
INDEX_BYTES = 14  # of the index per row, at most (csrc/index.c)
SIGMAS = 6  # standard deviations of the number of rows that a hash puts on a shard


def name_of(path: Path) -> str:
    """The name of the table at a path; of one that is all of the parameters, "table"."""
    return "/".join(path) or "table"


class Table:
    """Rows of `dim` values by key: the parameters of a `ParameterServer`, or one of the values in them.

    A row is created when its key is first pulled or pushed. ``ps[name]``, or ``ps.table`` if there is only one, is its
    handle: see `fastps.tables.handle.TableHandle`.

    Parameters
    ----------
    dim : int
        Values per row, 1 to 65536.
    rule : Rule
        What a push does to a row. Default: the server's rule, which by default adds gradients up.
    init : number, array[n, dim] or one of `fastps.init`
        Initial values of rows. Default: uniform with standard deviation 1 / sqrt(dim).
    dtype : "float32" or "float64"
        What rules compute with, and `pull` returns.
    stored : "bfloat16", "float16" or None
        Of float32: rows hold their values in half precision, in half the memory. Slots stay float32.
    rounding : "stochastic" or "nearest"
        How a push rounds to `stored`. "stochastic": up or down at random, so that updates which are too small for a
        step of the half-precision number add up on average. The random numbers are a function of `seed`, the key and
        the update count of the table on the shard. What is set, and initial values, are rounded to nearest.
    keys : "int64", "uint64" or "bytes"
        The kind of keys. "bytes" takes str (as UTF-8) and bytes and stores a 64-bit hash in their place: two of n
        different keys share a row with probability n**2 / 2**65, and `keys()` returns the hashes.
    capacity : int, optional
        The most rows. Exact on one shard. A hash spreads keys unevenly over several shards, so each of s shards may
        have its share, capacity / s, and six standard deviations more, 6 * sqrt(capacity / s): almost certainly
        `capacity` rows fit, and the table is full when one of its shards is. All keys of one call must have rows at
        once, so no shard may get more keys in a call than its capacity, even with `evict`. Default: as many as the
        memory of the shard's node had room for at creation. Memory is allocated as rows are created.
    max_bytes : int, optional
        The same as a memory budget for rows, slots and index. Either this or `capacity`.
    seed : int
        Of random initializers.
    admit : int
        A row is created on about the `admit`-th pull of its key; before that, pulls return initial values and pushes
        are ignored. Counting takes about 40 B of memory per key.
    ttl : float, optional
        Time to live, in seconds: rows that were not pulled or pushed for longer are evicted some time later.
    evict : "lru", "lfu" or None
        What happens when a shard is full. "lru" evicts the least recently used rows, "lfu" the least frequently used
        ones, a sixteenth of the capacity at a time; None raises TableFullError. The shard's process evicts: while it is
        stopped, or busy with `on_evict`, calls with new keys wait for it up to their timeout.
    on_evict : callable or path, optional
        Receives the rows that `ttl` and `evict` remove, in the shard's process: a function that is called with (keys,
        rows, slots by name) for each batch; or a directory in which each shard writes
        ``<name>-<shard>-<number>.arrows``, an Arrow stream with the columns of `to_arrow` and the slots.
    track : bool
        Rows record when they were last used, and how often: see `TableHandle.activity`. Costs 8 B per row, and a write
        for each row that is pulled. Always on with `ttl` or `evict`.

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
        stored: Any = None,
        rounding: str = "stochastic",
        keys: str = "int64",
        capacity: int | None = None,
        max_bytes: int | None = None,
        seed: int = 0,
        admit: int = 1,
        ttl: float | None = None,
        evict: str | None = None,
        on_evict: Callable[[Any, Any, dict[str, Any]], Any] | str | os.PathLike[str] | None = None,
        track: bool = False,
    ) -> None:
        self.dim = whole("Table dim", dim, 1, MAX_DIM)
        self.rule: Rule | None = None if rule is None else as_rule(rule, "Table rule")  # None: the server's
        if self.rule is not None and self.rule.family.uses_pulled:
            raise OptionError(f"Table rule: {self.rule!r} needs the parameters that the worker had; use it on arrays")
        try:
            self.dtype: str = "" if dtype is None else np.dtype(dtype).name  # numpy takes None for float64
        except Exception:  # numpy raises several types
            self.dtype = ""
        if self.dtype not in types.DTYPES:
            raise OptionError(f"Table dtype: expected one of {types.DTYPES}, got {brief(dtype)}")
        self.stored = _stored(stored, self.dtype)
        self.rounding = choice("Table rounding", rounding, ROUNDINGS)
        self.keys = choice("Table keys", keys, KINDS)
        self.capacity = None if capacity is None else whole("Table capacity", capacity, 1, 2**62)
        if max_bytes is not None and capacity is not None:
            raise OptionError("Table max_bytes: expected either that or capacity, got both")
        self.max_bytes = None if max_bytes is None else whole("Table max_bytes", max_bytes, 1, 2**62)
        self.seed = whole("Table seed", seed, 0, 2**64 - 1)
        self.init: Initializer = initializer(init, self.dim)
        if isinstance(self.init, Array) and np.shape(self.init.values)[1] != self.dim:
            raise ShapeError(f"Table init: expected values[n, {self.dim}], got {np.shape(self.init.values)}")

        self.inherits = False  # whether its rule is that of the server
        self.track = flag("Table track", track)
        self.life = Life.of(admit, ttl, evict, on_evict, capacity is not None or max_bytes is not None)
        if self.life.ends and isinstance(self.init, Array):
            raise OptionError(
                "Table init: rows that are given could not come back after an eviction; omit ttl and evict"
            )

    def __repr__(self) -> str:
        rule = "" if self.rule is None else f", rule={self.rule!r}"
        stored = "" if self.stored is None else f", stored={self.stored!r}, rounding={self.rounding!r}"
        return f"Table({self.dim}{rule}, init={self.init!r}, dtype={self.dtype!r}{stored}, keys={self.keys!r})"

    def with_rule(self, rule: Rule, inherits: bool = True) -> Table:
        """The same table with this rule, that of the server if it `inherits`."""
        table = copy(self)
        table.rule, table.inherits = rule, inherits
        return table


def _stored(stored: Any, dtype: str) -> str | None:
    if stored is None:
        return None
    try:
        name = stored if isinstance(stored, str) else np.dtype(stored).name
    except Exception:  # numpy raises several types
        name = ""
    if name not in types.HALVES or dtype != "float32":
        raise OptionError(
            f"Table stored: expected one of {types.HALVES} with dtype='float32', or None, got {brief(stored)} with "
            f"{dtype}"
        )
    return name


@dataclass(frozen=True)
class Life:
    """When rows are created and evicted.

    Attributes
    ----------
    admit, ttl, evict, on_evict : as in `Table`
    """

    admit: int = 1
    ttl: float | None = None
    evict: str | None = None
    on_evict: Any = None

    @property
    def ends(self) -> bool:
        """Whether rows may be evicted."""
        return self.ttl is not None or self.evict is not None

    @property
    def receiver(self) -> tuple[str, str] | None:
        """What `on_evict` is, and its path or name."""
        if callable(self.on_evict):
            return "function", str(getattr(self.on_evict, "__qualname__", type(self.on_evict).__qualname__))
        return None if self.on_evict is None else ("directory", os.fsdecode(self.on_evict))

    @classmethod
    def of(cls, admit: Any, ttl: Any, evict: Any, on_evict: Any, limited: bool) -> Life:
        ttl = None if ttl is None else positive("Table ttl", ttl, MAX_TTL, "seconds")
        evict = None if evict is None else choice("Table evict", evict, EVICTIONS, " or None")
        if evict is not None and not limited:
            raise OptionError(f"Table evict: {evict!r} needs a capacity or max_bytes, at which rows are evicted")
        if on_evict is not None and not callable(on_evict) and not isinstance(on_evict, (str, os.PathLike)):
            raise OptionError(f"Table on_evict: expected a callable or the path of a directory, got {brief(on_evict)}")
        if on_evict is not None and ttl is None and evict is None:
            raise OptionError("Table on_evict: nothing is evicted without ttl or evict")
        return cls(whole("Table admit", admit, 1, 2**24), ttl, evict, on_evict)


@dataclass(frozen=True)
class TableInfo:
    """What a handle carries of a table.

    Attributes
    ----------
    path : the names that lead to it; empty when the parameters are one table
    dim, dtype, keys : as in `Table`
    rule : without its code
    initial : (kind, first, second) of csrc/initial.c
    seed : of random initializers
    capacity : the most rows per shard, or None
    admit, ttl, evict : as in `Table`
    tracked : whether rows record their use
    sightings : the number of the table that counts pulls of keys which have not been admitted, or None
    counts_for : in such a table, the name of the one for which it counts
    limits : `capacity` and `max_bytes` of the `Table`
    stored, rounding : as in `Table`
    inherits : whether its rule is that of the server
    on_evict : ("directory", its path) or ("function", its name); None without
    """

    path: Path
    dim: int
    dtype: str
    keys: str
    rule: RuleInfo
    initial: tuple[int, float, float]
    seed: int
    capacity: int | None
    admit: int = 1
    evict: str | None = None
    tracked: bool = False
    sightings: int | None = None
    counts_for: str | None = None
    limits: tuple[int | None, int | None] = (None, None)
    ttl: float | None = None
    stored: str | None = None
    rounding: str = "nearest"
    inherits: bool = False
    on_evict: tuple[str, str] | None = None

    @classmethod
    def of(cls, path: Path, table: Table, num_shards: int) -> TableInfo:
        life = table.life
        assert table.rule is not None
        info = cls(
            path, table.dim, table.dtype, table.keys, RuleInfo.of(name_of(path), table.rule),
            table.init.numbers(table.dim), table.seed, None, life.admit, life.evict, life.ends or table.track,
            limits=(table.capacity, table.max_bytes), ttl=life.ttl, stored=table.stored, rounding=table.rounding,
            inherits=table.inherits, on_evict=life.receiver,
        )  # fmt: skip
        rows = table.capacity
        if table.max_bytes is not None:
            rows = max(1, table.max_bytes // (table_row_bytes(info.layout(1)) + INDEX_BYTES))
        return info if rows is None else replace(info, capacity=capacity_of_shard(rows, num_shards))

    @property
    def name(self) -> str:
        return name_of(self.path)

    @property
    def item_bytes(self) -> int:
        return types.item_bytes(self.dtype)

    @property
    def streams(self) -> list[tuple[str, int]]:
        """The values, named "row", and each slot: its name, and its elements per row."""
        slots = zip(self.rule.slots, self.rule.row_slots, strict=True)
        return [("row", self.dim), *((name, 1 if one else self.dim) for name, one in slots)]

    def layout(self, max_rows: int) -> tuple[Any, ...]:
        """As `Arena.create` takes it."""
        kind, first, second = self.initial
        return (
            self.dim, self.item_bytes, self.rule.initial, self.rule.row_slots, kind, first, second, self.seed,
            int(self.tracked), _half_type(self.stored), int(self.rounding == "stochastic"), max_rows,
        )  # fmt: skip

    def empty(self, n: int, stream: int = 0) -> types.Array:
        """A new uninitialised array for n rows."""
        elements = self.streams[stream][1]
        return np.empty((n, elements), self.dtype)

    def __str__(self) -> str:
        stored = "" if self.stored is None else f" stored as {self.stored}"
        return f"Table({self.dim}, {self.dtype}{stored}, {self.keys})"


def _half_type(stored: str | None) -> int:
    """As csrc/half.h numbers them."""
    return 0 if stored is None else 1 + types.HALVES.index(stored)


def with_sightings(tables: dict[Path, Table]) -> dict[Path, Table]:
    """The tables, followed by a table of counts for each with `admit` above 1."""
    taken = next((path for path in tables if path[-1:] == (SIGHTINGS,)), None)
    if taken is not None:
        raise NamesError(f"create: the name of the table `{'/'.join(taken)}` is reserved for counts; rename it")
    late = {(*path, SIGHTINGS): table for path, table in tables.items() if table.life.admit > 1}
    return tables | {path: Table(1, rule=Add(), init=0.0, keys="uint64") for path in late}


def infos_of(tables: dict[Path, Table], num_shards: int) -> tuple[TableInfo, ...]:
    """What handles carry of the tables that `with_sightings` returned."""
    paths = list(tables)
    infos = []
    for path, table in tables.items():
        info = TableInfo.of(path, table, num_shards)
        if (*path, SIGHTINGS) in paths:
            info = replace(info, sightings=paths.index((*path, SIGHTINGS)))
        elif path[-1:] == (SIGHTINGS,):
            info = replace(info, counts_for=name_of(path[:-1]))
        infos.append(info)
    return tuple(infos)


def capacity_of_shard(capacity: int, num_shards: int) -> int:
    """The most rows of each shard."""
    if num_shards == 1:
        return min(capacity, MAX_ROWS)
    share = capacity / num_shards
    return min(math.ceil(share + SIGMAS * math.sqrt(share)), MAX_ROWS)
