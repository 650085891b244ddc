"""How much memory an arena may take on this machine. It is checked before the allocation: the kernel grants more shared
memory than it has, and kills a process when the pages are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastps.errors import ArenaMemoryError
from fastps.messages import binary

ARENA_MAX_BYTES = 1 << 45


@dataclass(frozen=True)
class Need:
    """The memory that a shard needs on its node.

    Attributes
    ----------
    what : names the shard in messages
    node_id : of its node
    wanted_bytes : of shared memory
    available_bytes : on its node, before any shard of the server was created
    """

    what: str
    node_id: str
    wanted_bytes: int
    available_bytes: int


def require_all(needs: Sequence[Need]) -> None:
    """Raises ArenaMemoryError when a node does not have enough for all its shards."""
    taken: dict[str, int] = {}
    for need in needs:
        before = taken.get(need.node_id, 0)
        require(need.wanted_bytes, need.what, max(0, need.available_bytes - before))
        taken[need.node_id] = before + need.wanted_bytes


def require(wanted_bytes: int, what: str, available: int | None = None) -> None:
    """Raises ArenaMemoryError when `wanted_bytes` of shared memory exceed `available`, by default all that there is."""
    if available is None:
        available = available_bytes()
    if wanted_bytes > available:
        raise ArenaMemoryError(
            f"{what}: asked for {wanted_bytes / 2**20:,.0f} MiB of shared memory, {available / 2**20:,.0f} MiB are "
            f"available on this machine; use more nodes (placement=), fewer parameters or float32"
        )


def require_addressable(params_bytes: int) -> None:
    """Raises ArenaMemoryError when a shard of this size is larger than any arena."""
    if params_bytes > ARENA_MAX_BYTES:
        raise ArenaMemoryError(
            f"create: asked for {binary(params_bytes)} in one shard, of which an arena holds at most "
            f"{binary(ARENA_MAX_BYTES)}; use more shards (num_shards=)"
        )


def available_bytes() -> int:
    """The least of what is available on the machine and in each of this process's control groups."""
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(meminfo["MemAvailable"].split()[0]) * 1024
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            available = min(available, _left(path, "/sys/fs/cgroup", "memory.max", "memory.current"))
        elif "memory" in controllers.split(","):
            root = "/sys/fs/cgroup/memory"
            available = min(available, _left(path, root, "memory.limit_in_bytes", "memory.usage_in_bytes"))
    return max(0, available)


def _left(path: str, root: str, limit_name: str, usage_name: str) -> int:
    """The least that is left in a group from `path` up to the root. Caches count as used: the estimate errs low."""
    left = 1 << 62
    group = Path(root + path.rstrip("/"))
    for directory in [group, *group.parents]:
        if len(str(directory)) < len(root):
            break
        try:
            limit, usage = (directory / limit_name).read_text().strip(), (directory / usage_name).read_text().strip()
        except OSError:
            continue
        if limit != "max":
            left = min(left, int(limit) - int(usage))
    return left
