"""Who is calling, what their key allows, and how often. Every route states its scope; one without does not start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from platform_api.access.key_checks import key_checks
from platform_api.http import rate_limits
from storage.errors import AccessDenied, AccountBanned, Unauthenticated
from storage.records.accounts.accounts import Account, AccountStatus, ApiKey, Scope, split_key
from storage.records.policy.viewers import ANYBODY, Viewer, viewer_of

HOW = "Send: Authorization: Bearer drk_..."


@dataclass(frozen=True)
class Caller:
    """The account that a working key belongs to, and what the key allows."""

    account: Account
    key: ApiKey

    @property
    def account_id(self) -> UUID:
        """The account's id."""
        return self.account.id


@dataclass(frozen=True)
class Requires:
    """A guard: the request must bring a working key that carries `scope`.

    The key's row is read again for every request, so a revoked or expired key stops with the next one.
    """

    scope: Scope

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Raises Unauthenticated, AccountBanned, TooManyRequests; AccessDenied when the key lacks the scope."""
        connection.state.caller = await _let_in(connection, handler, connection.headers.get("authorization", ""))
        _check_scope(connection.state.caller, self.scope)


@dataclass(frozen=True)
class Reads:
    """A guard of what everybody may read: without a key as anybody, with a working key that carries `scope` as its
    account. A key that does not work is refused, never passed over. `by_token` also takes it as ?token=."""

    scope: Scope
    by_token: bool = False

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Raises Unauthenticated, AccountBanned, TooManyRequests, AccessDenied."""
        header = connection.headers.get("authorization", "")
        token = connection.query_params.get("token") if self.by_token else None
        connection.state.caller = None
        # An empty token is one: a key that is sent and does not work is refused, not taken for no key.
        if header or token is not None:
            connection.state.caller = await _let_in(connection, handler, header or f"Bearer {token}")
            _check_scope(connection.state.caller, self.scope)
        else:
            await rate_limits.count(connection.scope, handler, None)


async def _let_in(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler, header: str) -> Caller:
    """The caller of a working key. A request without one counts for its address, however often it tries."""
    try:
        if not header:
            raise Unauthenticated(f"No API key. {HOW}")
        caller = await _authenticated(connection, _key_in(header))
    # Counted for the address although the header names an account: else anybody could use up another's allowance by
    # sending its key's id with a wrong secret.
    except (Unauthenticated, AccountBanned):
        await rate_limits.count(connection.scope, handler, None)
        raise
    await rate_limits.count(connection.scope, handler, caller.account_id)
    return caller


def _key_in(header: str) -> tuple[str, str]:
    scheme, _, text = header.partition(" ")
    parts = split_key(text.strip()) if scheme.lower() == "bearer" else None
    # Before it reaches a query or a key in Valkey: an id has letters and digits only.
    if parts is None or not (parts[0].isascii() and parts[0].isalnum()):
        raise Unauthenticated(f"The Authorization header holds no Darkroom key. {HOW}")
    return parts


async def _authenticated(connection: ASGIConnection[Any, Any, Any, Any], parts: tuple[str, str]) -> Caller:
    key, account = await key_checks(connection.scope).find(connection.scope, *parts)
    if account.status is AccountStatus.BANNED:
        raise AccountBanned(f"The account '{account.name}' is banned: {account.ban_reason}. Write to the operator.")
    return Caller(account, key)


def _check_scope(caller: Caller, scope: Scope) -> None:
    if not caller.key.allows(scope):
        raise AccessDenied(f"The key lacks the scope '{scope}'. Make one that has it: darkroom key create")


@dataclass(frozen=True)
class Open:
    """A guard that lets everyone in, and says why that is right. Who comes counts by address, unless `counted` is
    False."""

    reason: str
    counted: bool = True

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Raises TooManyRequests."""
        if self.counted:
            await rate_limits.count(connection.scope, handler, None)


def provide_caller(request: Request[Any, Any, Any]) -> Caller:
    """The caller that the route's guard let in."""
    return cast(Caller, request.state.caller)


def provide_viewer(request: Request[Any, Any, Any]) -> Viewer:
    """Who is looking: the caller's account, or anybody."""
    caller = cast(Caller | None, getattr(request.state, "caller", None))
    return ANYBODY if caller is None else viewer_of(caller.account)
