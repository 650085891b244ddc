"""What a `placement` argument asks for."""

import numpy as np
import pytest

from fastps.errors import PlacementError
from fastps.spec.placement import STRATEGIES, PlacementRequest, amounts, placement_request


def test_none_and_strategies_say_nothing_of_single_shards():
    assert placement_request(None, 3) == PlacementRequest()
    for strategy in STRATEGIES:
        assert placement_request(strategy, 3) == PlacementRequest(strategy=strategy)


def test_a_mapping_is_for_each_shard_and_a_sequence_has_one_entry_a_shard():
    assert placement_request({"num_cpus": 2}, 3).shards == ({"num_cpus": 2},) * 3
    given = ["node", {"resources": {"label": 0.5}}]
    assert placement_request(given, 2).shards == ("node", {"num_cpus": 0, "resources": {"label": 0.5}})
    assert placement_request(tuple(given), 2) == placement_request(given, 2)


def test_amounts_have_the_names_of_nodes_resources():
    entry = {"num_cpus": 1, "num_gpus": 0.5, "memory": 1000, "resources": {"label": 2, "none": 0}}
    (request,) = placement_request([entry], 1).shards
    assert amounts(request) == {"CPU": 1, "GPU": 0.5, "memory": 1000, "label": 2}
    assert amounts({"num_cpus": 0}) == {}


def test_numbers_of_numpy_are_amounts_as_ray_takes_them():
    entry = {"num_cpus": np.int64(1), "num_gpus": None, "resources": {"label": np.float32(0.5)}}
    (request,) = placement_request([entry], 1).shards
    assert request == {"num_cpus": 1, "resources": {"label": 0.5}}
    assert {type(request["num_cpus"]), type(request["resources"]["label"])} == {float}


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        ("ANYWHERE", "unknown strategy 'ANYWHERE'; expected one of"),
        ("spread", "unknown strategy 'spread'"),
        (3, "expected None, one of .* got int 3"),
        ({"node1"}, "expected None, one of .* got set"),
        ([], "expected one entry for each of 2 shards, got 0"),
        (["node"], "expected one entry for each of 2 shards, got 1"),
        (["node", 3], "placement of shard 1: expected .* got int 3"),
        ([None, "node"], "placement of shard 0: expected .* got NoneType None"),
        ({"cpus": 1}, r"placement of shard 0: unknown \['cpus'\]; expected num_cpus"),
        (["node", {"cpus": 1, 2: 3}], r"placement of shard 1: unknown \[2, 'cpus'\]"),
    ],
    ids=str,
)
def test_what_is_no_placement_raises_placement_error(placement, words):
    with pytest.raises(PlacementError, match=words):
        placement_request(placement, 2)


@pytest.mark.parametrize("amount", ["many", "1", -1, float("nan"), float("inf"), True, [1], np.zeros(2), 1j], ids=repr)
@pytest.mark.parametrize("name", ["num_cpus", "num_gpus", "memory", "label"])
def test_what_is_no_amount_raises_placement_error_that_names_shard_and_resource(name, amount):
    entry = {"resources": {name: amount}} if name == "label" else {name: amount}
    with pytest.raises(PlacementError, match=f"placement of shard 1 {name}: expected a finite number, 0 or more"):
        placement_request([{"num_cpus": 1}, entry], 2)


@pytest.mark.parametrize("resources", ["label", 3, ["label"], {3: 1}, {"CPU": 1}, {"GPU": 1}, {"memory": 1}], ids=repr)
def test_what_are_no_resources_raises_placement_error(resources):
    with pytest.raises(PlacementError, match="placement of shard 0 resources: expected"):
        placement_request({"resources": resources}, 1)
