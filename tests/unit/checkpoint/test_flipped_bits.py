"""Every bit of a manifest and of the headers of the files, and random ones of the data, are found when they flip."""

import os
import struct

import numpy as np
import pytest
import ray

import fastps
from fastps.checkpoint.load import load
from fastps.checkpoint.manifest import NAME
from fastps.errors import CheckpointError
from fastps.server import restore as restoring
from tests.support.extent import short_or_long
from tests.support.two_shards import write_checkpoint


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch):
    def start(*arguments, **options):
        raise AssertionError("a server was created")

    monkeypatch.setattr(restoring, "ParameterServer", start)
    yield
    assert not ray.is_initialized()


def require_found(folder, name, bits):
    """Flips one bit after the other, where it lies."""
    with open(folder / name, "r+b", buffering=0) as file:
        for bit in bits:
            byte = os.pread(file.fileno(), 1, bit // 8)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 1 << bit % 8]), bit // 8)
            with pytest.raises(CheckpointError) as found:
                fastps.restore(folder)
            assert str(folder / name) in str(found.value)
            os.pwrite(file.fileno(), byte, bit // 8)
    load(folder)


def files_of(folder):
    return sorted(name for name in os.listdir(folder) if name != NAME)


def header_bytes(path):
    return 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]


def test_every_flipped_bit_of_a_manifest_is_found(tmp_path):
    folder = write_checkpoint(tmp_path / "saved", short_or_long({"w": np.arange(5.0)}, {"w": np.arange(5.0), "n": 3}))
    require_found(folder, NAME, range(8 * (folder / NAME).stat().st_size))


def test_every_flipped_bit_of_the_headers_is_found(tmp_path):
    folder = write_checkpoint(tmp_path / "saved")
    for name in files_of(folder):
        require_found(folder, name, range(8 * header_bytes(folder / name)))


def test_flipped_bits_of_the_data_are_found(tmp_path, rng):
    folder = write_checkpoint(tmp_path / "saved")
    names = files_of(folder)
    for name in names:
        start, end = header_bytes(folder / name), (folder / name).stat().st_size
        bits = rng.integers(8 * start, 8 * end, 1000 // len(names)).tolist()
        require_found(folder, name, [*bits, 8 * start, 8 * end - 1])


def test_flipped_bits_of_each_block_of_a_large_file_are_found(tmp_path, rng):
    folder = write_checkpoint(tmp_path / "saved", {"w": rng.normal(size=short_or_long(1_000_000, 9_000_000))})
    for name in files_of(folder):
        end = (folder / name).stat().st_size
        edges = [8 * at + bit for at in range(16 << 20, end, 16 << 20) for bit in (-1, 0)]
        require_found(folder, name, [*edges, 8 * end - 1, *rng.integers(0, 8 * end, 5).tolist()])
