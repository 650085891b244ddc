"""Counters of a server, read without stopping anybody."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class ShardStats:
    """What happened to one shard since it was created.

    Attributes
    ----------
    shard, node_id : which one, and Ray's id of its node
    version : pushes that have entered the shard; where they are applied in rounds, the rounds
    pulls, pushes, push_pulls : operations that completed
    skipped : pushes that were not applied because a gradient was not finite
    dropped : gradients that came when their round had closed; expelled : workers that died, were stopped, or were not
        heard of. Counted on shard 0, for all
    bytes_read, bytes_written : of parameters, by them
    read_retries : optimistic reads that met a writer and were repeated
    lock_waits : locks that were not free at the first try
    lock_wait_ns : nanoseconds spent waiting for them, over all processes
    lock_sleeps : waits that outlasted spinning
    sessions : sessions that live processes hold now
    recovered_locks : locks taken over from processes that died
    interrupted_pushes : pushes that a death stopped half-way: applied to a prefix of the shard, block by block
    interrupted_pid, interrupted_at : the process of the last of them, and the byte of the shard where it stopped
    """

    shard: int
    node_id: str
    version: int
    pulls: int
    pushes: int
    push_pulls: int
    skipped: int
    dropped: int
    expelled: int
    bytes_read: int
    bytes_written: int
    read_retries: int
    lock_waits: int
    lock_wait_ns: int
    lock_sleeps: int
    sessions: int
    recovered_locks: int
    interrupted_pushes: int
    interrupted_pid: int
    interrupted_at: int


@dataclass(frozen=True)
class ServerStats:
    """What happened to a server: `shards` one by one, and the counters of `ShardStats` summed by name in `total`."""

    shards: tuple[ShardStats, ...]

    @property
    def total(self) -> dict[str, int]:
        """The counters summed over shards; operations are counted once a shard."""
        skip = {"shard", "node_id", "interrupted_pid", "interrupted_at"}
        names = [field.name for field in fields(ShardStats) if field.name not in skip]
        return {name: sum(getattr(shard, name) for shard in self.shards) for name in names}
