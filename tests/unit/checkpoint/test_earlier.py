"""Files that are shared with an earlier checkpoint."""

from __future__ import annotations

import os

import numpy as np
import pytest

from fastps.checkpoint import earlier, parts
from fastps.checkpoint.earlier import Earlier, checksums
from fastps.checkpoint.files import Tensor, write_file
from fastps.checkpoint.manifest import NAME, Manifest, Rows
from fastps.checkpoint.parts import Files, moved
from fastps.checkpoint.snapshot import Part
from fastps.errors import CheckpointError, FileError, MissingFileError
from fastps.transport.layout import Place


def a_part(leaf, stream, data, item_bytes=4):
    tensor = Tensor(f"{stream}/{leaf}", "uint8", data.shape, data)
    return Part(stream, Place(0, 0, data.nbytes, leaf, 0, data.nbytes // item_bytes), 1, item_bytes, tensor)


def saved(folder, node_parts, **fields):
    """A checkpoint of these parts, as a manifest and its files."""
    folder.mkdir()
    files = Files(folder, 0, None, int)
    files.write_arrays(node_parts)
    whole = Manifest("server", {}, ("m",), (1,), 1.0, tuple(files.files), tuple(files.pieces), fields.get("rows", ()))
    (folder / NAME).write_bytes(whole.packed())
    return whole


def test_checksums_are_those_of_the_file(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(earlier, "BLOCK_BYTES", 100)
    monkeypatch.setattr("fastps.checkpoint.files.BLOCK_BYTES", 100)
    chunks = [rng.integers(0, 256, n, np.uint8) for n in (0, 1, 99, 100, 101, 350)]
    assert checksums(chunks) == write_file(tmp_path, "a", chunks).checksums


def test_files_that_are_the_same_are_shared(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(parts, "FILE_BYTES", 1000)
    arrays = [a_part(leaf, stream, rng.integers(0, 256, 400, np.uint8)) for leaf in range(4) for stream in range(2)]
    first = saved(tmp_path / "first", arrays)
    assert len(first.files) == 4  # parameters and slots of an array together
    arrays[5] = a_part(2, 1, rng.integers(0, 256, 400, np.uint8))
    (tmp_path / "second").mkdir()
    files = Files(tmp_path / "second", 0, Earlier(tmp_path / "first"), int)
    files.write_arrays(arrays)
    same = [
        os.path.samefile(tmp_path / "first" / old.name, tmp_path / "second" / new.name)
        for old, new in zip(first.files, files.files, strict=True)
    ]
    assert same == [True, True, False, True]
    assert tuple(files.pieces) == first.pieces


def test_a_file_that_was_damaged_meanwhile_is_written_anew(tmp_path, rng):
    arrays = [a_part(0, 0, rng.integers(0, 256, 400, np.uint8))]
    first = saved(tmp_path / "first", arrays)
    old = tmp_path / "first" / first.files[0].name
    data = bytearray(old.read_bytes())
    data[-1] ^= 1
    for content in (bytes(data), bytes(data[:-1]), None):
        if content is None:
            old.unlink()
        else:
            old.write_bytes(content)
        folder = tmp_path / f"with-{content is None or len(content)}"
        folder.mkdir()
        files = Files(folder, 0, Earlier(tmp_path / "first"), int)
        files.write_arrays(arrays)
        assert not old.exists() or not os.path.samefile(old, folder / files.files[0].name)
        assert files.files[0].checksums == first.files[0].checksums


def test_links_that_cannot_be_made(tmp_path, rng, monkeypatch):
    arrays = [a_part(0, 0, rng.integers(0, 256, 400, np.uint8))]
    saved(tmp_path / "first", arrays)
    (tmp_path / "second").mkdir()
    files = Files(tmp_path / "second", 0, Earlier(tmp_path / "first"), int)

    def refuse(code):
        def link(*_):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "link", link)

    refuse(18)
    with pytest.raises(FileError, match=r"no hard link.*without since="):
        files.write_arrays(arrays)
    refuse(31)  # as many as there can be
    files.write_arrays(arrays)
    assert (tmp_path / "second" / files.files[0].name).exists()


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(MissingFileError):
        Earlier(tmp_path)
    (tmp_path / NAME).write_bytes(b"{}")
    with pytest.raises(CheckpointError):
        Earlier(tmp_path)


def test_increments_of_rows_end_when_they_are_many_or_of_another_server(tmp_path):
    for name, n, counts in [("few", 2, (10, 10)), ("many", 16, (10, *[0] * 15)), ("large", 3, (10, 6, 5))]:
        (tmp_path / f"{name}-files").mkdir()
        files = tuple(write_file(tmp_path / f"{name}-files", f"f{i}", []) for i in range(n))
        whole = Manifest(
            "server", {}, (), (1,), 1.0, files, (), (Rows(0, 0, tuple(range(n)), counts, counts, (), 1, 1, 0),)
        )
        (tmp_path / f"{name}-files" / NAME).write_bytes(whole.packed())
    few, many, large = (Earlier(tmp_path / f"{name}-files") for name in ("few", "many", "large"))
    assert few.rows("server", 0, 0) is not None
    assert few.rows("other", 0, 0) is None
    assert few.rows("server", 1, 0) is None
    assert many.rows("server", 0, 0) is None
    assert large.rows("server", 0, 0) is None


def test_numbers_of_files_are_moved():
    assert moved(Rows(0, 0, (0, 2), (1, 1), (1, 2), (3,), 1, 1, 0), 5) == Rows(
        0, 0, (5, 7), (1, 1), (1, 2), (8,), 1, 1, 0
    )
