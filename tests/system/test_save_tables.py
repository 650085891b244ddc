"""Tables that are saved and restored go on as if nothing had happened: rows, slots, activity and settings."""

from __future__ import annotations

import time

import numpy as np
import pytest

import fastps
from fastps import SGD, Adagrad, Adam, OptionError, RowAdagrad, RuleError, Table
from fastps.checkpoint.load import load
from tests.support.extent import short_or_long


def rows_of(table):
    """All rows and slots, by key."""
    found = {}
    for batch in table.to_arrow(slots=True).to_batches():
        for row in batch.to_pylist():
            found[row.pop("key")] = row
    return found


def steps_of(rng, n):
    return [
        (rng.integers(-500, 500, 200), rng.normal(size=(200, 6)).astype(np.float32), rng.normal(size=50))
        for _ in range(n)
    ]


@pytest.mark.parametrize(("before", "after"), short_or_long([(2, 3)], [(1, 1), (1, 3), (3, 1), (2, 3)]))
def test_a_training_with_tables_goes_on_exactly(ray_local, tmp_path, rng, before, after):
    params = {
        "tower": np.zeros(50),
        "nested": {"users": Table(6, rule=Adagrad(0.1), seed=7), "words": Table(6, keys="bytes", rule=RowAdagrad(0.1))},
        "plain": Table(6, dtype="float64"),
    }
    steps = steps_of(rng, 8)

    def train(ps, some):
        for keys, grads, dense in some:
            ps.push({"tower": dense})
            ps["nested/users"].push(keys, grads)
            ps["nested/words"].push([f"w{k}" for k in keys], grads)
            ps["plain"].push(keys, grads.astype(np.float64))

    with fastps.ParameterServer(params, rule=SGD(0.1, momentum=0.9), num_shards=before) as ps:
        train(ps, steps[:4])
        ps.configure("plain", lr=0.5)
        ps.save(tmp_path / "saved")
        names = ("nested/users", "nested/words", "plain")
        saved, hyper = {name: rows_of(ps[name]) for name in names}, {name: ps[name].hyper for name in names}
        train(ps, steps[4:])
        wanted = {name: rows_of(ps[name]) for name in names}
    with fastps.restore(tmp_path / "saved", num_shards=after) as ps:
        assert {name: rows_of(ps[name]) for name in names} == saved
        assert {name: ps[name].hyper for name in names} == hyper
        train(ps, steps[4:])
        assert {name: rows_of(ps[name]) for name in names} == wanted


def test_the_step_of_a_table_goes_on(ray_local, tmp_path):
    rule = Adam(fastps.schedules.cosine(0.5, steps=10))
    with fastps.ParameterServer(Table(2, rule=rule, init=1.0), num_shards=2) as ps:
        keys = np.arange(20)
        for _ in range(3):
            ps.table.push(keys, np.ones((20, 2), np.float32))
        ps.save(tmp_path / "saved")
        ps.table.push(keys, np.ones((20, 2), np.float32))
        wanted = ps.table.pull(keys)
    for shards in (1, 2):
        with fastps.restore(tmp_path / "saved", num_shards=shards) as ps:
            assert [counted.version for counted in ps.table.stats()] == [3] * shards
            ps.table.push(keys, np.ones((20, 2), np.float32))
            assert ps.table.pull(keys).tobytes() == wanted.tobytes()


def test_initial_values_are_the_same_and_rows_that_were_given_are_saved(ray_local, tmp_path):
    inits = {"uniform": None, "normal": fastps.init.Normal(1.0, 2.0), "given": np.eye(3, dtype=np.float32)}
    tables = {name: Table(3, init=init, seed=5) for name, init in inits.items()}
    keys = [3, 10**9, -1]
    with fastps.ParameterServer(tables) as ps:
        wanted = {name: ps[name].initial(keys) for name in tables}
        ps.save(tmp_path / "saved")
    with fastps.restore(tmp_path / "saved") as ps:
        for name, rows in wanted.items():
            assert ps[name].pull(keys).tobytes() == rows.tobytes()
        assert np.array_equal(ps["given"].pull([0, 1, 2]), np.eye(3, dtype=np.float32))


def test_activity_goes_on_without_the_time_in_between(ray_local, tmp_path):
    with fastps.ParameterServer(Table(1, track=True)) as ps:
        ps.table.pull([1, 1, 2])
        time.sleep(0.4)
        ps.table.pull([2])
        idle, _ = ps.table.activity([1, 2])
        ps.save(tmp_path / "saved")
    with fastps.restore(tmp_path / "saved", num_shards=2) as ps:
        ages, counts = ps.table.activity([1, 2])
        assert counts.tolist() == [2, 2]
        assert ages[0] - ages[1] == pytest.approx(idle[0] - idle[1], abs=0.2)
        assert ages[0] >= idle[0]


def test_settings_and_sightings_are_saved(ray_local, tmp_path):
    with fastps.ParameterServer(Table(1, admit=3, init=0.0, capacity=10, evict="lru", ttl=1000.0)) as ps:
        ps.table.pull([5, 5])
        ps.table.pull([9, 9, 9])
        ps.save(tmp_path / "saved")
    with fastps.restore(tmp_path / "saved") as ps:
        assert 9 in ps.table
        assert 5 not in ps.table
        ps.table.pull([5])
        assert 5 in ps.table  # its third sighting
        ps.table.set(np.arange(100, 110), np.zeros((10, 1), np.float32))
        assert len(ps.table) == 10


@fastps.rule
def halve(p, g):
    return p - g / 2


@fastps.rule
def third(p, g):
    return p - g / 3


def test_code_of_a_table_has_to_be_passed(ray_local, tmp_path):
    params = {"own": Table(1, rule=halve, init=1.0), "w": np.zeros(2), "inherits": Table(1, init=0.0)}
    with fastps.ParameterServer(params, rule=third) as ps:
        ps["own"].push([1], np.ones((1, 1), np.float32))
        ps.save(tmp_path / "saved")
    with pytest.raises(RuleError, match="'own' is not one of fastps alone"):
        fastps.restore(tmp_path / "saved", rule=third)
    with pytest.raises(RuleError, match="the code of the rule third"):
        fastps.restore(tmp_path / "saved", rule=third, tables={"own": Table(1, rule=third)})
    with pytest.raises(OptionError, match="dim=2"):
        fastps.restore(tmp_path / "saved", rule=third, tables={"own": Table(2, rule=halve)})
    with pytest.raises(OptionError, match=r"'other'.*'own', 'inherits'"):
        fastps.restore(tmp_path / "saved", rule=third, tables={"other": Table(2)})
    with fastps.restore(tmp_path / "saved", rule=third, tables={"own": Table(1, rule=halve, init=1.0)}) as ps:
        ps["own"].push([1], np.ones((1, 1), np.float32))
        ps["inherits"].push([1], np.ones((1, 1), np.float32))
        assert ps["own"].pull([1]).tolist() == [[0.0]]
        assert ps["inherits"].pull([1]) == pytest.approx(-1 / 3)


def test_a_function_that_takes_evicted_rows_has_to_be_passed(ray_local, tmp_path):
    with fastps.ParameterServer(Table(1, ttl=1000.0, on_evict=lambda keys, rows, slots: None)) as ps:
        ps.save(tmp_path / "saved")
    with pytest.raises(OptionError, match=r"on_evict.*pass tables={'table': fastps.Table\(1, \.\.\.\)}"):
        fastps.restore(tmp_path / "saved")
    fastps.restore(tmp_path / "saved", tables={"table": Table(1, ttl=5.0)}).close()


def test_pyarrow_alone_reads_the_rows(ray_local, tmp_path):
    pa = pytest.importorskip("pyarrow")
    with fastps.ParameterServer(Table(2, rule=RowAdagrad(0.1), track=True)) as ps:
        ps.table.push([4, 2], np.ones((2, 2), np.float32))
        ps.save(tmp_path / "saved")
        wanted = rows_of(ps.table)
    (file,) = (tmp_path / "saved").glob("rows-*.arrow")
    found = pa.ipc.open_file(file).read_all()
    assert found.schema.names == ["key", "row", "sum", "(idle)", "(uses)"]
    assert {row["key"]: {"row": row["row"], "sum": row["sum"]} for row in found.to_pylist()} == wanted


def test_rows_are_saved_whole_while_others_push(ray_local, tmp_path):
    """Each row is as some number of pushes left it."""
    keys = np.arange(50_000)
    with fastps.ParameterServer(Table(16, init=0.0), num_shards=2) as ps:
        saving, pushed = ps.save(tmp_path / "saved", wait=False), 0
        while not saving.done():
            ps.table.push(keys, np.ones((len(keys), 16), np.float32))
            pushed += 1
        saving.result()
    with fastps.restore(tmp_path / "saved") as ps:
        rows = ps.table.peek(keys)
        assert (rows == rows[:, :1]).all()
        assert rows.max() <= pushed


def test_a_damaged_file_of_rows_is_found(ray_local, tmp_path):
    with fastps.ParameterServer(Table(2)) as ps:
        ps.table.pull(np.arange(100))
        ps.save(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("rows-*.arrow")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    with pytest.raises(fastps.CheckpointError, match="not those that were written"):
        load(tmp_path / "saved")


def test_more_rows_than_a_shard_may_have_are_refused_before_anything_starts(ray_local, tmp_path):
    with fastps.ParameterServer(Table(1, capacity=100, evict="lru"), num_shards=2) as ps:
        ps.table.set(np.arange(110), np.zeros((110, 1), np.float32))
        assert len(ps.table) == 110
        ps.save(tmp_path / "saved")
    with pytest.raises(OptionError, match=r"has 110 rows for one of 1 shards, which may have 100; pass more shards"):
        fastps.restore(tmp_path / "saved", num_shards=1)
    with fastps.restore(tmp_path / "saved", num_shards=1, tables={"table": Table(1, capacity=200)}) as ps:
        assert len(ps.table) == 110


def test_a_restored_server_can_be_saved_and_restored_with_the_same_rules(ray_local, tmp_path):
    rule = {"t": Adagrad(0.1), "*": SGD(0.1)}
    with fastps.ParameterServer({"w": np.zeros(2), "t": Table(1)}, rule=rule) as ps:
        ps.save(tmp_path / "first")
    with fastps.restore(tmp_path / "first") as ps:
        ps.save(tmp_path / "second")
    for name in ("first", "second"):
        fastps.restore(tmp_path / name, rule=rule).close()
