"""Operations on tables of this process: what a resumed push_pull reads, and which arguments are refused."""

from __future__ import annotations

import mmap
import struct

import numpy as np
import pytest

import fastps
from fastps._core import shards_of
from fastps.errors import WaitTimeoutError
from fastps.testing.local import LocalServer
from fastps.transport.contract import Operation

NOWHERE = 77.0
KEYS = np.arange(1000, 1200, dtype=np.uint64)


@pytest.fixture
def endpoint():
    with LocalServer({"t": fastps.Table(4, capacity=10_000, init=0.0)}, num_shards=2) as server:
        yield server.endpoint()


class Held:
    """The lock of a key's row, as a live session holds it. The row lies behind everything else that has its key."""

    def __init__(self, arena, key):
        self.memory = mmap.mmap(arena.fd, arena.total_bytes)
        self.at = self.memory.rfind(struct.pack("<Q", key)) + 8
        (self.word,) = struct.unpack_from("<Q", self.memory, self.at)

    def __enter__(self):
        struct.pack_into("<Q", self.memory, self.at, self.word | 1)  # the first seat, which this process's lane has

    def __exit__(self, *_):
        struct.pack_into("<Q", self.memory, self.at, self.word)
        self.memory.close()


@pytest.mark.parametrize("held_shard", [0, 1])
def test_a_resumed_push_pull_reads_the_rows_of_the_shards_that_were_done_before(endpoint, held_shard):
    grads, outs = np.ones((len(KEYS), 4), np.float32), np.full((len(KEYS), 4), NOWHERE, np.float32)
    endpoint.start(Operation(0, KEYS, outs=[outs.copy()]), 5.0).finish()
    last = KEYS[shards_of(KEYS, 2) == held_shard][-1]
    with Held(endpoint.arenas[held_shard], last), pytest.raises(WaitTimeoutError) as caught:
        endpoint.start(Operation(0, KEYS, [grads], [outs]), 0.05)
    assert caught.value.partial == (held_shard,)
    again = np.full_like(outs, NOWHERE)  # other memory, as over a carrier
    endpoint.start(Operation(0, KEYS, [grads], [again]), 5.0, resume=caught.value.resume).finish()
    assert (again == 1).all()
    before = endpoint.ask("counters", None, timeout=5.0)
    assert [before[shard]["push_pulls"] for shard in (0, 1)] == [1, 1]


@pytest.mark.parametrize(
    "keys", [KEYS.astype(np.uint8), KEYS[::2], KEYS.reshape(2, 100)], ids=["uint8", "strided", "of two dimensions"]
)
def test_keys_that_are_not_of_64_bits_in_a_row_are_refused(endpoint, keys):
    for verb in ("find", "seen"):
        with pytest.raises(ValueError, match="uint64"):
            getattr(endpoint.verbs.tables[0].group, verb)(keys)


@pytest.mark.parametrize("streams", [[], [None, None]])
def test_as_many_streams_as_the_table_has_are_asked_for(endpoint, streams):
    table = endpoint.verbs.tables[0].group
    with pytest.raises(ValueError, match=r"streams: \d of 1"):
        table.remove(KEYS, streams, np.zeros(len(KEYS), np.uint8), 5.0)
    with pytest.raises(ValueError, match=r"streams: \d of 1"):
        table.scan(0, 0, np.empty(10, np.uint64), streams, None)
