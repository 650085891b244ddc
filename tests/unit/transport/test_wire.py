from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastps.consistency import Async
from fastps.rules import Add
from fastps.rules.assignment import assign
from fastps.spec.arrays import Leaf, Structure
from fastps.spec.gradients import GradientPolicy
from fastps.spec.partition import partition
from fastps.spec.rule import infos
from fastps.spec.server import ServerSpec
from fastps.transport import wire


def rules_of(structure):
    """What a server with the rule Add has in its spec."""
    assignment, _ = assign(Add(), [leaf.name for leaf in structure.leaves], [])
    return infos(assignment), assignment.of_leaf, GradientPolicy()


@st.composite
def cases(draw):
    """A server of some leaves, its values, and some of its shards."""
    leaves = draw(
        st.lists(st.tuples(st.integers(1, 60), st.sampled_from(["float32", "float64"])), min_size=1, max_size=4)
    )
    structure = Structure(tuple(Leaf((f"leaf{i}",), (n,), dtype) for i, (n, dtype) in enumerate(leaves)))
    num_shards = draw(st.integers(1, min(structure.size, 5)))
    shards = draw(st.lists(st.integers(0, num_shards - 1), min_size=1, unique=True))
    spec = ServerSpec(
        "id", structure, partition(structure, num_shards), (), (), *rules_of(structure), Async(), 1.0, None
    )
    values = [np.arange(1, leaf.size + 1).astype(leaf.dtype) + 1000 * i for i, leaf in enumerate(structure.leaves)]
    return spec, shards, values


@given(cases(), st.sampled_from([lambda n: [], lambda n: [n // 2], lambda n: range(3, n, 5)]))
def test_what_is_gathered_is_scattered_to_the_same_places_and_nowhere_else(case, cuts):
    spec, shards, values = case
    layout = wire.layout(spec, shards)
    found = [np.zeros_like(value) for value in values]
    payload = wire.gather(layout, values)
    assert payload.nbytes == layout.nbytes
    edges = [0, *cuts(layout.nbytes), layout.nbytes]
    for start, stop in pairwise(edges):
        wire.scatter(layout, start, payload[start:stop], found)
    for number, value in enumerate(values):
        owned = np.zeros(len(value), bool)
        for shard in shards:
            for run in spec.plans[shard].runs:
                if run.leaf == number:
                    owned[run.start : run.start + run.count] = True
        assert np.array_equal(found[number], np.where(owned, value, 0))


@given(cases())
def test_both_ends_agree_on_the_layout_whatever_the_order_of_the_shards(case):
    spec, shards, _ = case
    assert wire.layout(spec, shards) == wire.layout(spec, sorted(shards))


@given(cases())
def test_places_are_aligned_and_apart(case):
    spec, shards, _ = case
    layout = wire.layout(spec, shards)
    end = 0
    for place in layout.places:
        assert place.offset % wire.ALIGNMENT == 0
        assert place.offset >= end
        end = place.offset + place.nbytes
    assert end <= layout.nbytes < end + wire.ALIGNMENT
    for shard in shards:
        for number, run in enumerate(spec.plans[shard].runs):
            (place,) = [p for p in layout.places if p.offset == layout.offset(shard, number)]
            assert (place.leaf, place.start, place.count) == (run.leaf, run.start, run.count)


def test_one_run_is_gathered_without_a_copy():
    structure = Structure((Leaf((), (4, 8), "float64"),))
    spec = ServerSpec("id", structure, partition(structure, 2), (), (), *rules_of(structure), Async(), 1.0, None)
    value = np.arange(32.0).reshape(4, 8)
    payload = wire.gather(wire.layout(spec, [1]), [value])
    assert np.shares_memory(payload, value)
    assert payload.ctypes.data == value[2:].ctypes.data
    assert payload.nbytes == 128


SIZES = [8, wire.PLAIN_BYTES, wire.PLAIN_BYTES + 8, 400_000, wire.PART_BYTES * wire.PARTS_A_CALL, 2_500_000,
         wire.EAGER_BYTES, wire.EAGER_BYTES + 8, wire.INLINE_BYTES, wire.INLINE_BYTES + 8]  # fmt: skip


@pytest.mark.parametrize("nbytes", SIZES)
def test_a_payload_survives_its_messages(nbytes, rng):
    payload = rng.integers(0, 256, nbytes, np.uint8)
    inbox = wire.Inbox(nbytes)
    calls = wire.messages(payload, wire.Header(7, 8, 1.5, True))
    for number, (head, *parts) in enumerate(calls):
        header = wire.Header.unpack(head)
        assert (header.worker, header.seq, header.timeout, header.pulls) == (7, 8, 1.5, True)
        assert (header.message, header.messages) == (number, len(calls))
        inbox.add(header, head, parts)
    assert np.array_equal(inbox.payload(), payload)


HEADERS = st.builds(
    wire.Header,
    worker=st.integers(0, 2**64 - 1),
    seq=st.integers(0, 2**64 - 1),
    timeout=st.floats(0, 1e9),
    pulls=st.booleans(),
    message=st.integers(0, 2**32 - 1),
    messages=st.integers(1, 2**32 - 1),
    pulled=st.booleans(),
    scale=st.floats(0, 1),
    deposit=st.none() | st.tuples(st.integers(0, 255), st.integers(1, 65535), *[st.integers(0, 2**64 - 1)] * 3),
    decision=st.binary(max_size=8 * 257),
)


@given(HEADERS, st.binary(max_size=100))
def test_a_header_arrives_as_it_was_sent_whatever_follows_it(header, payload):
    packed = header.pack()
    assert len(packed) == header.nbytes
    assert wire.Header.unpack(packed + payload) == header


def test_a_decision_travels_in_front_of_the_payload(rng):
    payload = rng.integers(0, 256, 3_000_000, np.uint8)
    header = wire.Header(7, 8, 1.5, deposit=(3, 1, 2, 9, 40), decision=bytes(range(24)))
    inbox = wire.Inbox(payload.nbytes)
    for head, *parts in wire.messages(payload, header):
        found = wire.Header.unpack(head)
        assert (found.deposit, found.decision) == (header.deposit, header.decision)
        inbox.add(found, head, parts)
    assert np.array_equal(inbox.payload(), payload)


def test_a_payload_with_a_message_missing_is_refused():
    payload = np.zeros(3_000_000, np.uint8)
    (head, *parts), *_ = wire.messages(payload, wire.Header(1, 1, 1.0))
    inbox = wire.Inbox(payload.nbytes)
    inbox.add(wire.Header.unpack(head), head, parts)
    with pytest.raises(ValueError, match="arrived"):
        inbox.payload()


@pytest.mark.parametrize("nbytes", SIZES)
def test_the_chunks_of_an_answer_are_all_of_it_in_order(nbytes):
    edges = wire.chunks(nbytes)
    assert edges[0][0] == 0
    assert edges[-1][1] == nbytes
    assert all(one[1] == next_[0] for one, next_ in pairwise(edges))


@pytest.mark.parametrize("nbytes", [8, wire.PLAIN_BYTES, wire.PLAIN_BYTES + 8])
def test_a_reply_has_the_bytes_of_its_piece(nbytes, rng):
    piece = rng.integers(0, 256, nbytes, np.uint8)
    assert np.array_equal(np.frombuffer(wire.reply(piece), np.uint8), piece)
