"""The points of a sweep, from what a user writes on a command line. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

from bench.harness.times import human_bytes
from fastps.messages import binary

T = TypeVar("T")
OPS = ("pull", "push", "push_pull")
RULES = ("add", "sgd", "adam")
SLOTS = {"add": 0, "sgd": 0, "adam": 2}
TRANSPORTS = ("auto", "ray")

UNITS = {"": 1, "B": 1, "K": 10**3, "KB": 10**3, "M": 10**6, "MB": 10**6, "G": 10**9, "GB": 10**9}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "T": 10**12, "TB": 10**12}
ITEM_BYTES = 4  # float32
LARGEST = 1 << 40
PROCESS_BYTES = 200 << 20  # of a worker with Ray and numba


class GridError(ValueError):
    """What was asked for cannot be measured: one line that says what and why."""


def size(text: str) -> int:
    """Bytes, a multiple of four: "80", "8K", "1.5M", "2GiB". K, M and G are powers of ten."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise GridError(f"size: expected a number of bytes such as 80, 8K, 1M or 2GiB, got {text!r}")
    nbytes = round(float(match[1]) * unit) // ITEM_BYTES * ITEM_BYTES
    if not ITEM_BYTES <= nbytes <= LARGEST:
        raise GridError(f"size: expected {ITEM_BYTES} bytes to 1 TiB, got {text!r}")
    return nbytes


def sizes(text: str) -> list[int]:
    return _distinct([size(part) for part in text.split(",")])


def counts(text: str, what: str, most: int) -> list[int]:
    found = []
    for part in text.split(","):
        if not re.fullmatch(r"\s*\d+\s*", part) or not 1 <= int(part) <= most:
            raise GridError(f"{what}: expected whole numbers from 1 to {most}, separated by commas, got {part!r}")
        found.append(int(part))
    return _distinct(found)


def names(text: str, what: str, known: Sequence[str]) -> list[str]:
    found = [part.strip() for part in text.split(",")]
    for name in found:
        if name not in known:
            raise GridError(f"{what}: expected some of {', '.join(known)}, separated by commas, got {name!r}")
    return _distinct(found)


def _distinct(values: Sequence[T]) -> list[T]:
    return list(dict.fromkeys(values))


@dataclass(frozen=True)
class Setting:
    """A server and who works on it.

    Attributes
    ----------
    nbytes : of the parameters
    shards, workers : how many
    rule : of RULES
    transport : "auto": shared memory where a worker is on a shard's node; "ray": Ray carries everything
    placement : of `bench.sweep.placement`
    """

    nbytes: int
    shards: int
    workers: int
    rule: str
    transport: str = "auto"
    placement: str = "local"

    @property
    def elements(self) -> int:
        return self.nbytes // ITEM_BYTES

    @property
    def memory(self) -> int:
        """Bytes that the machine needs for it at most: the server with its slots, its peers, each worker's buffers."""
        return self.server_memory + self.workers * self.worker_memory

    @property
    def server_memory(self) -> int:
        """Of that, what lies with the shards: also the peers' parameters and slots, and what Ray's store holds."""
        return 4 * self.nbytes * (1 + SLOTS[self.rule])

    @property
    def worker_memory(self) -> int:
        """And with each worker: gradients, what it pulls, what its peers hold, what Ray brings it; and its process."""
        return (6 + 2 * SLOTS[self.rule]) * self.nbytes + PROCESS_BYTES


def _about(count: float, like: int) -> str:
    """Three figures, in powers of two where `like` is told in them."""
    return binary(count) if "i" in human_bytes(like) else human_bytes(float(f"{count:.3g}"))


@dataclass(frozen=True)
class Grid:
    """All settings of a sweep, and what is done in each."""

    nbytes: tuple[int, ...]
    shards: tuple[int, ...]
    workers: tuple[int, ...]
    rules: tuple[str, ...]
    ops: tuple[str, ...]
    transports: tuple[str, ...] = ("auto",)
    placement: str = "local"

    def settings(self) -> Iterator[Setting]:
        """The small ones first. Settings with more shards than elements are left out."""
        for nbytes, workers, shards, rule, transport in product(
            sorted(self.nbytes), sorted(self.workers), sorted(self.shards), self.rules, self.transports
        ):
            if shards * ITEM_BYTES <= nbytes:
                yield Setting(nbytes, shards, workers, rule, transport, self.placement)

    def require_memory(self, available: int) -> None:
        """Raises GridError when a setting does not fit."""
        worst = max(self.settings(), key=lambda setting: setting.memory, default=None)
        if worst is None:
            raise GridError("nothing to measure: there are more shards than elements in every setting")
        if worst.memory > available:
            raise GridError(
                f"sizes, workers: {human_bytes(worst.nbytes)} with {worst.workers} worker{'s' * (worst.workers > 1)} "
                f"and {worst.rule} takes about {_about(worst.memory, worst.nbytes)}, of which "
                f"{_about(available, worst.nbytes)} are available; omit that size, or ask for fewer workers"
            )
