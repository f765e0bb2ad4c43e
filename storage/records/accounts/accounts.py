"""Who somebody is and what their key allows: accounts, API keys, scopes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

KEY_PREFIX = "drk"
MAX_KEYS = 100
"""Keys of one account that work at the same time."""


class Scope(StrEnum):
    """One thing a key allows."""

    DATA_SETS_READ = "data-sets:read"
    DATA_SETS_WRITE = "data-sets:write"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    SOCIAL_READ = "social:read"
    SOCIAL_WRITE = "social:write"
    ACTIVITY_READ = "activity:read"
    ACTIVITY_WRITE = "activity:write"
    NOTIFICATIONS_READ = "notifications:read"
    NOTIFICATIONS_WRITE = "notifications:write"


class Role(StrEnum):
    """What an account may do: read, publish what is its own, or keep order among everybody's."""

    READER = "reader"
    CREATOR = "creator"
    MODERATOR = "moderator"


class AccountStatus(StrEnum):
    """Whether an account's keys work and its models are shown."""

    ACTIVE = "active"
    BANNED = "banned"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An owner of data sets, jobs and models; a user, to the catalogue. `number` is its id for Civitai's clients,
    `name` its username, `image` the address of its picture."""

    id: UUID
    number: int
    name: str
    role: Role
    status: AccountStatus
    ban_reason: str | None
    image: str | None
    created_at: datetime


class Creator(msgspec.Struct, frozen=True, kw_only=True):
    """An account with how many listed models it has."""

    number: int
    name: str
    image: str | None
    models: int


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as stored: never its secret, only the SHA-256 of it. `made_by` is the id of the key that made it, None for
    an operator's; `maker_revoked` says that it, or the maker of that one and so on, is revoked."""

    id: str
    account_id: UUID
    name: str
    secret_hash: bytes
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    made_by: str | None = None
    last_used_at: datetime | None = None
    maker_revoked: bool = False

    def allows(self, scope: Scope) -> bool:
        """Whether the key carries the scope. Words that are no scope allow nothing."""
        return scope.value in self.scopes

    def works(self, secret: str, now: datetime) -> bool:
        """Whether `secret` belongs to this key, no maker of it is revoked, and it is neither revoked nor expired."""
        # In constant time, so that responses do not reveal how much of a guess was right.
        matches = hmac.compare_digest(self.secret_hash, hash_secret(secret))
        revoked = self.maker_revoked or self.revoked_at is not None
        return matches and not revoked and (self.expires_at is None or self.expires_at > now)


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key just made. `text` is shown once and kept nowhere."""

    id: str
    text: str
    secret_hash: bytes


def make_key() -> NewKey:
    """A new key: `drk_<id>_<secret>` with 48 bits of id and 256 bits of secret."""
    identity, secret = secrets.token_hex(6), secrets.token_hex(32)
    return NewKey(id=identity, text=f"{KEY_PREFIX}_{identity}_{secret}", secret_hash=hash_secret(secret))


def split_key(text: str) -> tuple[str, str] | None:
    """The id and the secret of a key's text, or None when it does not look like one."""
    parts = text.split("_")
    if len(parts) != 3 or parts[0] != KEY_PREFIX or not parts[1] or not parts[2]:
        return None
    return parts[1], parts[2]


def hash_secret(secret: str) -> bytes:
    """SHA-256 of a secret (32 bytes). The secret has 256 random bits, so no salt or stretching is needed."""
    return hashlib.sha256(secret.encode()).digest()
