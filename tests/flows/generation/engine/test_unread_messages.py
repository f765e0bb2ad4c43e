"""What waits for a reader, and how much of it."""

from __future__ import annotations

import asyncio
import threading

from flows.generation.engine.messages import (
    DrawingEnded,
    DrawingFailed,
    Message,
    PictureDrawn,
    PreviewDrawn,
    StepDone,
)
from flows.generation.engine.unread_messages import KEPT_STEPS, MAX_UNREAD_BYTES, UnreadMessages


def picture(number: int, size: int = 3) -> PictureDrawn:
    return PictureDrawn(number=number, width=1, height=1, pixels=bytes(size), shape=1, seconds=0.0, busy_seconds=0.0)


def step(number: int, done: int) -> StepDone:
    return StepDone(number=number, step=done, steps=999)


async def taken(unread: UnreadMessages) -> list[Message]:
    """All that waits, up to the end."""
    found = list[Message]()
    while not found or not isinstance(found[-1], DrawingEnded | DrawingFailed):
        found.append(await unread.take())
    return found


def test_messages_of_another_thread_come_in_their_order() -> None:
    sent: list[Message] = [step(0, 1), picture(0), step(1, 1), DrawingEnded()]

    async def read() -> list[Message]:
        unread = UnreadMessages()
        reading = asyncio.create_task(taken(unread))
        await asyncio.sleep(0)
        writer = threading.Thread(target=lambda: [unread(message) for message in sent])
        writer.start()
        async with asyncio.timeout(10):
            return await reading

    assert asyncio.run(read()) == sent


def test_only_the_newest_preview_of_a_picture_waits_and_none_behind_the_picture() -> None:
    async def read() -> list[Message]:
        unread = UnreadMessages()
        for number, jpeg in ((0, b"a"), (1, b"b"), (0, b"c")):
            unread(PreviewDrawn(number=number, jpeg=jpeg))
        unread(picture(1))
        unread(DrawingEnded())
        return await taken(unread)

    assert asyncio.run(read()) == [PreviewDrawn(number=0, jpeg=b"c"), picture(1), DrawingEnded()]


def test_steps_are_left_out_only_where_many_wait_and_never_the_last() -> None:
    async def read() -> list[Message]:
        unread = UnreadMessages()
        for done in range(1, 1000):
            unread(step(0, done))
            unread(step(1, done))
        unread(DrawingEnded())
        return await taken(unread)

    found = asyncio.run(read())
    assert found[:2] == [step(0, 1), step(1, 1)]
    assert found[-3:] == [step(0, 999), step(1, 999), DrawingEnded()]
    assert len(found) == KEPT_STEPS + 3


def test_it_is_full_until_enough_has_been_sent_and_says_so_once() -> None:
    half = MAX_UNREAD_BYTES // 2
    heard, full = list[str](), list[bool]()

    async def read() -> None:
        unread = UnreadMessages()
        unread.on_room = lambda: heard.append("room")
        for number in range(3):
            unread(picture(number, half))
            full.append(unread.full)
        await unread.take()
        full.append(unread.full)
        await unread.take()
        await unread.take()
        full.append(unread.full)

    asyncio.run(read())
    # Two halves are full. What is taken is in memory until the next is.
    assert full == [False, True, True, True, False]
    assert heard == ["room"]


def test_a_reader_that_is_given_up_finds_the_reason_and_nothing_behind_it() -> None:
    reason = DrawingFailed(code="store_unavailable", reason="not read")

    async def read() -> tuple[list[Message], bool]:
        unread = UnreadMessages()
        unread(picture(0, MAX_UNREAD_BYTES))
        unread.close(reason)
        unread(picture(1))
        return await taken(unread), unread.full

    assert asyncio.run(read()) == ([reason], False)


def test_only_what_is_offered_and_not_taken_counts_as_unread() -> None:
    async def read() -> list[bool]:
        unread = UnreadMessages()
        unread(step(0, 1))
        found = [unread.unread_seconds() > 0]
        await unread.take()
        await asyncio.sleep(0.01)
        found.append(unread.unread_seconds() >= 0.01)
        waiting = asyncio.create_task(unread.take())
        await asyncio.sleep(0)
        found.append(unread.unread_seconds() > 0)
        waiting.cancel()
        return found

    assert asyncio.run(read()) == [False, True, False]
