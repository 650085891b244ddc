"""Which Ray cluster is joined, and whether an address is one of this machine."""

from __future__ import annotations

import pytest

from fastps.cluster.address import chosen, is_local, require_reachable

HERE, THERE = "127.0.0.1:6379", "127.0.0.1:7000"


@pytest.mark.parametrize(
    ("named", "recorded", "found"),
    [
        (HERE, None, ()),
        (HERE, THERE, (THERE,)),
        (None, HERE, (HERE, THERE)),
        ("", "", (HERE,)),
        (None, None, (HERE,)),
        ("auto", HERE, (THERE,)),
        ("auto", None, (HERE,)),
    ],
)
def test_what_the_user_names_comes_before_rays_record_and_that_before_what_runs(named, recorded, found):
    assert chosen(named, recorded, found) == HERE


def test_none_or_several_clusters_raise_and_name_them():
    with pytest.raises(ValueError, match="no Ray cluster runs"):
        chosen(None, None, ())
    with pytest.raises(ValueError, match=f"'{HERE}', '{THERE}'"):
        chosen(None, None, {THERE, HERE})


def test_a_cluster_of_ones_own_is_none_to_join():
    with pytest.raises(ValueError, match="RAY_ADDRESS is 'local', which stands for a new Ray cluster"):
        chosen("local", HERE, {HERE})


@pytest.mark.parametrize("address", ["local", "", ":6379", "here", "here:", "here:ray", "1.2.3.4:-1"])
def test_what_is_no_address_is_said_without_pythons_own_words(address):
    with pytest.raises(ValueError, match="expected HOST:PORT of a running Ray cluster, got") as caught:
        require_reachable(address)
    assert str(caught.value).endswith(repr(address))


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1:1", True), ("localhost:6379", True), ("192.0.2.1:6379", False)],
)
def test_an_address_is_local_when_a_socket_can_be_bound_to_it(address, local):
    assert is_local(address) == local
