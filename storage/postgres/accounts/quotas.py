"""What an account may still bring: looked up under its row's lock, so that all that come at once stay within it."""

from __future__ import annotations

from uuid import UUID

from storage.postgres.connection import Query, Script, column, count, load_statements, many, one
from storage.records.accounts.quotas import Limits, NamedUsage, Usage, UsageByKind, check_quota

_STATEMENTS = {**load_statements(__file__)}
_OF_ACCOUNT = _STATEMENTS.pop("of_account")
SQL = {name: statement.replace("{of_account}", _OF_ACCOUNT) for name, statement in _STATEMENTS.items()}


def usage(account_id: UUID, *, but: UUID | None = None) -> Query[Usage]:
    """What an account holds and has begun to send, without the reservation `but`."""
    return one(SQL["usage"], {"account_id": account_id, "but": but}, Usage, "the account's usage")


def kinds(account_id: UUID) -> Query[UsageByKind]:
    """What an account holds, by kind. It reads every row of the account: for /me, not for each submission."""
    return one(SQL["kinds"], {"account_id": account_id}, UsageByKind, "the account's usage")


def largest(limit: int) -> Query[list[NamedUsage]]:
    """The accounts that hold most."""
    return many(SQL["largest"], {"limit": limit, "but": None}, NamedUsage)


def forget_released(seconds: float) -> Query[int]:
    """What was deleted so long ago counts no more: the sweep has deleted its bytes."""
    return count(SQL["forget_released"], {"seconds": seconds})


def hold(
    account_id: UUID, limits: Limits, *, adding: int = 0, uploads: int = 0, but: UUID | None = None
) -> Script[None]:
    """Look whether so much more fits, and lock what the decision depends on until the transaction ends.

    It is the last lock that a transaction takes before it writes what it asked for. Raises QuotaExceeded.
    """
    parameters = {"account_id": account_id}
    if not (yield from column(SQL["hold"], parameters, int)):
        # In a statement of its own: "for no key update" finds no row to lock for an account that has held nothing so
        # far.
        yield from column(SQL["hold_first"], parameters, int)
    check_quota((yield from usage(account_id, but=but)), limits, adding=adding, uploads=uploads)


def reserve(reservation: UUID, account_id: UUID, limits: Limits, size: int) -> Script[None]:
    """Let a request bring `size` bytes in all. Raises QuotaExceeded; then what it had reserved before stays."""
    yield from hold(account_id, limits, adding=size, but=reservation)
    parameters = {"id": reservation, "account_id": account_id, "bytes": size}
    yield from column(SQL["reserve"], parameters, UUID)


def release(reservation: UUID) -> Query[list[UUID]]:
    """What a request has brought is in rows now, or given up. Also forgets those whose process died long ago."""
    return column(SQL["release"], {"id": reservation}, UUID)
