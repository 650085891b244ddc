"""What a table's capacity means on one shard, on several, and for one call."""

import re

import numpy as np
import pytest

import fastps
from fastps.spec.table import capacity_of_shard

pytestmark = pytest.mark.usefixtures("ray_local")


def ones(n):
    return np.ones((n, 1), np.float32)


def table_of(capacity, **options):
    return fastps.Table(1, rule=fastps.Add(), init=0.0, capacity=capacity, **options)


def push_one_by_one(table, keys):
    for key in keys:
        table.push([key], ones(1))


def test_on_one_shard_it_is_the_number_of_rows():
    with fastps.ParameterServer(table_of(100)) as ps:
        ps.table.push(np.arange(100), ones(100))
        with pytest.raises(fastps.TableFullError, match="100 rows of 100") as caught:
            ps.table.push([100], ones(1))
        assert (caught.value.shard, caught.value.capacity) == (0, 100)
        assert "shards" not in str(caught.value)
        assert len(ps.table) == 100


def test_on_several_shards_so_many_rows_fit_and_it_is_full_when_one_shard_is():
    share = capacity_of_shard(1000, 4)
    with fastps.ParameterServer(table_of(1000), num_shards=4) as ps:
        ps.table.push(np.arange(1000), ones(1000))
        assert [shard.capacity for shard in ps.table.stats()] == [share] * 4
        with pytest.raises(fastps.TableFullError) as caught:
            push_one_by_one(ps.table, range(1000, 4 * share + 1))
        error = caught.value
        assert error.capacity == share
        assert f"shard {error.shard} of 4" in str(error)
        assert f"{share} rows of {share}" in str(error)
        assert "each of 4 shards may have that many: its part of the table's capacity and 6 standard" in str(error)
        rows = [shard.rows for shard in ps.table.stats()]
        assert rows[error.shard] == share
        assert 1000 <= sum(rows) <= 4 * share
        with pytest.raises(fastps.TableFullError, match="each of 4 shards"):
            ps.table.pull(np.arange(100_000, 110_000))
        assert [shard.rows for shard in ps.table.stats()] == rows


@pytest.mark.parametrize("num_shards", [1, 3])
def test_the_keys_of_one_call_must_fit_at_once_even_where_rows_make_room(num_shards):
    with fastps.ParameterServer(table_of(100, evict="lru"), num_shards=num_shards) as ps:
        ps.table.push(np.arange(50), ones(50))
        keys = np.arange(1000, 1101 if num_shards == 1 else 1400)
        with pytest.raises(fastps.TableFullError, match=r"pass at most \d+") as caught:
            ps.table.push(keys, ones(len(keys)))
        assert f"shard {caught.value.shard}" in str(caught.value)
        assert len(ps.table) == 50  # nothing was applied
        assert not ps.table.contains(keys).any()
        most = int(re.search(r"pass at most (\d+)", str(caught.value)).group(1))
        assert most == caught.value.capacity == capacity_of_shard(100, num_shards)
        for start in range(0, len(keys), most):
            some = keys[start : start + most]
            ps.table.push(some, ones(len(some)))
            assert (ps.table.peek(some) == 1).all()
