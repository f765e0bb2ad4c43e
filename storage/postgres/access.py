"""Accounts and API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from storage.postgres.connection import Query, load_statements, many, maybe, one
from storage.records.access import Account, ApiKey, NewKey, Role, Scope

SQL = load_statements(__file__)


def owner() -> Query[Account]:
    """The account that the first start made. Reading raises NotFound before that."""
    return one(SQL["owner"], {}, Account, "There is no owner account yet. Run: darkroom up")


def ensure_account(name: str, role: Role = Role.CREATOR) -> Query[Account]:
    """The account of this name, made with this role when it is new."""
    return one(SQL["ensure_account"], {"name": name, "role": role}, Account, "the account")


def add_key(
    account_id: UUID, key: NewKey, name: str, scopes: Sequence[Scope], expires_at: datetime | None = None
) -> Query[ApiKey]:
    """Store a key's hash and scopes."""
    parameters = {
        "id": key.id,
        "account_id": account_id,
        "name": name,
        "secret_hash": key.secret_hash,
        "scopes": [scope.value for scope in scopes],
        "expires_at": expires_at,
    }
    return one(SQL["add_key"], parameters, ApiKey, "the new key")


def key(key_id: str) -> Query[ApiKey | None]:
    """A key by its id, revoked and expired ones too."""
    return maybe(SQL["key"], {"id": key_id}, ApiKey)


def keys() -> Query[list[ApiKey]]:
    """Every key, oldest first."""
    return many(SQL["keys"], {}, ApiKey)


def revoke_key(key_id: str) -> Query[ApiKey]:
    """Make a key stop working with the next request. Reading raises NotFound."""
    return one(SQL["revoke_key"], {"id": key_id}, ApiKey, f"No key '{key_id}'. List them with: darkroom key list")
