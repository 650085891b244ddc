"""``ps[name]`` and ``w[name]``."""

from __future__ import annotations

from typing import TypeVar

from fastps.client.array import ArrayHandle
from fastps.client.attach import Attachment
from fastps.errors import NamesError
from fastps.messages import few
from fastps.tables.reading import TableReading

Table = TypeVar("Table", bound=TableReading)


def handle_named(attachment: Attachment, name: str, table: type[Table]) -> Table | ArrayHandle:
    """The table, as a handle of this class, or the array of this name. Raises NamesError."""
    spec = attachment.spec
    if name in spec.table_names:
        return table(attachment, spec.table_names[name])
    for number, leaf in enumerate(spec.structure.leaves):
        if leaf.name == name:
            return ArrayHandle(attachment, number)
    raise NamesError(f"no array or table is called {name!r}; there are {few(spec.names)}")
