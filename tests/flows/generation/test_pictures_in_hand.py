"""Pictures wait for memory in their order, and whoever has to stop does."""

from __future__ import annotations

import threading

import pytest

from flows.generation.callbacks import ignore
from flows.generation.pictures_in_hand import SMALL_BYTES, PicturesInHand
from storage.errors import CancellationRequested
from tests.flows.generation.bench import wait_until

PICTURE = 10 * SMALL_BYTES


def test_no_more_is_held_than_the_limit_and_whoever_came_first_goes_first() -> None:
    in_hand, order, held, most = PicturesInHand(2 * PICTURE), list[str](), [0], [0]
    lock = threading.Lock()

    def hold(name: str, size: int) -> None:
        with in_hand.holding(size, ignore):
            with lock:
                order.append(name)
                held[0] += size
                most[0] = max(most[0], held[0])
            threading.Event().wait(0.02)
            with lock:
                held[0] -= size

    threads = list[threading.Thread]()
    with in_hand.holding(PICTURE, ignore), in_hand.holding(PICTURE, ignore):
        for name, size in (("large", 3 * PICTURE), ("a", PICTURE), ("b", PICTURE), ("c", PICTURE)):
            thread = threading.Thread(target=hold, args=(name, size), name=name)
            thread.start()
            threads.append(thread)
            wait_until(lambda: in_hand.waiting == len(threads))
        with in_hand.holding(SMALL_BYTES - 1, ignore):
            assert order == []
    for thread in threads:
        thread.join(10)
    assert order[0] == "large"
    assert sorted(order[1:]) == ["a", "b", "c"]
    assert most[0] == 3 * PICTURE, "alone"


def test_whoever_waits_for_room_can_be_stopped() -> None:
    def stop() -> None:
        raise CancellationRequested("cancelled")

    in_hand = PicturesInHand(PICTURE)
    with in_hand.holding(PICTURE, ignore), pytest.raises(CancellationRequested), in_hand.holding(PICTURE, stop):
        raise AssertionError("there is no room")
    with in_hand.holding(PICTURE, stop):
        pass
