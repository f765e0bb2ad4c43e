"""Pictures that generations go on from: sent by an account, and known to that account alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from storage.postgres.connection import Query, column, load_statements, maybe, one
from storage.records.generation.resolved_drawings import SourcePicture

SQL = load_statements(__file__)


class SentPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture as it is kept: a PNG by the SHA-256 of its bytes, which are `size`, and its pixels."""

    account_id: UUID
    sha256: str
    width: int
    height: int
    size: int
    created_at: datetime
    used_at: datetime


def add(account_id: UUID, sha256: str, size: int, width: int, height: int) -> Query[SentPicture]:
    """Keep a picture whose bytes are stored; the same one again is the same. Behind `quotas.hold`."""
    row = {"account_id": account_id, "sha256": sha256, "size": size, "width": width, "height": height}
    return one(SQL["add"], row, SentPicture, "the picture")


def find(account_id: UUID, hashes: Sequence[str]) -> Query[dict[str, SourcePicture]]:
    """Those of these pictures that the account has sent or drawn, or that a workflow of it which has not ended goes on
    from, by their hashes; none drawn with a model that was taken down. They stay until the transaction ends."""
    return Query(
        SQL["find"],
        {"account_id": account_id, "hashes": list(dict.fromkeys(hashes))},
        lambda rows: {row["sha256"]: SourcePicture(row["sha256"], row["width"], row["height"]) for row in rows},
    )


def of_account(account_id: UUID, sha256: str) -> Query[SentPicture | None]:
    """A picture that the account sent."""
    return maybe(SQL["of_account"], {"account_id": account_id, "sha256": sha256}, SentPicture)


def delete(account_id: UUID, sha256: str) -> Query[list[str]]:
    """Forget a picture; returns its hash if there was one. Its bytes are swept when nothing else names them: workflows
    that go on from it do until they have ended."""
    return column(SQL["delete"], {"account_id": account_id, "sha256": sha256}, str)
