"""Arguments, answers and errors as bytes."""

import contextlib
import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fastps import errors
from fastps._core import Decision, Outcome
from fastps.transport import values
from tests.unit.test_errors import check_that_it_is_the_sample, sample_of

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
ARRAYS = arrays.arrays(
    st.sampled_from(["<u8", "<f4", "<f8", "|b1"]), arrays.array_shapes(min_dims=1, max_dims=3, min_side=0)
)
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.integers() | st.text(), inner),
)


@given(NESTED)
def test_a_value_arrives_as_it_was(value):
    found = values.unpack(values.pack(value))
    assert found == value
    assert type(found) is type(value)


@given(st.lists(ARRAYS))
def test_arrays_arrive_as_they_were_and_without_a_copy(given):
    packed = values.pack(given)
    found = values.unpack(packed)
    for one, other in zip(given, found, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.array_equal(one, other, equal_nan=True)
        assert other.size == 0 or np.shares_memory(other, np.frombuffer(packed, np.uint8))


def test_what_is_not_plain_arrives_too():
    decision = Decision.unpack(np.array([5, 1 << 16 | 3], "<u8").tobytes())
    outcome = Outcome()
    outcome.end((1, 2))
    outcome.begin((4,))
    found, told, number = values.unpack(values.pack((decision, outcome, np.float32(1.5))))
    assert (found.round, found.given) == (decision.round, decision.given)
    assert (told.applied, told.unknown, told.counts) == ((1, 2), (4,), None)
    assert number == 1.5


def test_what_has_no_form_on_the_wire_is_refused():
    with pytest.raises(TypeError, match="set does not travel"):
        values.pack({1, 2})


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_arrives_as_it_was(name):
    found = values.unpack_error(values.pack_error(sample_of(name), "there"))
    assert type(found).__name__ == name
    check_that_it_is_the_sample(found)


def test_another_error_says_what_it_was_and_where():
    found = values.unpack_error(values.pack_error(ZeroDivisionError("by zero"), "shard 3"))
    assert type(found) is errors.FastPSError
    assert str(found) == "shard 3: ZeroDivisionError: by zero"


def test_damaged_bytes_are_a_value_error_and_nothing_else():
    rng, packed = random.Random(7), values.pack(["find", 3, np.arange(50.0), {"a": (1, 2.5, b"xyz")}])
    for _ in range(3000):
        damaged = bytearray(packed[: rng.randrange(len(packed))] if rng.random() < 0.3 else packed)
        for _ in range(rng.choice([1, 3, 20]) if damaged else 0):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with contextlib.suppress(ValueError):
            values.unpack(bytes(damaged))


@pytest.mark.parametrize(
    "plain",
    [
        {"unknown": 1}, {}, {"array": ["O", [2]]}, {"array": ["<f8", [-1]]}, {"array": ["<f8", [1 << 40]]},
        {"bytes": -8}, {"array": ["<f8"]}, {"array": 3}, {"tuple": 5}, {"dict": [[1]]}, {"outcome": []},
        {"array": ["no type", [1]]},
        {"bytes": "x"}, {"decision": 5}, {"dict": [[{"dict": []}, 1]]}, {"array": ["<f8", [1.5]]}, {"a": 1, "b": 2},
    ],
)  # fmt: skip
def test_a_value_that_nobody_packs_is_a_value_error(plain):
    text = json.dumps(plain).encode()
    text += b" " * (-len(text) % 8)
    with pytest.raises(ValueError, match="a value that is damaged"):
        values.unpack(values.LENGTHS.pack(len(text), 16 + len(text)) + text)
