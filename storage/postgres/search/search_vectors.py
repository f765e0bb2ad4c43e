"""Vectors of texts, keyed by the encoder and the SHA-256 of the text. A text is encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from storage.postgres.connection import Query, load_statements

SQL = load_statements(__file__)


def known(encoder: str, hashes: Sequence[bytes]) -> Query[dict[bytes, bytes]]:
    """The vectors that are there (float32, little-endian), by text hash."""
    parameters = {"encoder": encoder, "hashes": list(hashes)}
    return Query(SQL["known"], parameters, lambda rows: {row["text_hash"]: row["vector"] for row in rows}, binary=True)


def add(encoder: str, vectors: Mapping[bytes, bytes]) -> Query[int]:
    """Record vectors by text hash; returns how many are new."""
    parameters = {"encoder": encoder, "hashes": list(vectors), "vectors": list(vectors.values())}
    return Query(SQL["add"], parameters, len)
