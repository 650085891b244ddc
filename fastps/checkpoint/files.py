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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastps._core import crc32c
from fastps.arrays.types import Array
from fastps.errors import CheckpointError, FileError, MissingFileError, OptionError
from fastps.messages import brief

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


def path_of(path: Any, verb: str) -> Path:
    """The path that a user passes. Raises OptionError for what can be none."""
    try:
        found = os.path.abspath(os.fsdecode(path))
        if b"\0" not in os.fsencode(found):
            return Path(found)
    except (TypeError, UnicodeError):
        pass
    raise OptionError(f"{verb}: expected a path, got {type(path).__name__} {brief(path)}")


class NewFile:
    """A new file that is being written, for a ``with`` block; at its end, its bytes are on the disk.

    `write` and the ends of the block raise FileError.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self._target = name, folder / name
        self._checksums, self._filled, self._nbytes = list[int](), 0, 0
        self.closed = True

    def __enter__(self) -> NewFile:
        try:
            self._fd = os.open(self._target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise unwritable(self._target, error) from error
        self.closed = False
        return self

    def write(self, data: Any) -> int:
        """Appends all bytes of an object with the buffer protocol, and returns how many."""
        view = memoryview(data).cast("B")
        nbytes = len(view)
        try:
            while len(view):
                if self._filled in (0, BLOCK_BYTES):
                    self._checksums.append(0)
                    self._filled = 0
                written = os.write(self._fd, view[: BLOCK_BYTES - self._filled])
                self._checksums[-1] = crc32c(view[:written], self._checksums[-1])
                self._filled, self._nbytes, view = self._filled + written, self._nbytes + written, view[written:]
        except OSError as error:
            raise unwritable(self._target, error) from error
        return nbytes

    def __exit__(self, kind: Any, *_: object) -> None:
        self.closed = True
        try:
            try:
                if kind is None:
                    os.fsync(self._fd)
            finally:
                os.close(self._fd)
        except OSError as error:
            raise unwritable(self._target, error) from error

    def written(self) -> File:
        """What was written, once the block has ended."""
        return File(self.name, self._nbytes, tuple(self._checksums))


def write_file(folder: Path, name: str, chunks: Iterable[Any]) -> File:
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


def mapped(folder: Path, file: File) -> Array:
    """The bytes of a file, read when they are used. Raises a FileError if it is not there or has another size."""
    target = folder / file.name
    try:
        with opened(target) as source:
            nbytes = os.fstat(source.fileno()).st_size
            if nbytes != file.nbytes:
                raise CheckpointError(
                    f"{target}: expected {file.nbytes:,} bytes, got {nbytes:,}; it was damaged; use another checkpoint"
                )
            if nbytes == 0:
                return np.empty(0, np.uint8)
            return np.frombuffer(mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ), np.uint8)
    except OSError as error:
        raise unreadable(target, error) from error


def verify(folder: Path, file: File, data: Array, progress: Callable[[int], object] | None = None) -> None:
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


def unwritable(target: Path, error: OSError) -> FileError:
    return FileError(
        error.errno,
        f"save: {str(target)!r} cannot be written ({error.strerror}); nothing was saved; pass a path in a directory "
        f"that exists, has space left, and is writable on the nodes of the shards",
    )


def unreadable(target: Path, error: OSError) -> FileError:
    kind = MissingFileError if isinstance(error, FileNotFoundError) else FileError
    return kind(error.errno, f"{str(target)!r} cannot be read ({error.strerror}); pass a directory that save() made")
