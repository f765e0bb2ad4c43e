"""Keys: small power, hashed, revocable. Links: one path until one moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from storage.records.accounts.accounts import ApiKey, Scope, make_key, split_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_key(**changes: Any) -> tuple[ApiKey, str]:
    new = make_key()
    fields: dict[str, Any] = {
        "id": new.id,
        "account_id": uuid4(),
        "name": "test",
        "secret_hash": new.secret_hash,
        "scopes": (Scope.JOBS_READ.value, "made-up:scope"),
        "created_at": NOW,
        "expires_at": None,
        "revoked_at": None,
    }
    return ApiKey(**(fields | changes)), new.text.split("_")[2]


def test_a_key_works_with_its_own_secret_only() -> None:
    key, secret = a_key()
    assert key.works(secret, NOW)
    assert not key.works(a_key()[1], NOW)
    assert secret not in repr(key)


def test_a_revoked_or_expired_key_does_not_work() -> None:
    revoked, secret = a_key(revoked_at=NOW)
    assert not revoked.works(secret, NOW)
    expiring, secret = a_key(expires_at=NOW)
    assert expiring.works(secret, NOW - timedelta(seconds=1))
    assert not expiring.works(secret, NOW)


def test_only_written_scopes_allow() -> None:
    key, _ = a_key()
    assert [scope for scope in Scope if key.allows(scope)] == [Scope.JOBS_READ]


@pytest.mark.parametrize("text", ["", "drk", "drk__x", "drk_x_", "abc_x_y", "drk_a_b_c"])
def test_what_does_not_look_like_a_key_is_none(text: str) -> None:
    assert split_key(text) is None
