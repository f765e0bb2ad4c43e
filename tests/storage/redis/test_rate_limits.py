"""Counting in Valkey itself; what the door makes of it is in tests/platform_api/http/test_rate_limits.py."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, cast

from pydantic import SecretStr
from redis.asyncio import Redis

from storage.redis.rate_limits import Allowance, RateLimits, Verdict
from storage.settings import RedisSettings


def counted(url: str, *allowances: Allowance) -> tuple[list[Verdict | None], RateLimits]:
    """The verdicts on requests that come one after the other."""

    async def count() -> tuple[list[Verdict | None], RateLimits]:
        limits = RateLimits(RedisSettings(url=SecretStr(url)))
        try:
            return [await limits.count(allowance) for allowance in allowances], limits
        finally:
            await limits.close()

    return asyncio.run(count())


def test_an_allowance_is_used_up_and_comes_back_one_by_one(valkey_url: str) -> None:
    hourly = Allowance("reads:key:abc", 2)
    verdicts, _ = counted(valkey_url, hourly, Allowance("reads:key:other", 2), hourly, hourly)
    first, other, second, refused = verdicts
    assert first == other == Verdict(admitted=True, limit=2, remaining=1, reset_seconds=30, retry_seconds=0)
    assert second is not None
    assert refused is not None
    assert (second.admitted, second.remaining, second.retry_seconds) == (True, 0, 30)
    assert (refused.admitted, refused.remaining) == (False, 0)
    assert 0 < refused.retry_seconds <= 30 < refused.reset_seconds <= 60


def test_while_valkey_is_silent_only_one_of_many_waits_for_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and responds to nothing
        silent.setblocking(False)
        one = Allowance("reads:key:abc", 20)
        verdicts, limits = counted(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", *[one] * 50)
        connections = 0
        while True:
            try:
                silent.accept()[0].close()
            except BlockingIOError:
                break
            connections += 1
    assert verdicts == [None] * 50
    assert (connections, limits.breaker.failures) == (1, 50)


def admitted_at_once(url: str, disturbances: list[Callable[[], Coroutine[None, None, None]]]) -> tuple[int, int, int]:
    """200 requests of one caller at once, 20 allowed, while something disturbs; how many were admitted, how many of
    them uncounted, and how many more the time that this took allows."""

    async def count() -> tuple[list[Verdict | None], float]:
        limits = RateLimits(RedisSettings(url=SecretStr(url)))
        beside = [asyncio.create_task(disturb()) for disturb in disturbances]
        began = time.monotonic()
        try:
            return list(
                await asyncio.gather(*(limits.count(Allowance("reads:key:abc", 20)) for _ in range(200)))
            ), time.monotonic() - began
        finally:
            # Again until it has ended: the client of Valkey swallows a cancellation while it connects.
            while beside := [task for task in beside if not task.done()]:
                for task in beside:
                    task.cancel()
                await asyncio.wait(beside, timeout=1)
            await limits.close()

    verdicts, seconds = asyncio.run(count())
    uncounted = sum(verdict is None for verdict in verdicts)
    return sum(verdict is None or verdict.admitted for verdict in verdicts), uncounted, int(seconds / 3)


async def hold_up_the_loop() -> None:
    """What a request that takes long does to all others of its process: nothing is read for 0.4 s, again and again."""
    while True:
        time.sleep(0.4)
        await asyncio.sleep(0.001)


def test_a_busy_process_admits_no_more_than_the_limit(valkey_url: str) -> None:
    admitted, uncounted, back = admitted_at_once(valkey_url, [hold_up_the_loop])
    assert uncounted == 0
    assert 20 <= admitted <= 20 + back


def test_a_slow_valkey_is_not_an_absent_one(valkey_url: str) -> None:
    async def hold_up_valkey() -> None:
        client = cast(Any, Redis).from_url(valkey_url)
        try:
            while True:
                await client.client_pause(500)
                await asyncio.sleep(0.6)
        finally:
            await client.aclose()

    admitted, uncounted, back = admitted_at_once(valkey_url, [hold_up_valkey])
    assert uncounted == 0
    assert 20 <= admitted <= 20 + back
