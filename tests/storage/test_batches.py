"""Questions go together: none waits for company, each gets its own response, and an abandoned one disturbs nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from storage.batches import Batches


def test_what_comes_while_one_is_under_way_goes_together_as_the_next() -> None:
    batches: list[list[int]] = []
    gate = asyncio.Event()

    async def doubled(items: list[int]) -> Sequence[int]:
        batches.append(items)
        await gate.wait()
        return [item * 2 for item in items]

    async def ask() -> tuple[list[int], list[asyncio.Task[int]]]:
        asking = Batches(doubled, maximum=3)
        first = asyncio.create_task(asking.ask(0))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(asking.ask(item)) for item in range(1, 6)]
        await asyncio.sleep(0.01)
        others[1].cancel()
        gate.set()
        kept = [first, *others[:1], *others[2:]]
        return await asyncio.gather(*kept), others

    responses, others = asyncio.run(ask())
    assert responses == [0, 2, 6, 8, 10]
    assert others[1].cancelled()
    assert batches == [[0], [1, 2, 3], [4, 5]]


def test_everybody_in_a_batch_gets_its_error_and_the_next_batch_goes_on() -> None:
    async def picky(items: list[int]) -> Sequence[int]:
        if 1 in items:
            raise ValueError("one")
        return items

    async def ask() -> list[object]:
        asking = Batches(picky)
        together = await asyncio.gather(asking.ask(1), asking.ask(2), return_exceptions=True)
        return [*together, await asking.ask(3)]

    failed, beside, after = asyncio.run(ask())
    assert (repr(failed), failed is beside, after) == ("ValueError('one')", True, 3)
