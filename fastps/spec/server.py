"""What a handle carries: enough for any process to find the shards, on its own node without asking anybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastps.consistency import Consistency
from fastps.kernels.image import KernelImage
from fastps.messages import few, few_of
from fastps.spec.arrays import Structure
from fastps.spec.gradients import GradientPolicy
from fastps.spec.partition import ShardPlan
from fastps.spec.rule import RuleInfo
from fastps.spec.table import TableInfo


@dataclass(frozen=True)
class ShardAddress:
    """Where a shard lives.

    Attributes
    ----------
    index : of the shard
    node_id : Ray's id of its node, in hex
    actor_id : Ray's id of its actor, in hex
    machine : whose processes `pid` is one of, see `this_machine`
    pid, fd : its process, and the file descriptor of the arena there
    arena_id : 16 random bytes that name the arena
    kernels : object code for its node, in the order of `ServerSpec.kernels`, then that of each table
    cpu : what that is valid for
    """

    index: int
    node_id: str
    actor_id: str
    machine: str
    pid: int
    fd: int
    arena_id: bytes
    kernels: tuple[KernelImage, ...]
    cpu: str


@dataclass(frozen=True)
class ServerSpec:
    """What every handle of a server shares.

    Attributes
    ----------
    server_id : 16 random bytes in hex
    structure : the arrays that went in
    plans, addresses, actors : per shard what it holds, where it lives, and the name of its Ray actor: a handle must
        travel outside of Ray too, and between Rays
    rules : the update rules; a rule's index is its row in the arenas' table of hyper-parameters
    rule_of_leaf : for each array, the index of its rule
    gradients : what happens to gradients first
    consistency : how far workers may be apart
    timeout : seconds that an operation waits unless told otherwise
    name : as given to ParameterServer, or None
    tables : what there is besides arrays
    """

    server_id: str
    structure: Structure
    plans: tuple[ShardPlan, ...]
    addresses: tuple[ShardAddress, ...]
    actors: tuple[str, ...]
    rules: tuple[RuleInfo, ...]
    rule_of_leaf: tuple[int, ...]
    gradients: GradientPolicy
    consistency: Consistency
    timeout: float
    name: str | None
    tables: tuple[TableInfo, ...] = ()

    @property
    def kernels(self) -> tuple[tuple[int, str], ...]:
        return kernels_of(self.structure, self.rule_of_leaf)

    @property
    def table_names(self) -> dict[str, int]:
        """The numbers of the tables that users know of."""
        return {info.name: i for i, info in enumerate(self.tables) if info.counts_for is None}

    @property
    def names(self) -> dict[str, None]:
        """Those of the arrays in order, then of the tables."""
        return dict.fromkeys([*(leaf.name for leaf in self.structure.leaves), *self.table_names])

    @property
    def rules_label(self) -> str:
        if len(self.rules) == 1:
            return self.rules[0].label
        return "{" + few_of((f"{rule.pattern!r}: {rule.label}" for rule in self.rules), len(self.rules), 4) + "}"

    def labels(self, shards: Sequence[int]) -> str:
        """Names shards of one node."""
        return f"shards {few(shards)} on node {self.addresses[shards[0]].node_id[:8]}"

    def label(self, shard: int) -> str:
        """Names a shard in messages."""
        return f"shard {shard} of {len(self.plans)} on node {self.addresses[shard].node_id[:8]}"

    @property
    def n_slots(self) -> int:
        """Slots that every parameter has room for, where the rule is applied."""
        return max(len(rule.slots) for rule in self.rules)

    def slot_names(self) -> list[str]:
        """Every slot of any rule."""
        return list(dict.fromkeys(slot for rule in self.rules for slot in rule.slots))

    def leaves_with(self, slot: str) -> list[int]:
        """The arrays whose rule has this slot."""
        return [i for i, rule in enumerate(self.rule_of_leaf) if slot in self.rules[rule].slots]

    def streams(self, slot: str) -> list[int | None]:
        """For each kernel, the stream in which its rule keeps a slot; None when it has none of that name."""
        rules = [self.rules[rule] for rule, _ in self.kernels]
        return [rule.slots.index(slot) + 1 if slot in rule.slots else None for rule in rules]


def kernels_of(structure: Structure, rule_of_leaf: tuple[int, ...]) -> tuple[tuple[int, str], ...]:
    """The kernels that a server needs: (rule, dtype) in order."""
    return tuple(sorted({(r, leaf.dtype) for r, leaf in zip(rule_of_leaf, structure.leaves, strict=True)}))
