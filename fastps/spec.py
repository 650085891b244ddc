"""What a handle carries: enough for any process to find the shards, on its own node without asking anybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastps.kernels.image import KernelImage
from fastps.partition import ShardPlan
from fastps.rules.base import Rule
from fastps.structure import Structure


@dataclass(frozen=True)
class ShardAddress:
    """Where a shard lives.

    Attributes
    ----------
    index : of the shard
    node_id : Ray's id of its node, in hex
    pid, fd : its process, and the file descriptor of the arena there
    arena_id : 16 random bytes that name the arena
    kernels : object code for its node, one a dtype in `ServerSpec.dtypes`
    """

    index: int
    node_id: str
    pid: int
    fd: int
    arena_id: bytes
    kernels: tuple[KernelImage, ...]


@dataclass(frozen=True)
class ServerSpec:
    """What every handle of a server shares.

    Attributes
    ----------
    server_id : 16 random bytes in hex
    structure : the arrays that went in
    plans, addresses, actors : per shard what it holds, where it lives, and its Ray actor
    rule : the update rule
    timeout : seconds that an operation waits unless told otherwise
    name : as given to ParameterServer, or None
    """

    server_id: str
    structure: Structure
    plans: tuple[ShardPlan, ...]
    addresses: tuple[ShardAddress, ...]
    actors: tuple[Any, ...]
    rule: Rule
    timeout: float
    name: str | None

    @property
    def dtypes(self) -> tuple[str, ...]:
        return dtypes_of(self.structure)

    def label(self, shard: int) -> str:
        """Names a shard in messages."""
        return f"shard {shard} of {len(self.plans)} on node {self.addresses[shard].node_id[:8]}"


def dtypes_of(structure: Structure) -> tuple[str, ...]:
    """The dtypes that occur, in the order of the kernels."""
    return tuple(sorted({leaf.dtype for leaf in structure.leaves}))
