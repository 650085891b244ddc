"""Counters of a server, read without locks."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class ShardStats:
    """Counters of one shard since it was created.

    Attributes
    ----------
    shard, node_id : which one, and Ray's id of its node
    version : the update count: pushes that have begun on the shard, or rounds that have been applied
    pulls, pushes, push_pulls : operations that completed
    skipped : pushes that were not applied because a gradient was not finite
    dropped : gradients that came after their round had closed. Counted on shard 0, for all shards
    expelled : workers that died, were stopped, or did not renew their lease. Counted on shard 0, for all shards
    bytes_read, bytes_written : bytes of parameters
    read_retries : optimistic reads that met a writer and were repeated
    lock_waits : locks that were not free at the first try
    lock_wait_ns : nanoseconds spent waiting for locks, over all processes
    lock_sleeps : waits that were longer than the spinning phase
    sessions : sessions that live processes hold now
    recovered_locks : locks taken over from processes that died
    interrupted_pushes : pushes that a death interrupted: applied to a prefix of the shard, in whole blocks
    interrupted_pid, interrupted_at : the process of the last of them, and the byte of the shard where it stopped
    saves : checkpoints of the server that were saved. Counted on shard 0, for all shards
    failed_saves : those that could not be written; not those that were given up, at their deadline or with their
        program. Counted on the first shard of each node that could not
    saved_bytes : bytes that saves have written, also one that is under way, without links to files of earlier ones.
        Counted on the first shard of each node
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
    saves: int
    failed_saves: int
    saved_bytes: int


@dataclass(frozen=True)
class ServerStats:
    """Counters of a server: `shards` one by one, and the counters of `ShardStats` summed by name in `total`."""

    shards: tuple[ShardStats, ...]

    @property
    def total(self) -> dict[str, int]:
        """The counters summed over shards; operations are counted once per shard."""
        skip = {"shard", "node_id", "interrupted_pid", "interrupted_at"}
        names = [field.name for field in fields(ShardStats) if field.name not in skip]
        return {name: sum(getattr(shard, name) for shard in self.shards) for name in names}
