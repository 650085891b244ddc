"""The points of a sweep, from what a user writes on a command line. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from bench.harness.arguments import ITEM_BYTES, ArgumentError
from bench.harness.units import human_bytes
from fastps.messages import binary

OPS = ("pull", "push", "push_pull")
RULES = ("add", "sgd", "adam")
SLOTS = {"add": 0, "sgd": 0, "adam": 2}
TRANSPORTS = ("auto", "ray")

PROCESS_BYTES = 200 << 20  # of a worker with Ray and numba


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
    """Three digits, in powers of two where those suit `like`."""
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
    placements: tuple[str, ...] = ("local",)

    def settings(self) -> Iterator[Setting]:
        """The small ones first. Settings with more shards than elements are left out."""
        for nbytes, workers, shards, rule, transport, placement in product(
            sorted(self.nbytes), sorted(self.workers), sorted(self.shards), self.rules, self.transports, self.placements
        ):
            if shards * ITEM_BYTES <= nbytes:
                yield Setting(nbytes, shards, workers, rule, transport, placement)

    def require_memory(self, available: int) -> None:
        """Raises ArgumentError when a setting does not fit."""
        worst = max(self.settings(), key=lambda setting: setting.memory, default=None)
        if worst is None:
            raise ArgumentError("nothing to measure: there are more shards than elements in every setting")
        if worst.memory > available:
            raise ArgumentError(
                f"sizes, workers: {human_bytes(worst.nbytes)} with {worst.workers} worker{'s' * (worst.workers > 1)} "
                f"and {worst.rule} takes about {_about(worst.memory, worst.nbytes)}, of which "
                f"{_about(available, worst.nbytes)} are available; omit that size, or ask for fewer workers"
            )
