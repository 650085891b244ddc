"""``ps[name]`` and ``w[name]``."""

from __future__ import annotations

from typing import TypeVar

from fastps.client.array import ArrayHandle
from fastps.client.attach import Attachment
from fastps.errors import NamesError
from fastps.messages import few
from fastps.tables.reading import TableReading

Table = TypeVar("Table", bound=TableReading)


def handle_named(
    attachment: Attachment, name: str, table: type[Table], array: type[ArrayHandle] = ArrayHandle
) -> Table | ArrayHandle:
    """The table or the array of this name, as a handle of the class for it. Raises NamesError."""
    spec = attachment.spec
    if name in spec.table_names:
        return table(attachment, spec.table_names[name])
    for number, leaf in enumerate(spec.structure.leaves):
        if leaf.name == name:
            return array(attachment, number)
    raise NamesError(f"no array or table is called {name!r}; there are {few(spec.names)}")
