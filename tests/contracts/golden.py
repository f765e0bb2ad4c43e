"""The golden queries: what must be found, what must not, what must come first."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Golden(msgspec.Struct, frozen=True):
    """One query. Keys are those of `corpus.written()`; `nothing_else`: what must be found is all."""

    query: str
    found: tuple[str, ...]
    never: tuple[str, ...]
    first: tuple[str, ...]
    nothing_else: bool


def golden() -> list[Golden]:
    """The queries of golden.txt, in order."""
    lines = Path(__file__).with_suffix(".txt").read_text().splitlines()
    return [_read(line) for line in lines if line and not line.startswith("#")]


def _read(line: str) -> Golden:
    query, found, never, first = (part.strip() for part in line.split("|"))
    return Golden(query, _keys(found), _keys(never.replace("*", "")), _keys(first), never == "*")


def _keys(text: str) -> tuple[str, ...]:
    return tuple(key.strip() for key in text.split(",") if key.strip())
