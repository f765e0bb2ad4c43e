"""A job's event stream: state changes from Postgres with ids, progress ticks from Valkey without.

One connection a process listens on the channels `outbox` and `in_app` and wakes the streams whose subject is named. A
slow look at the table is the fallback, so a lost announcement delays an event and loses none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeAlias

import msgspec
import psycopg
from litestar import Response
from litestar.response import Stream

from platform_api.http.headers import EVENT_STREAM
from platform_api.http.limits import ConcurrencyLimit
from platform_api.http.pages import camelised
from platform_api.http.shutdown import CLOSING_EVENT, Stopping
from storage.backoff import FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS, pause_after
from storage.errors import InvalidRequest, StoreFailure, StoreUnavailable
from storage.postgres.connection import AsyncDatabase, Script
from storage.postgres.events import outbox
from storage.postgres.jobs import jobs
from storage.records.events.events import OutboxRow
from storage.records.jobs.jobs import TERMINAL, Job, Progress
from storage.stores import AsyncStores

LOG = logging.getLogger("darkroom.api")
KEEP_ALIVE_SECONDS = 10.0
LOOK_SECONDS = 5.0
LOOKS_A_SECOND = 100
"""Slow looks of all streams together: of many streams each looks more rarely. Announcements wake them all the same."""
CHANNELS = ("outbox", "in_app")
"""What is listened to: events by their subject, new notifications by their reader."""
EVERY_READER = "readers"
"""Announced instead of each reader of a notification when there are many."""
Allowed: TypeAlias = Callable[[AsyncGenerator[bytes]], AsyncGenerator[bytes]]
"""Ends a stream when whoever opened it may not follow it any more."""
_LAST_KINDS = frozenset({"job.succeeded", "job.failed", "job.cancelled"})


class Waiter:
    """One stream that sleeps until there is something to look at, or until the process stops."""

    def __init__(self, stopping: Stopping) -> None:
        self.woken = asyncio.Event()
        self.news = True
        self.stopping = stopping

    def announce(self) -> None:
        """Wake it to look at the table."""
        self.news = True
        self.woken.set()


class Announcements:
    """Wakes whoever waits for news of a subject."""

    def __init__(self, database: AsyncDatabase, stopping: Stopping) -> None:
        self._database, self._stopping = database, stopping
        self._waiting: defaultdict[str, set[Waiter]] = defaultdict(set)
        self._streams = 0

    @property
    def look_seconds(self) -> float:
        """How long after its last look a stream looks unasked."""
        return max(LOOK_SECONDS, self._streams / LOOKS_A_SECOND)

    @contextlib.contextmanager
    def waiting_for(self, subject: str) -> Generator[Waiter]:
        """A waiter that is woken whenever something happens to `subject`."""
        waiter = Waiter(self._stopping)
        self._waiting[subject].add(waiter)
        self._streams += 1
        try:
            with self._stopping.waking(waiter.woken):
                yield waiter
        finally:
            self._streams -= 1
            self._waiting[subject].discard(waiter)
            # Or the dictionary would grow by every job that was ever followed.
            if not self._waiting[subject]:
                del self._waiting[subject]

    async def listen(self) -> None:
        """Listen until cancelled; connect again, ever more slowly, when Postgres becomes unavailable."""
        failures = 0
        while True:
            try:
                # Outside of the pool: `listen` belongs to one session, which is held for as long as the process lives.
                async with await self._database.connect() as connection:
                    for channel in CHANNELS:
                        await connection.execute(f"listen {channel}".encode())
                    failures = 0
                    # Whoever waits looks once: announcements that came while nobody listened are lost.
                    for subject in list(self._waiting):
                        self._announce(subject)
                    async for announcement in connection.notifies():
                        self._announce(announcement.payload)
            except (StoreUnavailable, psycopg.OperationalError, psycopg.InterfaceError) as error:
                LOG.warning("events: not listening (%s); trying again", type(error).__name__)
            failures += 1  # counted here and not by stamina: the count begins again in the middle of a try
            await asyncio.sleep(pause_after(failures, FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS))

    def _announce(self, subject: str) -> None:
        if subject == EVERY_READER:
            for reader in [waiting for waiting in self._waiting if waiting.startswith("reader:")]:
                self._announce(reader)
        for waiter in self._waiting.get(subject, ()):
            waiter.announce()


def read_last_event_id(header: str | None) -> int:
    """The id after which to go on; 0 without one. Raises InvalidRequest when it is not one of ours."""
    if header is None or not header.strip():
        return 0
    text = header.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidRequest({"Last-Event-ID": "must be the id of an event of this stream, a whole number"})
    return int(text)


async def respond(
    stores: AsyncStores, announcements: Announcements, streams: ConcurrencyLimit, job: Job, after: int, allowed: Allowed
) -> Response[Any]:
    """The stream of a job after event `after`; 204 when it has ended and all was sent, so that browsers stop asking.

    Of a job that ended long ago no event is kept: its row alone says how it ended.

    Raises TooManyRequests when the account follows too many jobs at once.
    """
    if job.state in TERMINAL and not await stores.database.run(outbox.of_subject(_subject(job), after)):
        return Response(None, status_code=204)
    # Here, while a refusal can still be a status: the stream itself takes its slot only when it begins to send.
    streams.check(job.account_id)
    # nginx would otherwise gather the events into larger pieces.
    headers = {"X-Accel-Buffering": "no"}
    content = allowed(follow(stores, announcements, streams, job, after))
    return Stream(content, media_type=EVENT_STREAM, headers=headers)


async def follow(
    stores: AsyncStores, announcements: Announcements, streams: ConcurrencyLimit, job: Job, after: int
) -> AsyncGenerator[bytes]:
    """The stream of one job as bytes, from the first event with an id above `after` to the job's end."""
    async with streams.hold(job.account_id):
        with announcements.waiting_for(_subject(job)) as waiter:
            ticks = _Ticks(waiter)
            with stores.progress.followed_by(job.id, ticks.put):
                yield b"retry: 2000\n\n"
                if job.progress is not None and job.state not in TERMINAL:
                    yield _tick(job.progress)
                async for piece in _News(stores, job, after, waiter, ticks, announcements).pieces():
                    yield piece


class _Ticks:
    """The newest progress tick of one job, and nothing while Valkey is unavailable."""

    def __init__(self, waiter: Waiter) -> None:
        self._waiter = waiter
        self._newest: Progress | None = None

    def put(self, tick: Progress) -> None:
        """Keep the newest tick, and wake the stream."""
        self._newest = tick
        self._waiter.woken.set()

    def take(self) -> Progress | None:
        """The newest tick since the last call."""
        newest, self._newest = self._newest, None
        return newest


class _News:
    """Looks at the table when woken or when too long has passed, and keeps the connection alive between."""

    def __init__(
        self,
        stores: AsyncStores,
        job: Job,
        after: int,
        waiter: Waiter,
        ticks: _Ticks,
        announcements: Announcements,
    ) -> None:
        self._stores, self._job, self._after, self._waiter, self._ticks = stores, job, after, waiter, ticks
        self._announcements = announcements
        self._ended = False

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Events, ticks and keep-alives as they come, to the job's end or the process'."""
        clock = asyncio.get_running_loop()
        spoke = looked = clock.time()
        while not self._ended:
            # Before looking: what is announced from here on wakes the wait below.
            self._waiter.woken.clear()
            if self._waiter.stopping.begun:
                yield CLOSING_EVENT
                return
            if self._waiter.news or clock.time() - looked >= self._announcements.look_seconds:
                looked = clock.time()
                for row in await self._look():
                    spoke = clock.time()
                    yield _event(row)
            tick = None if self._ended else self._ticks.take()
            if tick is not None:
                spoke = clock.time()
                yield _tick(tick)
            if clock.time() - spoke >= KEEP_ALIVE_SECONDS:
                spoke = clock.time()
                yield b": still here\n\n"
            if not self._ended:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._waiter.woken.wait(), LOOK_SECONDS)

    async def _look(self) -> list[OutboxRow]:
        """New events; notes when the job has ended. None while Postgres is unavailable: the stream outlives that."""
        # Before the statement, so that news that come while it runs are not forgotten.
        self._waiter.news = False
        try:
            # Shielded: a client that leaves would otherwise break the pool's connection in the middle of a statement.
            rows, job = await asyncio.shield(self._stores.database.run(self._newer()))
        except StoreFailure as error:
            LOG.warning("events: %s, job=%s", error.code, self._job.id)
            return []
        self._ended = rows[-1].kind in _LAST_KINDS if rows else job.state in TERMINAL
        if rows:
            self._after = rows[-1].id
        return rows

    def _newer(self) -> Script[tuple[list[OutboxRow], Job]]:
        # The row before the events: a job that ends in between has its last event among those that are read.
        job = yield from jobs.get(self._job.id)
        return (yield from outbox.of_subject(_subject(self._job), self._after)), job


def _subject(job: Job) -> str:
    return f"job:{job.id}"


def _event(row: OutboxRow) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (row.id, row.kind.encode(), msgspec.json.encode(camelised(row.payload)))


def _tick(progress: Progress) -> bytes:
    return b"event: progress\ndata: %s\n\n" % msgspec.json.encode(progress)
