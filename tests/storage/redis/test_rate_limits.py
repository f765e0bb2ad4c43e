"""Counting in Valkey itself; what the door makes of it is in tests/platform_api/test_rates.py."""

from __future__ import annotations

import asyncio
import socket

from pydantic import SecretStr

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
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and answers nothing
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
