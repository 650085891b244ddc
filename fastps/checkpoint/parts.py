"""The files of the shards of one node, as they are written: new ones, or links to those of an earlier checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from fastps.checkpoint.earlier import Earlier
from fastps.checkpoint.files import File, chunks_of, write_file
from fastps.checkpoint.manifest import Piece, Rows
from fastps.checkpoint.remote import AnyPath
from fastps.checkpoint.snapshot import Part
from fastps.transport.shm import Rows as Table

FILE_BYTES = 64 << 20  # of arrays; what is larger, an array or a slot of it, has a file of its own
MARGIN_TICKS = 16 * 60  # a minute


class Files:
    """What is written of a node.

    Parameters
    ----------
    folder : where to
    node : its number
    earlier : the checkpoint with which files are shared
    progress : told of the bytes of each file that is written

    Attributes
    ----------
    files : in the order of their numbers
    pieces : of the arrays
    rows : of the tables
    """

    def __init__(self, folder: AnyPath, node: int, earlier: Earlier | None, progress: Callable[[int], object]) -> None:
        self._folder, self._node, self._earlier, self._progress = folder, node, earlier, progress
        self.files, self.pieces, self.rows = list[File](), list[Piece](), list[Rows]()

    def write_arrays(self, parts: Sequence[Part]) -> None:
        """Raises FileError."""
        for some in _together(parts):
            chunks, offsets = chunks_of([part.tensor for part in some])
            name = self._name("arrays", "safetensors")
            same = None if self._earlier is None else self._earlier.same(chunks)
            linked = self._earlier.link(same, self._folder, name) if self._earlier and same else None
            number = self._add_link(linked) if linked else self._add(write_file(self._folder, name, chunks))
            self.pieces += [
                Piece(
                    part.stream, part.place.leaf, part.place.start, part.place.count, number, offset,
                    part.tensor.data.nbytes, part.step,
                )
                for part, offset in zip(some, offsets, strict=True)
            ]  # fmt: skip

    def write_rows(
        self, server_id: str, table: Table, number: int, shard: int, start: tuple[int, int, int, int], deadline: float
    ) -> None:
        """The rows of a table on a shard: all, or those that have changed since the earlier checkpoint. `start` is of
        its `begin_scan`."""
        from fastps.checkpoint.tables import write_changes, write_rows  # loads pyarrow

        epoch, now, step, removed = start
        earlier = None if self._earlier is None else self._earlier.rows(server_id, number, shard)
        links = [] if earlier is None else self._links(earlier)
        if earlier is None or len(links) < len(earlier.files):
            file, count = write_rows(self._folder, self._name("rows", "arrow"), table, shard, now, deadline)
            self.rows.append(Rows(number, shard, (self._add(file),), (count,), (now,), (), step, epoch, removed))
            return
        tick = max(0, earlier.nows[-1] - MARGIN_TICKS)  # a pull records a use with the time at which it began
        name, keys_name = self._name("rows", "arrow"), self._name("keys", "arrow")
        file, keys, count = write_changes(
            self._folder, name, keys_name, table, shard, now, earlier.epoch, tick, deadline
        )
        files, kept = (*links, self._add(file)), list[int]()
        if table.counters(shard)["evicted"] != earlier.removed:
            kept.append(self._add(keys))
        else:  # every row of the files before is still there
            os.unlink(f"{self._folder}/{keys_name}")
        self.rows.append(
            replace(
                earlier, files=files, counts=(*earlier.counts, count), nows=(*earlier.nows, now), kept=tuple(kept),
                step=step, epoch=epoch,
            )
        )  # fmt: skip

    def _links(self, earlier: Rows) -> list[int]:
        """The numbers of the files of an earlier checkpoint, here; fewer if one cannot have another name."""
        assert self._earlier is not None
        links = []
        for number in earlier.files:
            linked = self._earlier.link(self._earlier.manifest.files[number], self._folder, self._name("rows", "arrow"))
            if linked is None:
                break
            links.append(self._add_link(linked))
        return links

    def _name(self, kind: str, suffix: str) -> str:
        return f"{kind}-{self._node:05}-{len(self.files):05}.{suffix}"

    def _add(self, file: File) -> int:
        self._progress(file.nbytes)
        return self._add_link(file)

    def _add_link(self, file: File) -> int:
        self.files.append(file)
        return len(self.files) - 1


def _together(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """The parts of each file: all streams of an array one after the other, those with large elements first, so that all
    of them are aligned."""
    some, nbytes = list[Part](), 0
    for part in sorted(parts, key=lambda part: (-part.item_bytes, part.place.leaf, part.place.start, part.stream)):
        if some and nbytes + part.tensor.data.nbytes > FILE_BYTES:
            yield some
            some, nbytes = [], 0
        some.append(part)
        nbytes += part.tensor.data.nbytes
    if some:
        yield some


def moved(rows: Rows, by: int) -> Rows:
    """The same where the numbers of files begin later."""
    return replace(
        rows, files=tuple(number + by for number in rows.files), kept=tuple(number + by for number in rows.kept)
    )
