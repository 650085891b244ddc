"""Directories that are no checkpoint, or a damaged one, are refused with a typed error that says what to do. Nothing is
started, and nothing in them is changed."""

import os
import shutil

import numpy as np
import pytest
import ray

import fastps
from fastps.checkpoint.load import load
from fastps.checkpoint.manifest import NAME
from fastps.errors import ArenaMemoryError, CheckpointError, FileError, MissingFileError, OptionError, RuleError
from fastps.machine import capacity
from fastps.server import restore as restoring
from tests.support.two_shards import PARAMS, change, write_checkpoint

FIRST, SECOND = "arrays-00000-00000.safetensors", "arrays-00000-00001.safetensors"


@pytest.fixture
def folder(tmp_path):
    return write_checkpoint(tmp_path / "saved")


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch):
    def start(*arguments, **options):
        raise AssertionError("a server was created")

    monkeypatch.setattr(restoring, "ParameterServer", start)
    yield
    assert not ray.is_initialized()


def contents(folder):
    return {
        path.name: (path.stat().st_size, path.read_bytes() if path.stat().st_size < 1 << 20 else b"")
        for path in folder.iterdir()
        if path.is_file()
    }


def require_refused(folder, error, match, **options):
    before = contents(folder) if folder.is_dir() else None
    with pytest.raises(error, match=match):
        fastps.restore(folder, **options)
    assert before == (contents(folder) if folder.is_dir() else None)


def test_what_these_tests_damage_is_whole(folder):
    found = load(folder)
    assert sorted(os.listdir(folder)) == [FIRST, SECOND, NAME]
    for leaf, array in zip(found.state.structure.leaves, found.state.arrays, strict=True):
        assert np.array_equal(array.view(leaf.given).reshape(leaf.shape), PARAMS[leaf.name])
    with pytest.raises(AssertionError, match="a server was created"):
        fastps.restore(folder)


@pytest.mark.parametrize(
    ("damage", "error", "match"),
    [
        (lambda f: (f / FIRST).unlink(), MissingFileError, r"pass a directory that save\(\) made"),
        (lambda f: (f / NAME).unlink(), CheckpointError, r"pass what save\(\) has made"),
        (shutil.rmtree, MissingFileError, r"pass a directory that save\(\) made"),
        (lambda f: os.truncate(f / FIRST, 100), CheckpointError, "damaged; use another checkpoint"),
        (lambda f: os.truncate(f / FIRST, 0), CheckpointError, "damaged; use another checkpoint"),
        (lambda f: os.truncate(f / FIRST, 10 << 30), CheckpointError, "damaged; use another checkpoint"),
        (lambda f: os.truncate(f / NAME, 10), CheckpointError, "no manifest of a checkpoint"),
        (lambda f: os.truncate(f / NAME, 0), CheckpointError, "no manifest of a checkpoint"),
        (lambda f: os.truncate(f / NAME, 10 << 30), CheckpointError, "none of fastps"),
        (lambda f: swap(f / FIRST, f / SECOND), CheckpointError, "use another checkpoint"),
        (lambda f: swap(f / FIRST, f / NAME), CheckpointError, "no manifest of a checkpoint"),
        (lambda f: replaced(f / FIRST, os.mkdir), FileError, r"pass a directory that save\(\) made"),
        (lambda f: replaced(f / NAME, os.mkdir), FileError, r"pass a directory that save\(\) made"),
        (lambda f: replaced(f / FIRST, os.mkfifo), CheckpointError, "use another checkpoint"),
        (lambda f: replaced(f / NAME, os.mkfifo), CheckpointError, "no manifest of a checkpoint"),
        (lambda f: replaced(f / FIRST, lambda path: os.symlink(path, path)), FileError, "pass a directory"),
        (lambda f: replaced(f / FIRST, lambda path: os.symlink("/dev/zero", path)), CheckpointError, "use another"),
    ],
    ids=range(17),
)
def test_a_damaged_directory_is_refused(folder, damage, error, match):
    damage(folder)
    require_refused(folder, error, match)


def swap(one, other):
    one.rename(one.with_name("third"))
    other.rename(one)
    one.with_name("third").rename(other)


def replaced(path, make):
    path.unlink()
    make(path)


def test_the_manifest_of_another_checkpoint_is_refused(folder, tmp_path):
    other = write_checkpoint(tmp_path / "other", {**PARAMS, "w": PARAMS["w"] + 1})
    swap(folder / NAME, other / NAME)
    for one in (folder, other):
        require_refused(one, CheckpointError, "not those that were written")


@pytest.mark.parametrize("name", ["../x", "..", ".", "", "/etc/passwd", "a/b", "a\\b", "a\0b", NAME, SECOND, 3, None])
def test_a_file_that_is_not_in_the_directory_is_not_read(folder, name):
    (folder.parent / "x").write_bytes((folder / FIRST).read_bytes())
    change(folder, lambda content: content["files"][0].update(name=name))
    require_refused(folder, CheckpointError, str(folder))


@pytest.mark.parametrize("which", [0, -1])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nbytes", lambda n: n - 1), ("nbytes", lambda n: n + 8), ("nbytes", lambda n: -n), ("nbytes", float),
        ("nbytes", lambda n: 2**62), ("count", lambda n: n + 1), ("count", lambda n: 2**62), ("count", lambda n: 0),
        ("start", lambda n: n + 1), ("start", lambda n: 2**63), ("start", lambda n: -1), ("offset", lambda n: 2**62),
        ("offset", lambda n: -8), ("file", lambda n: 2), ("file", lambda n: -1), ("leaf", lambda n: 3),
        ("leaf", lambda n: 2**62), ("stream", lambda n: 3), ("step", lambda n: -1), ("step", lambda n: True),
        ("step", str), ("start", lambda n: None), ("count", lambda n: [n]),
    ],
    ids=range(23),
)  # fmt: skip
def test_a_piece_that_does_not_fit_is_refused(folder, which, field, value):
    def edit(content):
        piece = content["pieces"][which]
        piece[field] = value(piece[field])

    change(folder, edit)
    require_refused(folder, CheckpointError, str(folder))


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content["pieces"].pop(),
        lambda content: content["pieces"].append(content["pieces"][0]),
        lambda content: content["pieces"].clear(),
        lambda content: content["files"].pop(),
        lambda content: content["files"].append(content["files"][0]),
        lambda content: content["files"].clear(),
        lambda content: content["files"][0].update(nbytes=8),
        lambda content: content["files"][0].update(nbytes=2**62),
        lambda content: content["files"][0].update(checksums=[]),
        lambda content: content["files"][0]["checksums"].append(0),
        lambda content: content["slots"].pop(),
        lambda content: content["versions"].append("3"),
        lambda content: content["server"].pop("structure"),
        lambda content: content["server"]["structure"]["leaves"].pop(),
        lambda content: content["server"]["structure"]["leaves"][0].update(shape=[4001]),
        lambda content: content["server"]["structure"]["leaves"][0].update(shape=[2**47, 2**47]),
        lambda content: content["server"]["structure"]["leaves"][0].update(stored="float32"),
        lambda content: content["server"].update(structure=None),
    ],
    ids=range(18),
)
def test_a_manifest_that_contradicts_itself_is_refused(folder, edit):
    change(folder, edit)
    require_refused(folder, CheckpointError, None)


@pytest.mark.parametrize("part", ["rules", "gradients", "consistency"])
@pytest.mark.parametrize("value", [None, 3, [], {}, [3], "x", [{"pattern": 3}]], ids=str)
def test_a_server_that_cannot_be_is_refused(folder, part, value):
    change(folder, lambda content: content["server"].update({part: value}))
    require_refused(folder, (CheckpointError, RuleError), None)


@pytest.mark.parametrize(("field", "value"), [("version", 2), ("version", 0), ("version", "1"), ("format", "another")])
def test_another_format_is_refused(folder, field, value):
    change(folder, lambda content: content.update({field: value}))
    require_refused(folder, CheckpointError, "read it with the fastps that wrote it")


@pytest.mark.parametrize("rule", [fastps.SGD(0.1), {"w": fastps.Adam(0.5), "*": fastps.SGD(0.1)}], ids=str)
def test_a_rule_that_is_not_the_one_that_was_saved_is_refused(folder, rule):
    require_refused(folder, RuleError, "restore: ", rule=rule)


def test_a_directory_that_is_being_written_is_refused(folder):
    (folder / NAME).unlink()
    hidden = folder.rename(folder.with_name(".saved-0123456789ab"))
    require_refused(hidden, CheckpointError, r"pass what save\(\) has made")
    require_refused(folder, MissingFileError, r"pass a directory that save\(\) made")


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (3.5, OptionError), (None, OptionError), (["a"], OptionError), ("a\0b", OptionError), (b"a\0b", OptionError),
        ("\ud800", OptionError), ("x" * 300, FileError), ("/" + "x/" * 3000, FileError), ("", CheckpointError),
        ("/dev/null", FileError), (b"/no/such", MissingFileError),
    ],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_path_of_a_directory_is_refused(path, error):
    with pytest.raises(error, match=r"expected a path|pass (a directory|what)"):
        fastps.restore(path)


def test_arrays_that_the_memory_does_not_hold_are_refused_before_they_are_put_together(folder, monkeypatch):
    needed = 3 * (PARAMS["w"].nbytes + PARAMS["b"].nbytes) + PARAMS["n"].nbytes
    monkeypatch.setattr(capacity, "available_bytes", lambda: needed - 1)
    require_refused(folder, ArenaMemoryError, "restore.*available on this machine; use more nodes")
    monkeypatch.setattr(capacity, "available_bytes", lambda: needed)
    load(folder)
