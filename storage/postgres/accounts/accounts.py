"""Accounts and API keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from storage.errors import AccountBanned, NotFound, QuotaExceeded, Unauthenticated
from storage.postgres.connection import Query, Rows, Script, as_record, column, load_statements, many, maybe, one
from storage.records.accounts.accounts import MAX_KEYS, Account, ApiKey, Creator, NewKey, Role, Scope

SQL = load_statements(__file__)


def owner() -> Query[Account]:
    """The account that the first start made. Reading raises NotFound before that."""
    return one(SQL["owner"], {}, Account, "There is no owner account yet. Run: darkroom up")


def ensure_account(name: str, role: Role = Role.CREATOR) -> Query[Account]:
    """The account of this name, made with this role when it is new."""
    return one(SQL["ensure_account"], {"name": name, "role": role}, Account, "the account")


def account(account_id: UUID) -> Query[Account]:
    """An account. Reading raises NotFound."""
    return one(SQL["account"], {"id": account_id}, Account, "the account")


def users(
    *, name: str | None = None, number: int | None = None, numbers: Sequence[int] | None = None
) -> Query[list[Account]]:
    """The accounts of a name in any case, of a number, or of some numbers; of all that are given."""
    return many(SQL["users"], {"name": name, "number": number, "numbers": numbers and list(numbers)}, Account)


def accounts(ids: Iterable[UUID]) -> Query[dict[UUID, Account]]:
    """Some accounts by their ids."""
    parameters = {"ids": list(ids)}
    return Query(SQL["accounts_by_id"], parameters, lambda rows: {row["id"]: as_record(Account, row) for row in rows})


def find_users(query: str, limit: int) -> Query[list[Account]]:
    """Active accounts whose name begins with `query`, by name."""
    return many(SQL["find_users"], {"query": query, "limit": limit}, Account)


def creators(query: str | None, *, offset: int, limit: int) -> Query[list[Creator]]:
    """A page of those who have listed models and whose name begins with `query`."""
    return many(SQL["creators"], {"query": query, "offset": offset, "limit": limit}, Creator)


def creators_by_number(numbers: Sequence[int]) -> Query[list[Creator]]:
    """Those who have listed models, in the order of their accounts' numbers as given."""
    return many(SQL["creators_by_number"], {"numbers": list(numbers)}, Creator)


def count_creators(query: str | None) -> Query[list[int]]:
    """How many there are, as the only number of a list."""
    return column(SQL["count_creators"], {"query": query}, int)


def make_key(
    account_id: UUID,
    key: NewKey,
    name: str,
    scopes: Sequence[Scope],
    expires_at: datetime | None = None,
    *,
    made_by: str | None = None,
) -> Script[ApiKey]:
    """A new key of an account; `made_by` is the id of the key that asks, None for an operator.

    Raises QuotaExceeded when MAX_KEYS of the account work already, Unauthenticated when the key that asks was revoked
    meanwhile.
    """
    yield from column(SQL["hold_account"], {"id": account_id}, UUID)
    asked = {"account_id": account_id, "asking": made_by}
    found = yield from Query(SQL["working_keys"], asked, lambda rows: rows[0])
    if made_by is not None and not found["asking_works"]:
        raise Unauthenticated("The API key was revoked meanwhile. Nothing was made.")
    if found["working"] >= MAX_KEYS:
        raise QuotaExceeded(f"{found['working']} keys of this account work; the limit is {MAX_KEYS}. Revoke one first.")
    return (yield from add_key(account_id, key, name, scopes, expires_at, made_by=made_by))


def add_key(
    account_id: UUID,
    key: NewKey,
    name: str,
    scopes: Sequence[Scope],
    expires_at: datetime | None = None,
    *,
    made_by: str | None = None,
) -> Query[ApiKey]:
    """Store a key's hash and scopes, however many there are."""
    parameters = {
        "id": key.id,
        "account_id": account_id,
        "name": name,
        "secret_hash": key.secret_hash,
        "scopes": [scope.value for scope in scopes],
        "expires_at": expires_at,
        "made_by": made_by,
    }
    return one(SQL["add_key"], parameters, ApiKey, "the new key")


def key(key_id: str) -> Query[ApiKey | None]:
    """A key by its id, revoked and expired ones too."""
    return maybe(SQL["key"], {"id": key_id}, ApiKey)


def authenticate(key_id: str) -> Query[tuple[ApiKey, Account] | None]:
    """A key by its id with its account, revoked and expired keys and banned accounts too."""

    def read(rows: Rows) -> tuple[ApiKey, Account] | None:
        return (as_record(ApiKey, rows[0]), as_record(Account, rows[0]["account"])) if rows else None

    return Query(SQL["authenticate"], {"id": key_id}, read)


def not_working(key_ids: Sequence[str]) -> Query[dict[str, str]]:
    """Those of some keys that do not work any more: why, by id."""
    return Query(SQL["not_working"], {"ids": list(key_ids)}, lambda rows: {row["id"]: row["reason"] for row in rows})


def check_works(key_id: str) -> Script[None]:
    """Raises Unauthenticated when a key does not work any more, AccountBanned when its account is banned."""
    reason = (yield from not_working([key_id])).get(key_id)
    if reason == "account_banned":
        raise AccountBanned("The account was banned meanwhile. Nothing was kept.")
    if reason is not None:
        raise Unauthenticated("The API key was revoked or has expired meanwhile. Nothing was kept.")


def keys() -> Query[list[ApiKey]]:
    """Every key, oldest first."""
    return many(SQL["keys"], {}, ApiKey)


def note_used(times: Mapping[str, datetime]) -> Query[list[str]]:
    """When keys were used, by their ids; returns those whose row says so now: at most once a minute each."""
    return column(SQL["note_used"], {"ids": list(times), "times": list(times.values())}, str)


def revoke_key(key_id: str, account_id: UUID | None = None) -> Script[list[ApiKey]]:
    """Make a key, what it made, what that made and so on stop working with the next request; returns them, it first.

    Raises NotFound, also for a key that is not `account_id`'s.
    """
    found = yield from key(key_id)
    if found is None or account_id not in (None, found.account_id):
        raise NotFound(f"You have no key '{key_id}'." if account_id else f"No key '{key_id}'. See: darkroom key list")
    # As in make_key: otherwise the key that is revoked could make another one while its own row is being written.
    yield from column(SQL["hold_account"], {"id": found.account_id}, UUID)
    return (yield from many(SQL["revoke_key"], {"id": key_id}, ApiKey))


def keys_of(account_id: UUID, *, before: tuple[datetime, str] | None, limit: int) -> Query[list[ApiKey]]:
    """A page of an account's keys, newest first; `before` is when the last one of the page before was made, and its
    id."""
    at, key_id = before or (None, None)
    parameters = {"account_id": account_id, "before": at, "before_id": key_id, "limit": limit}
    return many(SQL["keys_of"], parameters, ApiKey)


def user(number: int) -> Query[Account]:
    """The account of a number. Reading raises NotFound."""
    return one(SQL["user"], {"number": number}, Account, f"No user {number}.")


def ban(account: Account, reason: str) -> Query[Account]:
    """Make an account's keys and models work no more; `reason` is what its owner reads."""
    return one(SQL["ban"], {"id": account.id, "reason": reason}, Account, f"No user {account.number}.")


def lift_ban(account: Account) -> Query[Account]:
    """Undo a ban: keys work and models are shown again."""
    return one(SQL["lift_ban"], {"id": account.id}, Account, f"No user {account.number}.")
