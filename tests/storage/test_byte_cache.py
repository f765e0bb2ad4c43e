"""What is kept in memory: bytes are counted, the least recently used goes first, the too large is never kept."""

from __future__ import annotations

from storage.byte_cache import ByteCache


def a_cache() -> ByteCache[str, bytes]:
    """Ten bytes of room."""
    return ByteCache(10, len)


def test_the_least_recently_used_is_dropped_first() -> None:
    cache = a_cache()
    for name in "abc":
        cache.keep(name, b"xxx")
    assert cache["a"] == b"xxx"
    cache.keep("d", b"xxx")
    assert list(cache) == ["a", "c", "d"]
    assert cache.currsize == 9


def test_a_value_that_is_replaced_is_counted_once() -> None:
    cache = a_cache()
    for size in (3, 8, 2):
        cache.keep("a", b"x" * size)
    cache.keep("b", b"x" * 8)
    assert (cache["a"], cache.currsize) == (b"xx", 10)


def test_a_value_larger_than_the_cache_is_not_kept_nor_is_the_one_before_it() -> None:
    cache = a_cache()
    cache.keep("a", b"old")
    cache.keep("b", b"other")
    cache.keep("a", b"x" * 11)
    assert dict(cache) == {"b": b"other"}
