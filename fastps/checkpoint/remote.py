"""A directory of a remote file system, by `pyarrow.fs`: what checkpoints need of a path, with the names of `pathlib`.

There nothing can be renamed at once, so a checkpoint is written in place, and is complete when its manifest is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fastps.arrays.types import Array
from fastps.errors import FileError, OptionError
from fastps.messages import brief


class RemotePath:
    """A path such as "s3://bucket/run/step-1". Its methods raise OSError.

    Parameters
    ----------
    uri : as `pyarrow.fs.FileSystem.from_uri` takes it
    """

    def __init__(self, uri: str) -> None:
        scheme, _, rest = uri.partition("://")
        self._uri = f"{scheme}://{rest.rstrip('/')}"

    @cached_property
    def _at(self) -> tuple[Any, str]:
        """The file system, and the path in it."""
        import pyarrow as pa
        from pyarrow import fs

        try:
            system, path = fs.FileSystem.from_uri(self._uri)
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise FileError(
                getattr(error, "errno", None),
                f"{self._uri!r} cannot be reached ({reason}); pass a path of this machine, or a URI that pyarrow.fs "
                f"knows, such as s3://, gs:// or hdfs://",
            ) from error
        return system, path

    def _type(self) -> Any:
        system, path = self._at
        return system.get_file_info(path).type

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePath, (self._uri,)

    def __str__(self) -> str:
        return self._uri

    def __repr__(self) -> str:
        return f"RemotePath({self._uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(other) == self._uri

    def __hash__(self) -> int:
        return hash(self._uri)

    def __lt__(self, other: RemotePath) -> bool:
        return self._uri < str(other)

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self._uri}/{name}")

    @property
    def name(self) -> str:
        return self._uri.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self._uri.rpartition("/")[0])

    def exists(self) -> bool:
        from pyarrow import fs

        return bool(self._type() != fs.FileType.NotFound)

    def is_dir(self) -> bool:
        from pyarrow import fs

        return bool(self._type() == fs.FileType.Directory)

    def iterdir(self) -> Iterator[RemotePath]:
        from pyarrow import fs

        system, path = self._at
        return (self / found.base_name for found in system.get_file_info(fs.FileSelector(path)))

    def make(self) -> None:
        """Makes the directory, and those above it."""
        system, path = self._at
        system.create_dir(path, recursive=True)

    def create(self) -> Any:
        """A stream into a new file, which is there when it is closed."""
        system, path = self._at
        return system.open_output_stream(path)

    def data(self, most: int | None = None) -> Array:
        """The bytes of the file, or the first of them."""
        system, path = self._at
        with system.open_input_file(path) as file:
            return np.frombuffer(file.read_buffer(most), np.uint8)

    def remove(self) -> None:
        """Removes a directory: first its manifest, so that it is no checkpoint any more."""
        system, path = self._at
        if (self / "manifest.json").exists():
            system.delete_file(f"{path}/manifest.json")
        system.delete_dir(path)


AnyPath: TypeAlias = Path | RemotePath


def path_of(path: Any, verb: str) -> AnyPath:
    """The path that a user passes; text with "://" is a URI. Raises OptionError for what can be none."""
    if isinstance(path, RemotePath):
        return path
    try:
        text = os.fsdecode(path)
        if b"\0" not in os.fsencode(text):
            return RemotePath(text) if "://" in text else Path(os.path.abspath(text))
    except (TypeError, UnicodeError):
        pass
    raise OptionError(f"{verb}: expected a path, got {type(path).__name__} {brief(path)}")
