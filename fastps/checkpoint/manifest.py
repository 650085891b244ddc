"""`manifest.json`: what a checkpoint consists of. It is written last, so a directory that has one is complete.

It is text that `json` reads, and always the same text for the same content: a manifest of which a single bit was
changed is another text than that of its content, or its content has another checksum.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from fastps._core import crc32c
from fastps.checkpoint.files import BLOCK_BYTES, File, opened, unreadable
from fastps.checkpoint.remote import AnyPath
from fastps.errors import CheckpointError
from fastps.messages import brief

NAME = "manifest.json"
FORMAT, VERSION = "fastps checkpoint", 1
MOST_BYTES = 256 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """Elements of one stream of one array, in a file.

    Attributes
    ----------
    stream : 0 for the parameters, from 1 the slots in their order
    leaf : the number of the array
    start, count : elements of the flattened array; bytes of one that is carried
    file, offset, nbytes : where they are
    step : the update count of the array
    """

    stream: int
    leaf: int
    start: int
    count: int
    file: int
    offset: int
    nbytes: int
    step: int


@dataclass(frozen=True)
class Rows:
    """The rows of one table on one shard.

    Attributes
    ----------
    table : its number among the tables of the server
    shard : that had them
    files : where they are: all rows, then those that have changed since, and so on
    counts : how many in each of the files
    nows : for each of the files, the time in the table's ticks when it was written
    kept : a file with the keys that had a row when the last file was written, if some had none any more; or empty
    step : the update count of the table on this shard
    epoch, removed : of the scan that read them, and of rows when the first file was written; for the next increment
    """

    table: int
    shard: int
    files: tuple[int, ...]
    counts: tuple[int, ...]
    nows: tuple[int, ...]
    kept: tuple[int, ...]
    step: int
    epoch: int
    removed: int


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of.

    Attributes
    ----------
    server_id : of the server
    server : what it is a checkpoint of, see `described`
    slots : the names of the slots
    versions : of the shards that were saved
    created : seconds since 1970
    files : those of the directory
    pieces : of the arrays
    rows : of the tables
    """

    server_id: str
    server: dict[str, Any]
    slots: tuple[str, ...]
    versions: tuple[int, ...]
    created: float
    files: tuple[File, ...]
    pieces: tuple[Piece, ...]
    rows: tuple[Rows, ...]

    def packed(self) -> bytes:
        content = {"format": FORMAT, "version": VERSION, **{f.name: getattr(self, f.name) for f in fields(self)}}
        for name in ("files", "pieces", "rows"):
            content[name] = [asdict(one) for one in getattr(self, name)]
        return _text(content | {"checksum": crc32c(_text(content))})

    @classmethod
    def read(cls, folder: AnyPath) -> Manifest:
        """That of a directory.

        Raises
        ------
        MissingFileError, FileError
            There is none, or it cannot be read.
        CheckpointError
            It was damaged, is of another version, or names files outside of the directory.
        """
        target = folder / NAME
        try:
            if isinstance(target, Path):
                with opened(target) as file:
                    data = file.read(MOST_BYTES + 1)
            else:
                data = target.data(MOST_BYTES + 1).tobytes()
        except OSError as error:
            raise unreadable(target, error) from error
        if len(data) > MOST_BYTES:
            raise CheckpointError(f"{target}: a manifest of more than {MOST_BYTES:,} bytes; it is none of fastps")
        return cls.unpack(data, str(target))

    @classmethod
    def unpack(cls, data: bytes, where: str) -> Manifest:
        try:
            content = json.loads(data)
            whole = dict(content)
            checksum = whole.pop("checksum")
            same = _text(content) == data and checksum == crc32c(_text(whole))
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            raise CheckpointError(f"{where}: it is no manifest of a checkpoint ({brief(error)})") from error
        if whole.get("format") != FORMAT or whole.get("version") != VERSION:
            raise CheckpointError(
                f"{where}: expected the format {FORMAT!r} {VERSION}, got {brief(whole.get('format'))} "
                f"{brief(whole.get('version'))}; read it with the fastps that wrote it"
            )
        if not same:
            raise CheckpointError(f"{where}: it was changed after it was written; use another checkpoint")
        return cls._checked(whole, where)

    @classmethod
    def _checked(cls, content: dict[str, Any], where: str) -> Manifest:
        server, slots, versions = content.get("server"), content.get("slots"), content.get("versions")
        if type(server) is not dict or not _is_list_of(slots, str) or not _are_counts(versions):
            raise CheckpointError(f"{where}: expected a server, names of slots and versions")
        assert slots is not None
        assert versions is not None
        if type(content.get("created")) is not float or type(content.get("server_id")) is not str:
            raise CheckpointError(f"{where}: expected the id of the server, and the time when it was created")
        files, pieces = _all(File, content.get("files"), where), _all(Piece, content.get("pieces"), where)
        for file in files:
            blocks = -(-file.nbytes // BLOCK_BYTES) if _are_counts([file.nbytes]) else -1
            if not _is_name(file.name) or not _are_counts(file.checksums) or len(file.checksums) != blocks:
                raise CheckpointError(f"{where}: expected the name, size and checksums of a file, got {brief(file)}")
        if len({file.name for file in files}) != len(files):
            raise CheckpointError(f"{where}: two files have the same name")
        for piece in pieces:
            numbers = list(asdict(piece).values())
            if not _are_counts(numbers) or piece.file >= len(files) or piece.stream > len(slots):
                raise CheckpointError(f"{where}: expected a piece of an array in a file, got {brief(piece)}")
            if piece.offset + piece.nbytes > files[piece.file].nbytes:
                raise CheckpointError(f"{where}: {brief(piece)} is not inside of its file")
        rows = _all(Rows, content.get("rows"), where)
        for one in rows:
            if not _are_rows(one, len(files), len(versions)):
                raise CheckpointError(f"{where}: expected the rows of a table in files, got {brief(one)}")
        return cls(content["server_id"], server, tuple(slots), tuple(versions), content["created"], files, pieces, rows)


def _text(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1, allow_nan=False).encode()


def _all(kind: type[T], values: Any, where: str) -> tuple[T, ...]:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if type(values) is not list or any(type(value) is not dict or set(value) != names for value in values):
        raise CheckpointError(f"{where}: expected {kind.__name__.lower()}s with {', '.join(sorted(names))}")
    return tuple(kind(**{k: tuple(v) if type(v) is list else v for k, v in value.items()}) for value in values)


def _is_list_of(values: Any, kind: type) -> bool:
    return type(values) is list and all(type(value) is kind for value in values)


def _are_counts(values: Any) -> bool:
    is_sequence = isinstance(values, Sequence) and not isinstance(values, str)
    return is_sequence and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _are_rows(rows: Rows, n_files: int, n_shards: int) -> bool:
    numbers = [rows.table, rows.shard, rows.step, rows.epoch, rows.removed]
    if not all(map(_are_counts, (numbers, rows.files, rows.counts, rows.nows, rows.kept))) or not rows.files:
        return False
    if not len(rows.files) == len(rows.counts) == len(rows.nows) or len(rows.kept) > 1 or rows.shard >= n_shards:
        return False
    return max(*rows.files, *rows.kept) < n_files if rows.kept else max(rows.files) < n_files


def _is_name(name: Any) -> bool:
    """Whether it is the name of a file in the directory itself."""
    return type(name) is str and name not in ("", ".", "..", NAME) and not set(name) & {"/", "\\", "\0"}
