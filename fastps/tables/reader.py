"""The table of a reader."""

from __future__ import annotations

from typing import Any

from fastps.arrays.types import Array
from fastps.client.refusal import HANDLE, refuses, verbs_of
from fastps.tables.handle import TableHandle
from fastps.tables.reading import TableReading

HINTS = {
    "pull": f"a pull creates rows, and a reader none; read with peek(keys), or {HANDLE}",
    "pull_async": f"a pull creates rows, and a reader none; read with peek_async(keys), or {HANDLE}",
}


@refuses(verbs_of(TableHandle), HINTS)
class TableReader(TableReading):
    """A table of a `Reader`. It has what reads: `peek` and `peek_async`, `view` of rows that exist, `contains`,
    `activity`, ``len(t)``, ``key in t``, `keys`, `items`, `to_arrow`, `export`, `nearest`, `initial`, `hyper`, `stats`.

    Every other verb of a `TableHandle` raises ReadOnlyError, `pull` too, since it creates rows. Like a `TableHandle` it
    can be sent to Ray tasks and actors, where it is a reader too, and used by any number of threads.
    """

    def view(self, keys: Any) -> list[Array]:
        """Read-only arrays on the rows themselves, one per key, without a copy, as `TableHandle.view` gives them.

        Raises KeysError for keys without a row, of which none is created, and SplitError when shards are on other
        nodes. Cost: microseconds per row.
        """
        return self._session.views(self._keys(keys, "view"), False)

    def __repr__(self) -> str:
        return f"<reader of {super().__repr__()[1:]}"
