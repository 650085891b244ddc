"""What a handle carries: enough for any process to find the shards; those on its own node without a call."""

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
class NodeAddress:
    """A node with shards.

    Attributes
    ----------
    node_id : Ray's id, in hex
    machine : where the pids of its shards are valid, see `fastps.transport.arenas.this_machine`
    cpu : the processor that its kernels are compiled for
    kernels : object code, in the order of `ServerSpec.kernels`, then that of each table
    """

    node_id: str
    machine: str
    cpu: str
    kernels: tuple[KernelImage, ...]


@dataclass(frozen=True)
class ShardAddress:
    """The address of a shard.

    Attributes
    ----------
    index : of the shard
    node : of its node, in `ServerSpec.nodes`
    actor_id : Ray's id of its actor, in hex
    pid, fd : its process, and the file descriptor of the arena there
    arena_id : 16 random bytes that name the arena
    """

    index: int
    node: int
    actor_id: str
    pid: int
    fd: int
    arena_id: bytes


@dataclass(frozen=True)
class ServerSpec:
    """What every handle of a server shares.

    Attributes
    ----------
    server_id : 16 random bytes in hex
    structure : of the arrays
    plans, addresses, actors : per shard, what it holds, its address, and the name of its Ray actor, since handles also
        travel outside of Ray, and between Ray clusters
    nodes : those with shards
    rules : the update rules; a rule's index is its row in the arenas' table of hyper-parameters
    rule_of_leaf : for each array, the index of its rule, or NO_RULE
    gradients : how gradients are checked and clipped
    consistency : how far workers may be apart
    timeout : seconds that an operation waits by default; inf: without a limit
    name : as given to ParameterServer, or None
    tables : including those of sightings
    isolated : whether an operation sees and leaves a whole number of pushes in each shard
    """

    server_id: str
    structure: Structure
    plans: tuple[ShardPlan, ...]
    addresses: tuple[ShardAddress, ...]
    actors: tuple[str, ...]
    nodes: tuple[NodeAddress, ...]
    rules: tuple[RuleInfo, ...]
    rule_of_leaf: tuple[int, ...]
    gradients: GradientPolicy
    consistency: Consistency
    timeout: float
    name: str | None
    tables: tuple[TableInfo, ...] = ()
    isolated: bool = True

    def node_of(self, shard: int) -> NodeAddress:
        return self.nodes[self.addresses[shard].node]

    def shards_of_node(self, node: int) -> tuple[int, ...]:
        return tuple(address.index for address in self.addresses if address.node == node)

    @property
    def kernels(self) -> tuple[tuple[int, str], ...]:
        return kernels_of(self.structure, self.rule_of_leaf)

    @property
    def table_names(self) -> dict[str, int]:
        """The numbers of the users' tables, by name."""
        return {info.name: i for i, info in enumerate(self.tables) if info.counts_for is None}

    @property
    def names(self) -> dict[str, None]:
        """The names of the arrays in order, then of the tables."""
        return dict.fromkeys([*(leaf.name for leaf in self.structure.leaves), *self.table_names])

    @property
    def rules_label(self) -> str:
        if len(self.rules) == 1:
            return self.rules[0].label
        return "{" + few_of((f"{rule.pattern!r}: {rule.label}" for rule in self.rules), len(self.rules), 4) + "}"

    def labels(self, shards: Sequence[int]) -> str:
        """Names shards of one node, in messages."""
        return f"shards {few(shards)} on node {self.node_of(shards[0]).node_id[:8]}"

    def label(self, shard: int) -> str:
        """Names a shard in messages."""
        return f"shard {shard} of {len(self.plans)} on node {self.node_of(shard).node_id[:8]}"

    @property
    def n_slots(self) -> int:
        """Slots per parameter, wherever the rule is applied."""
        return max(len(rule.slots) for rule in self.rules)

    def slot_names(self) -> list[str]:
        """The slots of all rules."""
        return slot_names_of(self.rules)

    def leaves_with(self, slot: str) -> list[int]:
        """The arrays whose rule has this slot."""
        return [i for i in self.structure.trained if slot in self.rules[self.rule_of_leaf[i]].slots]

    def streams(self) -> list[list[int | None]]:
        """For the parameters and each of `slot_names`, for each kernel, the stream in a shard's arena; None if its rule
        has no slot of that name. The last one is of arrays that are carried."""
        rules = [self.rules[rule] for rule, _ in self.kernels]
        return [
            [0] * (len(rules) + 1),
            *(
                [*(rule.slots.index(slot) + 1 if slot in rule.slots else None for rule in rules), None]
                for slot in self.slot_names()
            ),
        ]


def slot_names_of(rules: Sequence[RuleInfo]) -> list[str]:
    return list(dict.fromkeys(slot for rule in rules for slot in rule.slots))


NO_RULE = -1  # of an array that is carried


def rules_of_leaves(structure: Structure, of_trained: tuple[int, ...]) -> tuple[int, ...]:
    """For each array, the index of its rule or NO_RULE, given those of the arrays that are trained."""
    rules = dict(zip(structure.trained, of_trained, strict=True))
    return tuple(rules.get(number, NO_RULE) for number in range(len(structure.leaves)))


def kernels_of(structure: Structure, rule_of_leaf: tuple[int, ...]) -> tuple[tuple[int, str], ...]:
    """The kernels that a server needs: (rule, dtype) in order."""
    leaves = zip(rule_of_leaf, structure.leaves, strict=True)
    return tuple(sorted({(rule, leaf.dtype) for rule, leaf in leaves if leaf.trains}))
