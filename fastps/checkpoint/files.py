"""The files of a checkpoint, written in one pass with checksums and read in place, and tensors in the format of
safetensors.

A file of tensors is eight bytes with the length of a header, the header as JSON, and the elements one after the other,
see https://huggingface.co/docs/safetensors. It is written here, not by that library, since the elements are in pieces
and are neither copied nor kept until all are there.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastps._core import crc32c
from fastps.arrays.types import Array
from fastps.checkpoint.remote import AnyPath
from fastps.errors import CheckpointError, FileError, MissingFileError

BLOCK_BYTES = 16 << 20  # each has a checksum
# The names of the format; what has none is written as bytes.
NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes
    ----------
    name : in the file
    dtype : the name of a numpy type
    shape : of its elements
    data : their bytes
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Array


@dataclass(frozen=True)
class File:
    """A file that was written.

    Attributes
    ----------
    name : in the directory of the checkpoint
    nbytes : its size
    checksums : CRC32C of each BLOCK_BYTES
    """

    name: str
    nbytes: int
    checksums: tuple[int, ...]


class NewFile:
    """A new file that is being written, for a ``with`` block; at its end, its bytes are on the disk, or in the remote
    file system.

    `write` and the ends of the block raise FileError.
    """

    def __init__(self, folder: AnyPath, name: str) -> None:
        self.name, self._target = name, folder / name
        self._checksums, self._filled, self._nbytes = list[int](), 0, 0
        self.closed = True

    def __enter__(self) -> NewFile:
        with self._writing():
            self._stream = _LocalStream(self._target) if isinstance(self._target, Path) else self._target.create()
        self.closed = False
        return self

    def write(self, data: Any) -> int:
        """Appends all bytes of an object with the buffer protocol, and returns how many."""
        view = memoryview(data).cast("B")
        nbytes = len(view)
        with self._writing():
            while len(view):
                if self._filled in (0, BLOCK_BYTES):
                    self._checksums.append(0)
                    self._filled = 0
                written = self._stream.write(view[: BLOCK_BYTES - self._filled])
                self._checksums[-1] = crc32c(view[:written], self._checksums[-1])
                self._filled, self._nbytes, view = self._filled + written, self._nbytes + written, view[written:]
        return nbytes

    def __exit__(self, kind: Any, *_: object) -> None:
        self.closed = True
        with self._writing():
            try:
                if kind is None:
                    self._stream.flush()
            finally:
                self._stream.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise error if isinstance(error, FileError) else unwritable(self._target, error) from error

    def written(self) -> File:
        """What was written, once the block has ended."""
        return File(self.name, self._nbytes, tuple(self._checksums))


class _LocalStream:
    """A new file of this machine, without a buffer. Its methods raise OSError."""

    def __init__(self, target: Path) -> None:
        self._fd = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)

    def write(self, data: memoryview) -> int:
        return os.write(self._fd, data)

    def flush(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def write_file(folder: AnyPath, name: str, chunks: Iterable[Any]) -> File:
    """Writes a new file of these bytes, and waits until they are on the disk. Raises FileError."""
    with NewFile(folder, name) as file:
        for chunk in chunks:
            file.write(chunk)
    return file.written()


def chunks_of(tensors: Sequence[Tensor]) -> tuple[list[Any], list[int]]:
    """What a file of these tensors consists of, and the byte in it where each of them begins."""
    header: dict[str, Any] = {"__metadata__": {"format": "np"}}
    begins, at = list[int](), 0
    for tensor in tensors:
        known, end = NAMES.get(tensor.dtype), at + tensor.data.nbytes
        shape = list(tensor.shape) if known else [tensor.data.nbytes]
        header[tensor.name] = {"dtype": known or "U8", "shape": shape, "data_offsets": [at, end]}
        begins.append(at)
        at = end
    packed = json.dumps(header, separators=(",", ":")).encode()
    packed += b" " * (-len(packed) % 8)
    head = struct.pack("<Q", len(packed)) + packed
    return [head, *(tensor.data for tensor in tensors)], [len(head) + begin for begin in begins]


def sync_folder(folder: Path) -> None:
    """Waits until the names in a directory are on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def opened(target: Path) -> IO[bytes]:
    """A file to read. In the place of a pipe it does not wait for who writes there."""
    return open(target, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))


def mapped(folder: AnyPath, file: File) -> Array:
    """The bytes of a file, of this machine read when they are used. Raises a FileError if it is not there, and
    CheckpointError if it has another size."""
    target = folder / file.name
    try:
        data = _mapped(target) if isinstance(target, Path) else target.data()
    except OSError as error:
        raise unreadable(target, error) from error
    if data.nbytes != file.nbytes:
        raise CheckpointError(
            f"{target}: expected {file.nbytes:,} bytes, got {data.nbytes:,}; it was damaged; use another checkpoint"
        )
    return data


def _mapped(target: Path) -> Array:
    with opened(target) as source:
        if os.fstat(source.fileno()).st_size == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ), np.uint8)


def verify(folder: AnyPath, file: File, data: Array, progress: Callable[[int], object] | None = None) -> None:
    """Raises CheckpointError unless all bytes are those that were written. `progress` is told of the bytes that are."""
    for number, expected in enumerate(file.checksums):
        start = number * BLOCK_BYTES
        block = data[start : start + BLOCK_BYTES]
        if crc32c(block) != expected:
            raise CheckpointError(
                f"{folder / file.name}: the bytes from {start:,} on are not those that were written; use another "
                f"checkpoint"
            )
        if progress is not None:
            progress(block.nbytes)


def unwritable(target: AnyPath, error: OSError) -> FileError:
    return FileError(
        error.errno,
        f"save: {str(target)!r} cannot be written ({reason_of(error)}); nothing was saved; pass a path in a directory "
        f"that exists, has space left, and is writable on the nodes of the shards",
    )


def unreadable(target: AnyPath, error: OSError) -> FileError:
    kind = MissingFileError if isinstance(error, FileNotFoundError) else FileError
    return kind(error.errno, f"{str(target)!r} cannot be read ({reason_of(error)}); pass a directory that save() made")


def reason_of(error: OSError) -> str:
    """That of the operating system, or the first line of another library's."""
    return error.strerror or (str(error).strip().splitlines() or [type(error).__name__])[0]
