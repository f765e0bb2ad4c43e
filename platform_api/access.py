"""Who is calling and what their key allows. Every route states its scope; a route without one does not start."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from storage.errors import AccessDenied, Unauthenticated
from storage.postgres import access
from storage.records.access import Scope, split_key
from storage.stores import AsyncStores

HOW = "Send: Authorization: Bearer drk_..."


@dataclass(frozen=True)
class Caller:
    """The account that a working key belongs to."""

    account_id: UUID
    key_id: str


@dataclass(frozen=True)
class Requires:
    """A guard: the request must bring a working key that carries `scope`.

    The key's row is read anew for every request, so a revoked or expired key stops with the next one.
    """

    scope: Scope

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Raises Unauthenticated, or AccessDenied when the key works but lacks the scope."""
        stores = cast(AsyncStores, connection.app.state.stores)
        header = connection.headers.get("authorization", "")
        scheme, _, text = header.partition(" ")
        if not header:
            raise Unauthenticated(f"No API key. {HOW}")
        parts = split_key(text.strip()) if scheme.lower() == "bearer" else None
        if parts is None or not (parts[0].isascii() and parts[0].isalnum()):
            raise Unauthenticated(f"The Authorization header holds no Darkroom key. {HOW}")
        key = await stores.database.run(access.key(parts[0]))
        if key is None or not key.works(parts[1], datetime.now(UTC)):
            raise Unauthenticated("The API key is unknown, expired or revoked. Make one with: darkroom key create")
        if not key.allows(self.scope):
            raise AccessDenied(f"The key lacks the scope '{self.scope}'. Make one that has it: darkroom key create")
        connection.state.caller = Caller(account_id=key.account_id, key_id=key.id)


@dataclass(frozen=True)
class Open:
    """A guard that lets everyone in, and says why that is right."""

    reason: str

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Nothing is asked."""


def provide_caller(request: Request[Any, Any, Any]) -> Caller:
    """The caller that the route's guard let in."""
    return cast(Caller, request.state.caller)
