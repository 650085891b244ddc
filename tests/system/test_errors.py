"""Errors that travel through Ray."""

import pytest
import ray

from fastps.cluster import ray as cluster
from tests.support.waiting import GUARD_SECONDS
from tests.unit.test_errors import CLASSES, check_that_it_is_the_sample, raise_sample_of


@pytest.fixture(scope="module")
def failed(ray_local):
    """By class the reference of a task that has raised it."""
    failing = ray_local.remote(num_cpus=0, max_retries=0)(raise_sample_of)
    return {cls: failing.remote(cls.__name__) for cls in CLASSES}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_comes_whole_out_of_a_task_and_out_of_a_shard(cls, failed):
    with pytest.raises(cls) as caught:
        ray.get(failed[cls], timeout=GUARD_SECONDS)
    check_that_it_is_the_sample(caught.value.cause)
    assert caught.value.__notes__ == caught.value.cause.__notes__
    with pytest.raises(cls) as caught:
        cluster.get(failed[cls], 60, "a call")
    assert type(caught.value) is cls
    check_that_it_is_the_sample(caught.value)
