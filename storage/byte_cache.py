"""Values kept in this process up to a number of bytes, the least recently used dropped first."""

from __future__ import annotations

from typing import TypeVar

from cachetools import LRUCache

Key = TypeVar("Key")
Value = TypeVar("Value")


class ByteCache(LRUCache[Key, Value]):
    """cachetools' LRU cache, made with `maxsize` and `getsizeof` in bytes. Not for several threads at once.

    Write to it with `keep`: an assignment raises ValueError for a value larger than the whole cache.
    """

    def keep(self, key: Key, value: Value) -> None:
        """Keep a value. One larger than the whole cache is not kept; the value it was to replace is dropped too."""
        # First: if the new value does not fit, the old one must not be given out as if it were still true.
        self.pop(key, None)
        if self.getsizeof(value) <= self.maxsize:
            self[key] = value
