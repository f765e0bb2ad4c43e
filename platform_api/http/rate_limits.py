"""How often one caller may ask: which requests count as what, who is counted, and what the headers report.

A request with a working key counts for its account, whichever of its keys it brings; any other one, also one whose key
does not work, for the address it comes from. So nobody uses up another's allowance by sending the other's key id, and
keys that somebody makes or makes up do not help. `platform_api/access/guards.py` counts each request where it learns
whose it is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any, cast
from urllib.parse import parse_qs
from uuid import UUID

from litestar.handlers import BaseRouteHandler
from litestar.types import Scope

from storage.errors import TooManyRequests
from storage.redis.rate_limits import Allowance, Verdict
from storage.stores import AsyncStores

LIMITED_AS, SEARCHES_WITH = "limited_as", "searches_with"
"""Words in a handler's `opt`: the kind of its requests when their method does not say it, and the query parameter that
makes a search of one."""
_RATE = "rate"
LIMIT, REMAINING, RESET = "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"


class RateKind(StrEnum):
    """What a request counts as; each kind has its own allowance (`DARKROOM_LIMITS__...`)."""

    READS = "reads"
    WRITES = "writes"
    SEARCHES = "searches"
    DOWNLOADS = "downloads"


async def count(scope: Scope, handler: BaseRouteHandler, account_id: UUID | None) -> None:
    """Count one request, once, for its account, or for its address when it has none. Raises TooManyRequests."""
    state = _state(scope)
    # The cache counts before the guard does, and a key that fails is counted where it fails: once for a request.
    if _RATE in state:
        return
    stores = cast(AsyncStores, scope["litestar_app"].state.stores)
    kind = kind_of(scope, handler)
    limit = cast(int, getattr(stores.settings.limits, kind))
    who = f"address:{address_of(scope)}" if account_id is None else f"account:{account_id}"
    # Kept in the request before the refusal is raised: the response to it has the headers, too.
    state[_RATE] = verdict = await stores.rate_limits.count(Allowance(f"{kind}:{who}", limit)) if limit else None
    if verdict is not None and not verdict.admitted:
        of_address = "this address; with an API key you have an allowance of your own"
        whose = of_address if account_id is None else "this account, whichever of its API keys is used"
        message = f"Too many {kind} in a minute: {limit:,} are allowed for {whose}. Go on in {verdict.retry_seconds} s."
        raise TooManyRequests(message, verdict.retry_seconds)


def kind_of(scope: Scope, handler: BaseRouteHandler) -> RateKind:
    """What a request counts as."""
    words = cast(str | None, handler.opt.get(SEARCHES_WITH))
    if words is not None and words in parse_qs(scope["query_string"].decode("latin-1")):
        return RateKind.SEARCHES
    stated = cast(RateKind | None, handler.opt.get(LIMITED_AS))
    if stated is not None:
        return stated
    return RateKind.READS if cast(Any, scope)["method"] in ("GET", "HEAD") else RateKind.WRITES


def rate_headers(scope: Scope) -> Mapping[str, str]:
    """What the response to a counted request says; nothing for others."""
    verdict = cast(Verdict | None, _state(scope).get(_RATE))
    if verdict is None:
        return {}
    return {LIMIT: str(verdict.limit), REMAINING: str(verdict.remaining), RESET: str(verdict.reset_seconds)}


def _state(scope: Scope) -> dict[str, Any]:
    return cast(dict[str, Any], cast(dict[str, Any], scope).setdefault("state", {}))


@lru_cache(10_000)
def _network(text: str) -> str:
    """The client's address; of IPv6 the network, because a client has 2**64 addresses in it. An IPv4 client is one also
    where the server listens on IPv6 alone (::ffff:192.0.2.1): else all of them would be in one network."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text[:60]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address), 64), strict=False).network_address)
    return str(getattr(address, "ipv4_mapped", address))


def address_of(scope: Scope) -> str:
    """The address that a request counts for."""
    client = scope["client"]
    return _network(client[0]) if client else "unknown"
