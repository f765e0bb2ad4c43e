"""The stream of a reader's new notifications: each with its id, in order, none left out and none twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from litestar import Response
from litestar.response import Stream

from platform_api.http.headers import EVENT_STREAM
from platform_api.http.limits import ConcurrencyLimit
from platform_api.http.shutdown import CLOSING_EVENT
from platform_api.notifications.notification_views import notification_view
from platform_api.streams.job_events import KEEP_ALIVE_SECONDS, LOOK_SECONDS, Allowed, Announcements
from storage.errors import StoreFailure
from storage.postgres.notifications import in_app
from storage.postgres.notifications.in_app import InApp
from storage.records.accounts.accounts import Account
from storage.stores import AsyncStores

LOG = logging.getLogger("darkroom.api")
MAX_AT_ONCE = 200


def respond(
    stores: AsyncStores,
    announcements: Announcements,
    streams: ConcurrencyLimit,
    account: Account,
    after: int | None,
    allowed: Allowed,
) -> Response[Any]:
    """The stream after the notification `after`; after the newest there is when that is None.

    Raises TooManyRequests when the account follows too many streams at once.
    """
    # Here, while a refusal can still be a status: the stream itself takes its slot only when it begins to send.
    streams.check(account.id)
    content = allowed(follow(stores, announcements, streams, account, after))
    # nginx would otherwise gather the events into larger pieces.
    return Stream(content, media_type=EVENT_STREAM, headers={"X-Accel-Buffering": "no"})


async def follow(
    stores: AsyncStores, announcements: Announcements, streams: ConcurrencyLimit, account: Account, after: int | None
) -> AsyncGenerator[bytes]:
    """The stream as bytes; its first event says where it begins. It ends when the client leaves, the process stops or
    the key does not work any more."""
    subject = f"reader:{account.number}"
    async with streams.hold(account.id):
        with announcements.waiting_for(subject) as waiter:
            clock = asyncio.get_running_loop()
            spoke = looked = clock.time()
            sent = after
            while True:
                # Before looking: what is announced from here on wakes the wait below.
                waiter.woken.clear()
                if waiter.stopping.begun:
                    yield CLOSING_EVENT
                    return
                if waiter.news or clock.time() - looked >= announcements.look_seconds:
                    looked, waiter.news = clock.time(), False
                    # Without Last-Event-ID it begins behind the newest one there is, whose id is sent at once: a client
                    # that connects again goes on from there.
                    if sent is None:
                        sent = await _begin(stores, account.number)
                        if sent is not None:
                            yield b"id: %d\nretry: 2000\n\n" % sent
                    else:
                        found = await _look(stores, account.number, sent)
                        # A full page: look again at once.
                        waiter.news = len(found) == MAX_AT_ONCE
                        for one in found:
                            spoke, sent = clock.time(), one.id
                            yield _event(one, stores)
                if clock.time() - spoke >= KEEP_ALIVE_SECONDS:
                    spoke = clock.time()
                    yield b": still here\n\n"
                if not waiter.news:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(waiter.woken.wait(), LOOK_SECONDS)


async def _begin(stores: AsyncStores, reader: int) -> int | None:
    """The newest id there is; None while Postgres is unavailable."""
    try:
        return await asyncio.shield(stores.database.run(in_app.newest(reader)))
    except StoreFailure as error:
        LOG.warning("notifications: %s, reader=%d", error.code, reader)
        return None


async def _look(stores: AsyncStores, reader: int, sent: int) -> list[InApp]:
    """New ones. None while Postgres is unavailable: the stream outlives that."""
    try:
        # Shielded: a client that leaves would otherwise break the pool's connection in the middle of a statement.
        return await asyncio.shield(stores.database.run(in_app.after(reader, sent, MAX_AT_ONCE)))
    except StoreFailure as error:
        LOG.warning("notifications: %s, reader=%d", error.code, reader)
        return []


def _event(found: InApp, stores: AsyncStores) -> bytes:
    data = msgspec.json.encode(notification_view(found, stores.settings))
    return b"id: %d\nevent: notification\ndata: %s\n\n" % (found.id, data)
