"""How often one caller may ask: which requests count as what, who is counted, and what is said about it.

A request with a working key counts for the key, by its id; any other one, also one whose key does not work, for the
address it comes from. So nobody uses up another's allowance by sending the other's key id, and keys that somebody
makes up do not help. `platform_api/access.py` counts each request where it learns whose it is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, cast

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Scope

from storage.errors import TooManyRequests
from storage.redis.rate_limits import Allowance, Verdict
from storage.stores import AsyncStores

LIMITED_AS, SEARCHES_WITH = "limited_as", "searches_with"
"""Words in a handler's `opt`: the kind of its requests when their method does not say it, and the query parameter that
makes a search of one."""
LIMIT, REMAINING, RESET = "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"


class RateKind(StrEnum):
    """What a request counts as; each kind has its own allowance (`DARKROOM_LIMITS__...`)."""

    READS = "reads"
    WRITES = "writes"
    SEARCHES = "searches"
    DOWNLOADS = "downloads"


async def count(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler, key_id: str | None) -> None:
    """Count one request for its key, or for its address when it has none. Raises TooManyRequests."""
    stores = cast(AsyncStores, connection.app.state.stores)
    kind = kind_of(connection, handler)
    limit = cast(int, getattr(stores.settings.limits, kind))
    if not limit:
        return
    who = f"address:{_address(connection)}" if key_id is None else f"key:{key_id}"
    verdict = await stores.rate_limits.count(Allowance(f"{kind}:{who}", limit))
    if verdict is None:
        return
    _state(connection.scope)["rate"] = verdict
    if not verdict.admitted:
        whose = "this address; with an API key you have an allowance of your own" if key_id is None else "this API key"
        message = f"Too many {kind} in a minute: {limit:,} are allowed for {whose}. Go on in {verdict.retry_seconds} s."
        raise TooManyRequests(message, verdict.retry_seconds)


def kind_of(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> RateKind:
    """What a request counts as."""
    words = cast(str | None, handler.opt.get(SEARCHES_WITH))
    if words is not None and connection.query_params.get(words):
        return RateKind.SEARCHES
    stated = cast(RateKind | None, handler.opt.get(LIMITED_AS))
    if stated is not None:
        return stated
    return RateKind.READS if cast(Any, connection.scope)["method"] in ("GET", "HEAD") else RateKind.WRITES


def rate_headers(scope: Scope) -> Mapping[str, str]:
    """What the answer to a counted request says; nothing for others."""
    verdict = cast(Verdict | None, _state(scope).get("rate"))
    if verdict is None:
        return {}
    return {LIMIT: str(verdict.limit), REMAINING: str(verdict.remaining), RESET: str(verdict.reset_seconds)}


def _state(scope: Scope) -> dict[str, Any]:
    return cast(dict[str, Any], cast(dict[str, Any], scope).setdefault("state", {}))


def _address(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The client's address; of IPv6 the network, because a client has 2**64 addresses in it."""
    text = connection.client.host if connection.client else "unknown"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text[:60]
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return text
