"""Partial operations of a session on shards of this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from fastps import BSP
from fastps.client.array import ArrayHandle
from fastps.client.attach import Attachment
from fastps.client.session import Session
from fastps.errors import NamesError
from fastps.testing.local import LocalServer

LONG = 30.0  # a guard against hanging
NODE = "0" * 56


@dataclass
class Strict:
    """A dataclass that needs all of its arrays."""

    weight: Any
    bias: Any

    def __post_init__(self):
        self.sizes = len(self.weight), len(self.bias)


class Pair(NamedTuple):
    first: Any
    second: Any


def attachment_of(server):
    attachment = Attachment(server.spec)
    attachment.use(Session(server.spec, NODE, None, lambda value, timeout: value, None))
    return attachment


def a_strict_model():
    return [Strict(np.arange(3.0), np.arange(4.0, dtype=np.float32)), np.ones(2)]


@pytest.mark.parametrize("policy", [None, BSP()], ids=["Async", "BSP"])
@pytest.mark.parametrize("num_shards", [1, 2])
def test_one_array_is_read_without_the_containers_that_it_is_in(policy, num_shards):
    with LocalServer(a_strict_model(), num_shards=num_shards, consistency=policy) as server:
        attachment = attachment_of(server)
        for number, expected in enumerate(([0, 1, 2], [0, 1, 2, 3], [1, 1])):
            handle = ArrayHandle(attachment, number)
            assert handle.pull().tolist() == expected
            assert handle.pull().dtype == handle.dtype
            if num_shards == 1:
                assert handle.view().tolist() == expected


@pytest.mark.parametrize("policy", [None, BSP()], ids=["Async", "BSP"])
def test_a_bare_array_is_read_by_its_name(policy):
    with LocalServer(np.arange(3.0), consistency=policy) as server:
        handle = ArrayHandle(attachment_of(server), 0)
        assert handle.pull().tolist() == handle.view().tolist() == [0, 1, 2]


def test_an_array_on_one_shard_is_viewed_though_others_are_split():
    with LocalServer({"small": np.ones(2), "large": np.zeros(100_000)}, num_shards=2) as server:
        assert ArrayHandle(attachment_of(server), 0).view().tolist() == [1, 1]


@pytest.mark.parametrize("policy", [None, BSP()], ids=["Async", "BSP"])
def test_a_class_that_refuses_none_for_what_is_left_out_is_told_what_to_do(policy):
    with LocalServer(a_strict_model(), consistency=policy) as server:
        arrays = attachment_of(server).attach()
        told = r"Strict: .* None for \['bias'\], .* \(TypeError: .*\); read single arrays by ps\[name\].pull\(\)"
        with pytest.raises(NamesError, match=told) as caught:
            arrays.pull(None, LONG, ["0/weight"])
        assert isinstance(caught.value.__cause__, TypeError)
        assert arrays.pull(None, LONG, ["1"])[0][0] is None
        assert arrays.pull(None, LONG, ["0"])[0][0].sizes == (3, 4)
