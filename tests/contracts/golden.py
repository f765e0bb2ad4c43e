"""The golden queries of each kind: what must be found, what must not, what must come first."""

from __future__ import annotations

from pathlib import Path

import msgspec

from storage.records.search.search import Kind

FILES = {Kind.MODEL: "golden.txt", Kind.IMAGE: "golden_images.txt", Kind.CREATOR: "golden_creators.txt"}


class Golden(msgspec.Struct, frozen=True):
    """One query. Keys are those of the corpus of its kind; `nothing_else`: what must be found is all."""

    kind: Kind
    query: str
    found: tuple[str, ...]
    never: tuple[str, ...]
    first: tuple[str, ...]
    nothing_else: bool


def golden(kind: Kind) -> list[Golden]:
    """The queries of a kind, in the order of their file."""
    lines = Path(__file__).with_name(FILES[kind]).read_text().splitlines()
    return [_read(kind, line) for line in lines if line and not line.startswith("#")]


def _read(kind: Kind, line: str) -> Golden:
    query, found, never, first = (part.strip() for part in line.split("|"))
    return Golden(kind, query, _keys(found), _keys(never.replace("*", "")), _keys(first), never == "*")


def _keys(text: str) -> tuple[str, ...]:
    return tuple(key.strip() for key in text.split(",") if key.strip())
