"""Messages between flow and engine."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.generation.engine.messages import (
    LONGEST_BYTES,
    DrawingEnded,
    DrawingFailed,
    Message,
    PictureDrawn,
    PreviewDrawn,
    StepDone,
    framed,
    read_messages,
)
from storage.errors import StoreUnavailable

SENT: list[Message] = [
    StepDone(number=0, step=1, steps=2),
    PreviewDrawn(number=0, jpeg=b"\xff\xd8"),
    PictureDrawn(number=0, width=1, height=1, pixels=b"abc", shape=8, seconds=0.5, busy_seconds=0.25),
    DrawingFailed(code="blob_missing", reason="gone"),
    DrawingEnded(),
]


@given(st.integers(1, 64))
def test_messages_arrive_whole_in_pieces_of_any_size(size: int) -> None:
    stream = b"".join(framed(message) for message in SENT)

    assert list(read_messages(stream[at : at + size] for at in range(0, len(stream), size))) == SENT


def test_a_message_is_held_from_before_it_is_read_until_the_next_one_is_asked_for() -> None:
    stream, seen = framed(SENT[0]) + framed(SENT[2]) + framed(SENT[4]), list[tuple[str, int]]()

    @contextmanager
    def hold(size: int) -> Generator[None]:
        seen.append(("held", size))
        yield
        seen.append(("left", size))

    sizes = [len(framed(SENT[place])) - 4 for place in (0, 2, 4)]
    with closing(read_messages([stream], hold)) as messages:
        assert next(messages) == SENT[0]
        assert next(messages) == SENT[2]
        assert seen == [("held", sizes[0]), ("left", sizes[0]), ("held", sizes[1])]


def test_a_stream_that_ends_in_a_message_is_an_engine_that_ended() -> None:
    stream = b"".join(framed(message) for message in SENT)

    with pytest.raises(StoreUnavailable, match="middle of a message"):
        list(read_messages([stream[:-1]]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ((LONGEST_BYTES + 1).to_bytes(4, "big"), "a message of 268,435,457 bytes"),
        ((3).to_bytes(4, "big") + b"abc", "does not know"),
    ],
)
def test_what_is_no_message_of_ours_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(StoreUnavailable, match=said):
        list(read_messages([content]))
