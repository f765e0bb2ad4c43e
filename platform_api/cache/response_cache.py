"""Responses that everybody gets, kept in this process and served again while everything they depend on is unchanged.

Only responses to requests without a key are kept: what an owner sees, and whose key works, is read again each time.
Before a response is served again, Postgres is asked whether anything that it depends on has changed
(storage/postgres/events/watch.py). So what was hidden is not shown once its transaction has committed, and what is
shown is never older than the request. Nothing stale is given meanwhile either: requests for one address wait for the
one of them that rebuilds it.

A route is cached when its `opt` says for how long at most (`CACHE_SECONDS`); its handler hands the response to
`responses.respond` with its dependencies, and that it found nothing to `keep_absence`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from platform_api.http import rate_limits
from storage.byte_cache import ByteCache
from storage.errors import NotFound, StoreUnavailable
from storage.postgres.events.watch import CatalogueWatch, Dependencies
from storage.settings import Settings

CACHE_SECONDS = "cache_seconds"
MODEL_SECONDS, LIST_SECONDS, PEOPLE_SECONDS = 600, 30, 120
"""How long a response is kept at most. Lists of a period move with the clock, so they are the shortest."""
# Keys are kept, too: bounded, they fit into the 2,000 bytes that an entry counts beside its body.
MAX_KEY = 1000
_KEPT = "kept"
Headers = list[tuple[bytes, bytes]]
Key = tuple[bytes, bytes, bytes, str]


@dataclass
class CachedResponse:
    """What is served again: headers and bytes, or that nothing was found; what it depends on, and since when."""

    headers: Headers
    body: bytes
    etag: bytes
    absence: str | None
    dependencies: Dependencies
    moment: int
    until: float

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return len(self.body) + 2000


class ResponseCache:
    """The responses of one process, the longest unused of them dropped first. `counts` are by outcome."""

    def __init__(self, settings: Settings, watch: CatalogueWatch) -> None:
        self._allowed_hosts = frozenset(host.encode() for host in settings.api.allowed_hosts)
        room = settings.cache.memory_mib * 1024 * 1024 if settings.cache.enabled else 0
        self._responses: ByteCache[Key, CachedResponse] = ByteCache(room, lambda response: response.size)
        self._building: dict[Key, asyncio.Event] = {}
        self.watch = watch
        self.counts: Counter[str] = Counter()

    def key_of(self, scope: HTTPScope) -> Key | None:
        """What a response is kept under; None when it is not kept at all."""
        if not self._responses.maxsize or scope["method"] != "GET":
            return None
        host = b""
        for name, value in scope["headers"]:
            # A route for everybody shows owners more: what a key sees must never be given to anybody else.
            if name == b"authorization":
                return None
            # Only known hosts are part of the key, as only those stand in the responses' addresses: a made-up one would
            # be a new entry each time.
            if name == b"host" and value in self._allowed_hosts:
                host = value
        path, query = scope["raw_path"], scope["query_string"]
        if len(path) + len(query) > MAX_KEY:
            return None
        # Host and scheme, since links in the response begin with them. The query as it is sent: another order is
        # another entry, which costs a reading and is never wrong.
        return path, query, host, scope["scheme"]

    async def find(self, key: Key) -> CachedResponse | None:
        """The response, when it still holds. Raises StoreUnavailable."""
        # Asked for each response, in one small statement for all requests of this moment: a time to live would show
        # what was hidden a second ago.
        await self.watch.look()
        known = self._responses.get(key)
        if known is None or known.until < time.monotonic() or not self.watch.holds(known.moment, known.dependencies):
            self.counts["miss" if known is None else "outdated"] += 1
            return None
        self.counts["hit" if known.absence is None else "hit_absence"] += 1
        return known

    @asynccontextmanager
    async def building(self, key: Key) -> AsyncGenerator[bool]:
        """Build a response while others wait for it: returns True. Or wait for another one that does: returns False.

        Who has waited and got nothing builds without being waited for: not every response can be kept.
        """
        under_way = self._building.get(key)
        if under_way is not None:
            self.counts["waited"] += 1
            # Otherwise a list that has just changed would be built by every request that comes before the first is
            # done.
            await under_way.wait()
            yield False
            return
        self._building[key] = done = asyncio.Event()
        try:
            yield True
        finally:
            # Before the others are woken: one that finds nothing kept may then be the next to build.
            del self._building[key]
            done.set()

    def keep(self, key: Key, response: CachedResponse) -> None:
        """Keep a response. One whose reading began earlier than that of the kept one is refused."""
        known = self._responses.get(key)
        # Two may build at once, and the slower one may have read first.
        if known is not None and known.moment > response.moment:
            self.counts["refused"] += 1
            return
        self._responses.keep(key, response)


@dataclass(frozen=True)
class CachePlace:
    """Where the response to the request under way will be kept."""

    cache: ResponseCache
    key: Key
    moment: int
    seconds: float


def place_of(scope: Scope) -> CachePlace | None:
    """Where the response to a request will be kept, if at all."""
    return cast(CachePlace | None, scope["state"].get(_KEPT))


def keep(scope: Scope, headers: Headers, body: bytes, etag: str, dependencies: Dependencies) -> None:
    """Keep the response to a request, where the route is cached."""
    _keep(scope, CachedResponse(headers, body, etag.encode(), None, dependencies, 0, 0.0))


def keep_absence(scope: Scope, error: NotFound, dependencies: Dependencies) -> None:
    """Keep that a request finds nothing, for as long as its dependencies hold."""
    _keep(scope, CachedResponse([], b"", b"", str(error), dependencies, 0, 0.0))


def _keep(scope: Scope, response: CachedResponse) -> None:
    place = place_of(scope)
    if place is not None:
        response.moment, response.until = place.moment, time.monotonic() + place.seconds
        place.cache.keep(place.key, response)


def cache_responses(app: ASGIApp) -> ASGIApp:
    """Middleware that serves cached responses, and lets requests through to their handler otherwise."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        handler = cast(Any, scope)["route_handler"]
        seconds = cast(float | None, handler.opt.get(CACHE_SECONDS)) if scope["type"] == "http" else None
        if seconds is None:
            await app(scope, receive, send)
            return
        cache = cast(ResponseCache, scope["litestar_app"].state.response_cache)
        key = cache.key_of(cast(HTTPScope, scope))
        # A search's response depends on the index as well, and the watch knows of rows only.
        if key is None or rate_limits.kind_of(scope, handler) is rate_limits.RateKind.SEARCHES:
            await app(scope, receive, send)
            return
        # Before the response: a kept one must count like any other. The guard does not count it again.
        await rate_limits.count(scope, handler, None)
        try:
            if (found := await cache.find(key)) is not None:
                await _send(found, cast(HTTPScope, scope), send)
                return
            async with cache.building(key) as first:
                if not first and (found := await cache.find(key)) is not None:
                    await _send(found, cast(HTTPScope, scope), send)
                    return
                # The moment from before the reading: a change that comes while the rows are read makes the response
                # outdated, not fresh.
                scope["state"][_KEPT] = CachePlace(cache, key, cache.watch.moment, seconds)
                await app(scope, receive, send)
        # Uncached, the handler says by itself which store is unavailable.
        except StoreUnavailable:
            await app(scope, receive, send)

    return handle


async def _send(response: CachedResponse, scope: HTTPScope, send: Send) -> None:
    if response.absence is not None:
        # Raised, not sent: the error's body has this request's own id and address.
        raise NotFound(response.absence)
    unchanged = any(name == b"if-none-match" and _names(value, response.etag) for name, value in scope["headers"])
    body = b"" if unchanged else response.body
    # The body's length only now: a 304 has none.
    headers = [*response.headers, (b"content-length", str(len(body)).encode())]
    await send(cast(Message, {"type": "http.response.start", "status": 304 if unchanged else 200, "headers": headers}))
    await send(cast(Message, {"type": "http.response.body", "body": body, "more_body": False}))


def _names(sent: bytes, etag: bytes) -> bool:
    """Whether an If-None-Match names this validator."""
    return any(tag.strip().removeprefix(b"W/") in (etag, b"*") for tag in sent.split(b","))
