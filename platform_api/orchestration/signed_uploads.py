"""A guard of uploads that a page may send without a key, by an address that was signed for one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from platform_api.access.guards import Caller, Requires
from platform_api.http import rate_limits
from platform_api.orchestration.blob_links import read_upload_link
from storage.errors import AccessDenied, DarkroomError, Unauthenticated
from storage.postgres.accounts import accounts
from storage.postgres.connection import Script
from storage.stores import AsyncStores


@dataclass(frozen=True)
class RequiresOrSigned(Requires):
    """As `Requires`; or `sig` stands for the key that the address was made with, while that key works."""

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Raises as `Requires`, and LinkRefused."""
        token = connection.query_params.get("sig")
        if token is None or connection.headers.get("authorization"):
            await super().__call__(connection, handler)
            return
        stores: AsyncStores = connection.app.state.stores
        try:
            caller = await stores.database.run(_caller(read_upload_link(token, stores.settings.api).key_id))
        except DarkroomError:
            # Whoever tries signatures counts for its address, as with keys that do not work.
            await rate_limits.count(connection.scope, handler, None)
            raise
        await rate_limits.count(connection.scope, handler, caller.account_id)
        if not caller.key.allows(self.scope):
            raise AccessDenied(f"The key that the address was made with lacks the scope '{self.scope}'.")
        connection.state.caller = caller


def _caller(key_id: str) -> Script[Caller]:
    # Raises for one that is revoked, or whose account is banned.
    yield from accounts.check_works(key_id)
    found = yield from accounts.authenticate(key_id)
    if found is None or (found[0].expires_at is not None and found[0].expires_at <= datetime.now(UTC)):
        raise Unauthenticated("The key that the address was made with does not work any more.")
    return Caller(found[1], found[0])
