"""Idempotency-Keys of requests that make no job: the first response is kept, and a repeat gets it again.

A key belongs to its account, whatever it was used for: jobs keep theirs in the same table.
"""

from __future__ import annotations

from uuid import UUID

from storage.errors import IdempotencyKeyReused
from storage.postgres.connection import Query, Script, count, load_statements

SQL = load_statements(__file__)


def is_used(account_id: UUID, key: str | None) -> Query[bool]:
    """Whether a key came with an earlier request that was carried out."""
    return Query(SQL["recall"], {"account_id": account_id, "key": key}, bool)


def once(account_id: UUID, key: str | None, request_hash: str, make: Script[str]) -> Script[str]:
    """The response that `make` returns, or the one that was kept when the key was first used. Without a key:
    always a new one.

    What is made and that it was made are committed together. Raises IdempotencyKeyReused when the key came with
    another request, and whatever `make` raises: then the key is free again.
    """
    if key is None:
        return (yield from make)
    parameters = {"account_id": account_id, "key": key, "request_hash": request_hash}
    # Recorded before it is made: a second request with the key waits here for the first one's commit, and makes
    # nothing.
    if not (yield from count(SQL["reserve"], parameters)):
        first = yield from Query(SQL["recall"], parameters, lambda rows: rows[0])
        if first["request_hash"] != request_hash:
            raise IdempotencyKeyReused(
                f"Idempotency-Key '{key}' was used for a different request. Use a new key for a new request."
            )
        return str(first["response"])
    response = yield from make
    yield from count(SQL["keep"], {**parameters, "response": response})
    return response
