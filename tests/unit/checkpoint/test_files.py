"""Files of tensors with checksums, and the manifest that lists them."""

import json
import os

import numpy as np
import pytest

from fastps.checkpoint import files
from fastps.checkpoint.files import File, Tensor, chunks_of, mapped, verify, write_file
from fastps.checkpoint.manifest import MOST_BYTES, NAME, Manifest, Piece, Rows
from fastps.errors import CheckpointError, FileError, MissingFileError


def tensors(rng):
    return [
        Tensor("params/w", "float32", (3, 5), rng.integers(0, 256, 60, np.uint8)),
        Tensor("params/none", "float64", (0, 2), np.empty(0, np.uint8)),
        Tensor("params/names", "str96", (2,), rng.integers(0, 256, 24, np.uint8)),
        Tensor("slots/m/w", "float64", (1000,), rng.integers(0, 256, 8000, np.uint8)),
    ]


def test_a_file_of_tensors_is_read_by_safetensors(tmp_path, rng):
    safetensors = pytest.importorskip("safetensors.numpy")
    wanted = tensors(rng)
    chunks, offsets = chunks_of(wanted)
    file = write_file(tmp_path, "a", chunks)
    found = safetensors.load_file(tmp_path / "a")
    assert found["params/w"].shape == (3, 5)
    assert found["params/none"].shape == (0, 2)
    data = mapped(tmp_path, file)
    for tensor, at in zip(wanted, offsets, strict=True):
        assert found[tensor.name].tobytes() == tensor.data.tobytes()
        assert data[at : at + tensor.data.nbytes].tobytes() == tensor.data.tobytes()
        assert at % 4 == 0
    verify(tmp_path, file, data)


@pytest.mark.parametrize("block", [1, 7, 64, 1000, 1 << 20])
def test_each_block_has_a_checksum_and_every_flipped_bit_is_found(tmp_path, rng, monkeypatch, block):
    monkeypatch.setattr(files, "BLOCK_BYTES", block)
    data = rng.integers(0, 256, 300, np.uint8)
    file = write_file(tmp_path, "a", [data[:1], data[1:1], data[1:130], data[130:]])
    assert (file.nbytes, len(file.checksums)) == (300, -(-300 // block))
    verify(tmp_path, file, mapped(tmp_path, file))
    for bit in range(0, 2400, 7):
        broken = data.copy()
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CheckpointError, match="not those that were written"):
            verify(tmp_path, file, broken)


def test_a_file_that_cannot_be_written_or_read_is_a_typed_error(tmp_path, monkeypatch):
    file = write_file(tmp_path, "a", [b"123"])
    with pytest.raises(FileError, match="File exists"):
        write_file(tmp_path, "a", [b"123"])
    with pytest.raises(FileError, match="nothing was saved"):
        write_file(tmp_path / "none", "a", [b""])
    with pytest.raises(MissingFileError):
        mapped(tmp_path / "none", file)
    with pytest.raises(CheckpointError, match="expected 4 bytes, got 3"):
        mapped(tmp_path, File("a", 4, ()))

    def full(fd, data):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(FileError, match="No space left"):
        write_file(tmp_path, "b", [b"123"])


def test_what_is_written_in_parts_is_whole(tmp_path, rng, monkeypatch):
    data, write = rng.integers(0, 256, 5000, np.uint8), os.write
    monkeypatch.setattr(os, "write", lambda fd, view: write(fd, view[:37]))
    file = write_file(tmp_path, "a", [data])
    assert (tmp_path / "a").read_bytes() == data.tobytes()
    verify(tmp_path, file, mapped(tmp_path, file))


def a_manifest():
    pieces = (Piece(0, 0, 0, 10, 0, 64, 80, 3), Piece(1, 0, 0, 10, 0, 144, 80, 3))
    files = (File("arrays", 224, (7,)), File("rows", 16, (9,)))
    return Manifest(
        "id", {"any": [1, None, "x"]}, ("m",), (3,), 12.5, files, pieces, (Rows(0, 0, (1,), (2,), (4,), (), 3, 5, 6),)
    )


def test_a_manifest_comes_back_and_json_reads_it(tmp_path):
    packed = a_manifest().packed()
    assert Manifest.unpack(packed, "here") == a_manifest()
    assert json.loads(packed)["server"] == {"any": [1, None, "x"]}
    (tmp_path / NAME).write_bytes(packed)
    assert Manifest.read(tmp_path) == a_manifest()
    with pytest.raises(MissingFileError):
        Manifest.read(tmp_path / "none")


def test_every_flipped_bit_and_every_cut_of_a_manifest_is_found():
    packed = a_manifest().packed()
    for bit in range(8 * len(packed)):
        broken = bytearray(packed)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CheckpointError):
            Manifest.unpack(bytes(broken), "here")
    for length in range(len(packed)):
        with pytest.raises(CheckpointError):
            Manifest.unpack(packed[:length], "here")
    with pytest.raises(CheckpointError):
        Manifest.unpack(packed + b" ", "here")


def changed(**fields):
    """A manifest with a right checksum, and wrong content."""
    manifest = a_manifest()
    for name, value in fields.items():
        object.__setattr__(manifest, name, value)
    return manifest.packed()


@pytest.mark.parametrize(
    "fields",
    [
        {"server": []}, {"slots": ("m", 3)}, {"slots": "m"}, {"versions": (-1,)}, {"versions": (True,)}, {"created": 3},
        {"files": (File("../arrays", 224, (7,)),)}, {"files": (File("/etc/passwd", 224, (7,)),)},
        {"files": (File("..", 224, (7,)),)}, {"files": (File("", 224, (7,)),)}, {"files": (File(NAME, 224, (7,)),)},
        {"files": (File("a\0b", 224, (7,)),)}, {"files": (File("arrays", 224, ()),)},
        {"files": (File("arrays", 223, (7,)),)}, {"files": (File("arrays", -1, (7,)),)},
        {"files": (File("arrays", 224, (7,)),) * 2}, {"files": (File(3, 224, (7,)),)},
        {"pieces": (Piece(2, 0, 0, 10, 0, 64, 80, 3),)}, {"pieces": (Piece(0, 0, 0, 10, 2, 64, 80, 3),)},
        {"pieces": (Piece(0, 0, 0, 10, 0, 145, 80, 3),)}, {"pieces": (Piece(0, 0, 0, 10, 0, -1, 80, 3),)},
        {"rows": (Rows(0, 1, (1,), (2,), (4,), (), 3, 5, 6),)}, {"rows": (Rows(0, 0, (2,), (2,), (4,), (), 3, 5, 6),)},
        {"rows": (Rows(-1, 0, (1,), (2,), (4,), (), 3, 5, 6),)}, {"rows": (Rows(0, 0, (), (), (), (), 3, 5, 6),)},
        {"rows": (Rows(0, 0, (1,), (2, 3), (4,), (), 3, 5, 6),)},
        {"rows": (Rows(0, 0, (1,), (2,), (4,), (9,), 3, 5, 6),)},
        {"rows": (Rows(0, 0, (1,), (2,), (4,), (0, 1), 3, 5, 6),)},
        {"rows": (Rows(0, 0, (1,), (2,), (4,), (), "3", 5, 6),)},
        {"rows": (Rows(0, 0, 1, (2,), (4,), (), 3, 5, 6),)}, {"server_id": 3},
        {"pieces": (Piece(0, "0", 0, 10, 0, 64, 80, 3),)}, {"pieces": (Piece(0, 0, 0, 10, 0, 64, 2**63, 3),)},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_that_says_what_cannot_be_is_refused(fields):
    with pytest.raises(CheckpointError):
        Manifest.unpack(changed(**fields), "here")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"null", b"3", b"[" * 100_000, b"\xff", b'{"checksum": 0}'])
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(CheckpointError):
        Manifest.unpack(text, "here")


def test_a_manifest_of_any_size_is_not_read_beyond_a_limit(tmp_path):
    with (tmp_path / NAME).open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(CheckpointError, match="more than"):
        Manifest.read(tmp_path)
    assert MOST_BYTES < 1 << 30
