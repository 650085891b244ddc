"""What Ray answers, as fastps says it. No Ray runs here."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future

import pytest
import ray
from ray.exceptions import GetTimeoutError, RayActorError

from fastps.cluster import ray as cluster
from fastps.cluster.program import own_ray
from fastps.errors import ClosedError, ParameterError, RayRequiredError, ShardDiedError, WaitTimeoutError


def done(value=None, error=None):
    future = Future()
    future.set_exception(error) if error is not None else future.set_result(value)
    return future


def test_without_ray_what_needs_it_says_what_it_is_and_how_to_connect(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # by a test before this one
    assert not cluster.connected()
    assert cluster.this_node() is None
    with pytest.raises(RayRequiredError, match=r"pull: needs Ray, to which this process is not connected; .*ray\.init"):
        cluster.get([], 1.0, "pull")


def test_futures_in_nested_mappings_are_replaced_by_their_results():
    given = {"a": {"b": done(3)}, "c": 4}
    assert cluster.resolve(given, 1.0) == {"a": {"b": 3}, "c": 4}
    assert cluster.resolve(done("x"), 1.0) == "x"


def test_a_future_that_has_no_result_in_time_is_a_wait_timeout_error():
    with pytest.raises(WaitTimeoutError, match="no result in time"):
        cluster.resolve(Future(), 0.01)


def test_what_a_future_raises_comes_as_it_is_also_where_it_is_a_timeout():
    for error in (KeyError("mine"), TimeoutError("its own")):
        with pytest.raises(type(error)) as caught:
            cluster.resolve(done(error=error), 1.0)
        assert caught.value is error


def test_a_cancelled_future_is_a_parameter_error():
    future = Future()
    future.cancel()
    with pytest.raises(ParameterError, match="cancelled; nothing was applied"):
        cluster.resolve(future, 1.0)


@pytest.mark.parametrize(
    ("raised", "error", "words"),
    [
        (GetTimeoutError("late"), WaitTimeoutError, "push: no reply within 2 s"),
        (RayActorError(error_msg="it was killed by ray.kill"), ClosedError, "push: the server was closed"),
        (RayActorError(error_msg="gone\nmore"), ShardDiedError, r"push: its process is gone.*\(gone\)"),
    ],
    ids=["timeout", "closed", "died"],
)
def test_errors_of_ray_are_those_of_fastps(raised, error, words, monkeypatch):
    def get(refs, timeout):
        raise raised

    monkeypatch.setattr(cluster, "require", lambda what: None)
    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(error, match=words):
        cluster.get([], 2.0, "push")


def test_names_that_only_fastps_looks_for_are_told_from_those_of_users(monkeypatch):
    generated = cluster.generated("0" * 32, "shard/1")
    actors = [(generated, "fastps"), ("mine", "fastps"), ("other", "theirs"), ("a/b", "fastps")]
    listed = [{"name": name, "namespace": namespace} for name, namespace in actors]
    monkeypatch.setattr(ray.util, "list_named_actors", lambda everywhere: listed)
    assert cluster.names() == ["a/b", "mine"]


@pytest.mark.parametrize("kind", [Exception, RuntimeError])
def test_a_ray_that_does_not_start_is_an_error_that_says_what_to_do(kind, monkeypatch):
    def give_up(**options):
        raise kind("The current node timed out during startup.")

    ended = []
    monkeypatch.setattr(ray, "init", give_up)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RayRequiredError, match=r"Ray did not start: The current node .* `ray start --head`"):
        cluster.start()
    assert ended == [True]
    with pytest.raises(RayRequiredError, match="Ray did not start"), own_ray(contextlib.nullcontext, print, "local"):
        pass


def test_other_errors_of_rays_start_come_as_they_are(monkeypatch):
    def refuse(**options):
        raise ConnectionError("no cluster")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ConnectionError, match="no cluster"):
        cluster.init()
