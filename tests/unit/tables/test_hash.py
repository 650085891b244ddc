"""The hash of keys: where a row lies follows from it, in every process, on every machine, for ever."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastps._core import hash_of, shards_of

MASK = 2**64 - 1
PINNED = {
    b"": 0xE220A8397B1DCDAF,  # the first number of SplitMix64 from 0
    b"\0": 0xDCE423FC82C0D5B8,
    b"\0\0": 0xE60BBBF6CA094F3C,
    b"a": 0x3E506E5796335AF0,
    b"user:42": 0xF5F1DCBB2B31EB81,
    "é".encode(): 0x4EB3CC1EE1644D29,
    b"12345678": 0x82177327E1E4DAAC,
    b"123456789": 0xB0F00539162B363B,
    bytes(range(256)): 0xB03F41DECC94C0B0,
}
PINNED_SHARDS = {0: [0, 0], 1: [0, 0], 2: [0, 1], 3: [2, 7], 4: [1, 3], -1: [2, 7], 2**62: [2, 5]}  # of three, of eight


def mixed(key):
    """csrc/hash.h in plain Python."""
    key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 & MASK
    key = (key ^ key >> 27) * 0x94D049BB133111EB & MASK
    return key ^ key >> 31


def naive_hash(text):
    found = mixed(len(text) + 0x9E3779B97F4A7C15 & MASK)
    for at in range(0, len(text), 8):
        found = mixed(found ^ int.from_bytes(text[at : at + 8], "little"))
    return found


def shards(keys, num_shards):
    return shards_of(np.asarray(keys, np.int64).view(np.uint64), num_shards)


@pytest.mark.parametrize("text", PINNED, ids=lambda text: repr(text[:12]))
def test_the_hash_of_some_bytes_is_what_it_always_was(text):
    assert hash_of(text) == PINNED[text]


@given(st.binary(max_size=40))
def test_the_hash_of_any_bytes_is_that_of_its_definition(text):
    assert hash_of(text) == naive_hash(text)


def test_the_shard_of_some_keys_is_what_it_always_was():
    for at, num_shards in enumerate((3, 8)):
        found = shards(list(PINNED_SHARDS), num_shards).tolist()
        assert found == [of[at] for of in PINNED_SHARDS.values()]


@given(st.lists(st.integers(0, MASK), max_size=20), st.integers(1, 2**32 - 1))
def test_the_shard_of_any_key_is_that_of_its_definition(keys, num_shards):
    found = shards_of(np.array(keys, np.uint64), num_shards)
    assert found.tolist() == [(mixed(key) & 0xFFFFFFFF) * num_shards >> 32 for key in keys]


def test_one_shard_has_all_keys():
    assert not shards(np.arange(-1000, 1000), 1).any()


KEYS = {
    "one after the other": np.arange(200_000),
    "negative": -np.arange(200_000),
    "every 1024th": np.arange(200_000) << 10,
    "in the upper half": np.arange(200_000) << 32,
    "multiples of the number of shards": np.arange(200_000) * 3 * 7 * 8 * 64,
    "close to the largest": 2**63 - 1 - np.arange(200_000),
    "hashes of text": np.array([hash_of(b"user:%d" % i) for i in range(200_000)], np.uint64).view(np.int64),
}


@pytest.mark.parametrize("num_shards", [2, 3, 7, 8, 64])
@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_keys_of_any_pattern_spread_evenly_over_shards(keys, num_shards):
    counts = np.bincount(shards(keys, num_shards), minlength=num_shards)
    expected = len(keys) / num_shards
    chi_square, freedom = ((counts - expected) ** 2 / expected).sum(), num_shards - 1
    # Of even chances its mean is `freedom` and its variance twice that; seven standard deviations, of fixed keys.
    assert chi_square < freedom + 7 * np.sqrt(2 * freedom)


def test_keys_of_one_shard_spread_evenly_over_others(rng):
    """So a table that is loaded on another number of shards is even again."""
    keys = rng.integers(-(2**63), 2**63 - 1, 200_000)
    some = keys[shards(keys, 8) == 5]
    assert set(shards(some, 16).tolist()) == {10, 11}  # cut in two
    counts = np.bincount(shards(some, 16), minlength=16)
    assert abs(counts[10] - counts[11]) < 7 * np.sqrt(len(some))


def test_different_texts_have_different_hashes():
    texts = [b"%d" % i for i in range(100_000)] + [b"x" * i for i in range(1000)] + [b"\0" * i for i in range(1, 1000)]
    assert len({hash_of(text) for text in texts}) == len(texts)
