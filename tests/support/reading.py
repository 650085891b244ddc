"""What a reader has to do, verb by verb. Here, and not in the tests, so that workers load no test library."""

from __future__ import annotations

import numpy as np

import fastps
from fastps.client.refusal import verbs_of
from tests.support.waiting import GUARD_SECONDS

KEYS, ROWS = [3, 1, 2], np.array([[3, 3], [1, 1], [0, 0]], np.float32)  # 2 has no row
ONES = {"w": np.ones(3)}
PUSHES = 4  # of the array and of the table, on each of the shards


def finds_no_folder(save):
    try:
        save()
    except fastps.FileError:
        return True
    return False


# By verb, a call, and whether its answer is right.
SERVER = {
    "pull": lambda r: r.pull()["w"].tolist() == [1, 1, 1],
    "pull_async": lambda r: r.pull_async().result(GUARD_SECONDS)["w"].tolist() == [1, 1, 1],
    "flush": lambda r: r.flush() is None,
    "slots": lambda r: r.slots("velocity")["w"].tolist() == [-1, -1, -1],
    "steps": lambda r: r.steps() == {"w": 1},
    "state_dict": lambda r: r.state_dict()["w"].tolist() == [1, 1, 1],
    "hyper": lambda r: r.hyper["*"]["lr"] == 1.0,
    "versions": lambda r: r.versions == (1, 1),
    "stats": lambda r: r.stats().total["pushes"] == PUSHES,
    "save": lambda r: finds_no_folder(lambda: r.save("/proc/no/such/folder")),
    "save_every": lambda r: finds_no_folder(lambda: r.save_every("/proc/no/such/folder", steps=1)),
    "name": lambda r: r.name is None,
    "num_shards": lambda r: r.num_shards == 2,
    "node_ids": lambda r: len(r.node_ids) == 2,
    "table": lambda r: type(r.table) is fastps.TableReader,
    "reader": lambda r: r.reader() is r,
}
HERE = {"view": lambda r: sum(piece.array.sum() for piece in r.view().pieces) == 3}  # where the shards are
TABLE = {
    "peek": lambda t: np.array_equal(t.peek(KEYS), ROWS),
    "peek_async": lambda t: np.array_equal(t.peek_async(KEYS).result(GUARD_SECONDS), ROWS),
    "contains": lambda t: t.contains(KEYS).tolist() == [True, True, False],
    "activity": lambda t: t.activity(KEYS)[1].tolist() == [1, 1, 0],
    "keys": lambda t: sorted(np.concatenate(list(t.keys()))) == [1, 3],
    "items": lambda t: sum(len(keys) for keys, _ in t.items()) == 2,
    "to_arrow": lambda t: t.to_arrow().num_rows == 2,
    "nearest": lambda t: t.nearest([1, 1], 2, metric="dot")[0].tolist() == [3, 1],
    "initial": lambda t: not t.initial(KEYS).any(),
    "hyper": lambda t: t.hyper == {},
    "stats": lambda t: sum(shard.rows for shard in t.stats()) == 2,
    "name": lambda t: t.name == "t",
    "dim": lambda t: t.dim == 2,
    "dtype": lambda t: t.dtype == "float32",
}
TABLE_HERE = {"view": lambda t: [row.tolist() for row in t.view(KEYS[:2])] == [[3, 3], [1, 1]]}

REFUSED = verbs_of(fastps.ParameterServer) - SERVER.keys() - HERE.keys()
TABLE_REFUSED = verbs_of(fastps.TableHandle) - TABLE.keys() - TABLE_HERE.keys() - {"export"}


def export(path, table):
    return table.export(path / "rows.parquet") == 2


def wrong(calls, target):
    """Which of the calls do not answer what they should."""
    return [verb for verb, call in calls.items() if not call(target)]


def not_refused(verbs, target):
    """By verb that raises no ReadOnlyError with its name, what it does instead."""
    others = {}
    for verb in verbs:
        for arguments in ((), (KEYS, ROWS), (ONES,)):
            try:
                others[verb] = getattr(target, verb)(*arguments)
            except Exception as error:
                if type(error) is not fastps.ReadOnlyError or not str(error).startswith(f"{verb}: "):
                    others[verb] = error
    return others


def faults(reader):
    """Everything that a reader does not do as it should, on any node."""
    table = reader["t"]
    return [
        *wrong(SERVER, reader), *wrong(TABLE, table),
        *not_refused(REFUSED, reader), *not_refused(TABLE_REFUSED, table),
    ]  # fmt: skip
