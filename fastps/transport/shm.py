"""Shards on the caller's node: their arenas are mapped and the caller executes operations itself.

Called by sessions, from any thread. The arenas belong to the shards' processes; this process maps them and keeps them
mapped for as long as a view refers to them.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np

from fastps._core import Arena, Decision, Group, Outcome
from fastps.deadline import deadline_after, left_until
from fastps.errors import ArenaError, ClosedError, FastPSError, ShardDiedError
from fastps.kernels.loader import addresses_of
from fastps.spec.server import ServerSpec, ShardAddress
from fastps.transport.contract import MIXED, Work
from fastps.transport.shm_table import Done, ShmTable, require_alive


def this_machine() -> str:
    """Where two processes agree on it, a pid means the same process to both: the machine's boot, the pid namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # some sandboxes have none
        boot = os.uname().nodename
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def is_here(address: ShardAddress, node_id: str | None) -> bool:
    """Whether a process of Ray's node `node_id`, or one outside of Ray, is to map a shard's arena. There can be several
    nodes on one machine."""
    return address.machine == this_machine() if node_id is None else address.node_id == node_id


def open_arena(address: ShardAddress, label: str) -> Arena:
    """Maps a shard's arena through the file descriptor of its process.

    Raises ShardDiedError when the process is gone, ArenaError when this process may not look into it.
    """
    path = f"/proc/{address.pid}/fd/{address.fd}"
    try:
        arena = Arena.attach(path, address.arena_id, label)
    except (FileNotFoundError, ProcessLookupError):
        raise ShardDiedError(f"{label}: its process {address.pid} is gone; create the server again") from None
    except FastPSError:
        raise
    except OSError as error:
        few = error.errno in (errno.EMFILE, errno.ENFILE)
        hint = "raise the limit of open files (ulimit -n)" if few else "run workers as the user of the shard"
        raise ArenaError(error.errno, f"{label}: cannot open {path}: {error.strerror}; {hint}") from error
    arena.check()
    return arena


def group_of(
    spec: ServerSpec,
    arenas: dict[int, Arena],
    *,
    buffers: int,
    offset: Any,
    direct: bool = False,
    slots: bool | None = None,
) -> Group:
    """The arenas with their spans and rules. `offset(shard, number of the run)` gives (buffer, byte offset); `slots`
    says whether they hold those, None: where a server's shards do."""
    with_slots = not spec.consistency.local if slots is None else slots
    spans, kernels = [], spec.kernels
    for shard in arenas:
        rows = []
        for number, run in enumerate(spec.plans[shard].runs):
            leaf = spec.structure.leaves[run.leaf]
            kernel = kernels.index((spec.rule_of_leaf[run.leaf], leaf.dtype))
            rows.append((run.position, run.count * leaf.item_bytes, *offset(shard, number), kernel, leaf.item_bytes))
        spans.append(rows)
    images = spec.addresses[next(iter(arenas))].kernels[: len(kernels)]
    rules = [
        (*addresses_of(image), len(spec.rules[rule].slots) if with_slots else 0, rule)
        for image, (rule, _) in zip(images, kernels, strict=True)
    ]
    leaves = spec.structure.leaves
    kinds = [(np.dtype(leaf.dtype), leaf.shape) for leaf in leaves] if direct else None
    names = [leaf.path[0] for leaf in leaves] if direct and not spec.structure.is_array else None
    limit = spec.gradients.clip_value
    return Group(list(arenas.values()), spans, rules, buffers, spec.timeout, kinds, names, limit)


def configure(
    arenas: dict[int, Arena], row: int, values: dict[int, float], timeout: float, outcome: Outcome | None = None
) -> None:
    """Changes hyper-parameters on all shards of a node."""
    deadline = deadline_after(timeout)
    require_alive(arenas)  # all of them: none changes alone
    for arena in arenas.values():
        arena.configure(row, values, left_until(deadline), outcome)


def hyper(arenas: dict[int, Arena], row: int, count: int) -> list[float]:
    """Hyper-parameters as the shards of a node have them."""
    values = next(iter(arenas.values())).hyper(row, count)
    require_alive(arenas)
    return values


def counters(arenas: dict[int, Arena]) -> dict[int, dict[str, int]]:
    """Per shard of a node what its arena counted."""
    counted = {shard: arena.counters() for shard, arena in arenas.items()}
    require_alive(arenas)
    return counted


class ShmTransport:
    """Reaches the shards of one node from a process on it. See contract.Transport."""

    def __init__(self, spec: ServerSpec, shards: tuple[int, ...]) -> None:
        self.shards, self._spec = shards, spec
        self.arenas = {shard: open_arena(spec.addresses[shard], spec.label(shard)) for shard in shards}

        def offset(shard: int, number: int) -> tuple[int, int]:
            run = spec.plans[shard].runs[number]
            return run.leaf, run.start * spec.structure.leaves[run.leaf].item_bytes

        # All shards here, no mapping in a mapping, nothing to do with gradients before: the group can take arguments as
        # they come.
        whole = len(shards) == len(spec.plans) and all(len(leaf.path) < 2 for leaf in spec.structure.leaves)
        whole = whole and not spec.gradients.inspects and not any(rule.uses_pulled for rule in spec.rules)
        self.group = group_of(spec, self.arenas, buffers=len(spec.structure.leaves), offset=offset, direct=whole)

    def start(self, work: Work, timeout: float | None, resume: Any = None, outcome: Outcome | None = None) -> Done:
        versions = self.group.run(
            work.grads, work.outs, timeout, resume, work.pulled, work.scale, work.streams, work.decision, work.deposit,
            outcome,
        )  # fmt: skip
        return Done(dict(zip(self.shards, versions or [MIXED] * len(self.shards), strict=True)))

    def reach(self, decision: Decision, timeout: float) -> bool:
        return self.group.run(None, None, timeout, decision=decision) != ()

    def decision(self, timeout: float) -> Decision:
        return self.arenas[0].decision()

    def skipped(self) -> None:
        self.group.count_skipped()

    def configure(self, row: int, values: dict[int, float], timeout: float, outcome: Outcome) -> None:
        configure(self.arenas, row, values, timeout, outcome)

    def hyper(self, row: int, count: int, timeout: float) -> list[float]:
        return hyper(self.arenas, row, count)

    def counters(self, timeout: float | None) -> dict[int, dict[str, int]]:
        return counters(self.arenas)

    def table(self, number: int) -> ShmTable:
        return ShmTable(self._spec, self.group, number, self.arenas)

    def alive(self) -> bool:
        """Whether nobody has closed an arena and no owner has died."""
        try:
            require_alive(self.arenas)
        except (ClosedError, ShardDiedError):
            return False
        return True

    def close(self) -> None:
        self.group.close()
