"""Headers, payloads in pieces and replies."""

import contextlib
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastps.errors import ShapeError
from fastps.transport import message, ray
from fastps.transport.layout import Layout

LIMITS = ray.RayCarrier.limits
SIZES = [8, LIMITS.joined, LIMITS.joined + 8, 400_000, LIMITS.part * LIMITS.parts, 2_500_000, LIMITS.eager,
         LIMITS.eager + 8, LIMITS.inline, LIMITS.inline + 8]  # fmt: skip


def operation(client=7, number=8, **fields):
    return message.Header(message.OPERATION, client, number, 1.5, **fields)


@pytest.mark.parametrize("nbytes", SIZES)
def test_a_payload_survives_its_messages(nbytes, rng):
    payload = rng.integers(0, 256, nbytes, np.uint8)
    inbox = message.Inbox(nbytes)
    calls = message.pieces(operation(flags=message.PULLS), payload, LIMITS)
    for number, (head, *parts) in enumerate(calls):
        header = message.Header.unpack(head)
        assert (header.client, header.number, header.timeout, header.flags) == (7, 8, 1.5, message.PULLS)
        assert (header.piece, header.pieces, header.nbytes) == (number, len(calls), nbytes)
        inbox.add(memoryview(head)[header.size :], parts)
    assert np.array_equal(inbox.payload(), payload)


WORDS, HALVES = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
HEADERS = st.builds(
    message.Header,
    kind=st.sampled_from([message.OPERATION, message.QUESTION, message.REST]),
    client=WORDS,
    number=WORDS,
    timeout=st.floats(0, 1e9),
    nbytes=WORDS,
    table=HALVES,
    flags=st.integers(0, 15),
    n=HALVES,
    sets=WORDS,
    gets=WORDS,
    scale=st.floats(0, 1),
    piece=st.integers(0, 5),
    pieces=st.integers(6, 2**32 - 1),
    start=st.integers(0, 100),
    stop=st.integers(100, 2**62),
    deposit=st.none() | st.tuples(st.integers(0, 255), st.integers(1, 65535), *[WORDS] * 3),
    decision=st.lists(st.binary(min_size=8, max_size=8), max_size=257).map(b"".join),
)

PARTIAL = st.builds(
    lambda header, leaves: replace(
        header, table=0, flags=header.flags | message.PARTIAL, n=len(leaves), leaves=tuple(sorted(leaves))
    ),
    HEADERS,
    st.sets(st.integers(0, 2**32 - 1), max_size=9),
)


@given(HEADERS | PARTIAL, st.binary(max_size=100))
def test_a_header_arrives_as_it_was_sent_whatever_follows_it(header, payload):
    packed = header.pack()
    assert len(packed) == header.size
    assert message.Header.unpack(packed + payload) == header


@given(st.binary(max_size=300))
def test_a_header_of_any_bytes_is_a_header_or_a_value_error(data):
    with contextlib.suppress(ValueError):
        message.Header.unpack(data)


def test_a_header_that_is_cut_short_is_refused():
    packed = operation(decision=bytes(16)).pack()
    for length in range(len(packed)):
        with pytest.raises(ValueError, match="header"):
            message.Header.unpack(packed[:length])


def test_a_decision_travels_in_front_of_the_payload(rng):
    payload = rng.integers(0, 256, 3_000_000, np.uint8)
    header = operation(deposit=(3, 1, 2, 9, 40), decision=bytes(range(24)))
    inbox = message.Inbox(payload.nbytes)
    for head, *parts in message.pieces(header, payload, LIMITS):
        found = message.Header.unpack(head)
        assert (found.deposit, found.decision) == (header.deposit, header.decision)
        inbox.add(memoryview(head)[found.size :], parts)
    assert np.array_equal(inbox.payload(), payload)


def test_a_payload_with_a_message_missing_is_refused():
    payload = np.zeros(3_000_000, np.uint8)
    (head, *parts), *_ = message.pieces(operation(), payload, LIMITS)
    inbox = message.Inbox(payload.nbytes)
    inbox.add(memoryview(head)[message.Header.unpack(head).size :], parts)
    with pytest.raises(ValueError, match="arrived"):
        inbox.payload()


@pytest.mark.parametrize("nbytes", SIZES)
def test_the_pieces_of_a_reply_are_all_of_it_in_order(nbytes):
    edges = message.cuts(nbytes, LIMITS)
    assert edges[0][0] == 0
    assert edges[-1][1] in (nbytes, message.WHOLE)
    assert all(one[1] == next_[0] for one, next_ in pairwise(edges))


@pytest.mark.parametrize("nbytes", [8, LIMITS.joined, LIMITS.joined + 8])
def test_what_an_actor_returns_has_the_bytes_of_the_reply(nbytes, rng):
    reply = rng.integers(0, 256, nbytes, np.uint8)
    assert np.array_equal(np.frombuffer(ray.reply(reply), np.uint8), reply)


def test_a_reply_is_versions_or_an_error():
    layout = Layout((2, 5), (), 0, {})
    body = message.opened(message.packed_versions((7, 9)))
    assert message.versions_of(body, layout) == {2: 7, 5: 9}
    with pytest.raises(ShapeError, match="too long"):
        message.opened(message.failure(ShapeError("too long"), "here"))
