"""A handle of a server that only reads."""

from __future__ import annotations

from typing import Any

from fastps.client.array import ArrayReader
from fastps.client.attach import Attachment
from fastps.client.refusal import refuses, verbs_of
from fastps.server.reading import ServerReading
from fastps.server.verbs import ArrayVerbs
from fastps.spec.server import ServerSpec
from fastps.tables.named import handle_named
from fastps.tables.reader import TableReader


@refuses(
    verbs_of(ArrayVerbs) | {"close", "configure", "remote"},
    {"close": "a reader ends nothing; the program that created the server ends it, with close() of its own handle"},
)
class Reader(ServerReading):
    """A handle of a server that only reads: what `ParameterServer.reader` returns.

    It has `pull` and `pull_async`, `flush`, `view`, `slots`, `steps`, `state_dict`, `save`, `save_every`, `hyper`,
    `versions`, `stats`, and the names, arrays and tables of the server; its tables are readers too
    (`fastps.TableReader`). All other verbs of a `ParameterServer` and a `TableHandle` raise ReadOnlyError. It travels
    as a `ParameterServer` does, and arrives as a reader.

    This is a guard against mistakes: it keeps a program that evaluates or serves a model from changing it. It is no
    protection against code that wants to change the server: a process that can read the server can also write to it.

    Its verbs are those of the handle that made it, with the same errors and cost. Where that handle is closed, so are
    its readers in the same process; after the server's end they raise ClosedError or ShardDiedError. Under `BSP` no
    verb needs a worker's session; reading may apply a round that has closed, as any handle does.

    Examples
    --------
    >>> import numpy as np, fastps
    >>> with fastps.ParameterServer(np.zeros(3, np.float32)) as ps:  # doctest: +SKIP
    ...     reader = ps.reader()
    ...     reader.pull()
    array([0., 0., 0.], dtype=float32)
    """

    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.attachment,)

    def __getitem__(self, name: str) -> Any:
        """The table or the array of this name: a `TableReader` or an `ArrayReader`."""
        return handle_named(self.attachment, name, TableReader, ArrayReader)

    @property
    def table(self) -> TableReader:
        """The only table. Raises NamesError if there are several, or none."""
        return TableReader(self.attachment, self._only_table())

    def reader(self) -> Reader:
        """Itself."""
        return self


def reader_of(spec: ServerSpec) -> Reader:
    """A reader."""
    return Reader(Attachment(spec))
