"""From the hash of a file on somebody's disk to the version that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from storage.postgres.connection import Query, load_statements, many
from storage.postgres.policy.policy import viewing, with_clauses
from storage.records.policy.viewers import Viewer

SQL = with_clauses(load_statements(__file__))


class HashMatch(msgspec.Struct, frozen=True, kw_only=True):
    """The version that a hash names. Whether the viewer may see it is not checked."""

    hash: str
    version_id: int
    model_id: int


def lookup(hashes: Sequence[str], viewer: Viewer) -> Query[list[HashMatch]]:
    """What hashes of any kind and case name; unknown ones are left out."""
    wanted = sorted({text.strip().upper() for text in hashes})
    return many(SQL["lookup"], {"hashes": wanted, **viewing(viewer)}, HashMatch)
