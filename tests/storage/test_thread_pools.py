"""Each kind of work has its own room, waits for it are bounded, and places are never lost."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from storage.errors import PoolBusy
from storage.thread_pools import ThreadPool


def test_who_finds_no_thread_waits_for_a_bounded_time_and_is_refused_by_name() -> None:
    async def check() -> None:
        pool, held = ThreadPool("images", 1, wait_seconds=0.05), threading.Event()
        first = asyncio.create_task(pool.run(held.wait, 10))
        await asyncio.sleep(0)
        with pytest.raises(PoolBusy, match=r"All 1 places for images were in use for 0\.05 s"):
            await pool.run(time.monotonic)
        assert (pool.room.refused, pool.room.busy, pool.room.waiting) == (1, 1, 0)
        held.set()
        assert await first
        assert await pool.run(lambda: 7) == 7
        pool.close()

    asyncio.run(check())


def test_a_place_is_held_until_its_thread_is_done_and_then_free_again() -> None:
    async def check() -> None:
        pool, held = ThreadPool("images", 1, wait_seconds=0.05), threading.Event()
        given_up = asyncio.create_task(pool.run(held.wait, 10))
        await asyncio.sleep(0.02)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        with pytest.raises(PoolBusy):
            await pool.run(time.monotonic)
        waiting = asyncio.create_task(pool.go_on(lambda: 7, wait_seconds=10))
        await asyncio.sleep(0.02)
        waiting.cancel()  # a place that nobody waits for any more is not lost either
        await asyncio.gather(waiting, return_exceptions=True)
        held.set()
        for _ in range(5):
            assert await pool.go_on(lambda: 8, wait_seconds=5) == 8
        assert (pool.room.busy, pool.room.waiting) == (0, 0)
        pool.close()

    asyncio.run(check())
