"""What is computed once and kept, up to a size."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Bounded(Generic[Key, Value]):
    """Values by key. When the next one would exceed a bound, all are dropped; one that is larger than the bound is
    alone. Threads: any number; two may compute the same value.

    Attributes
    ----------
    most : values
    most_size : of all values together, in the caller's unit
    size : of the values that are kept
    """

    def __init__(self, most: int, most_size: int) -> None:
        self.most, self.most_size, self.size = most, most_size, 0
        self._kept: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        return self._kept.get(key)

    def keep(self, key: Key, value: Value, size: int) -> Value:
        """Keeps a value. Returns it."""
        if len(self._kept) >= self.most or self.size + size > self.most_size:
            self._kept, self.size = {}, 0
        self._kept[key] = value
        self.size += size
        return value

    def __len__(self) -> int:
        return len(self._kept)
