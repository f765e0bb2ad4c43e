"""What a flow and the engine say to each other: MessagePack, each message behind its length in four bytes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, nullcontext

import msgspec

from storage.errors import BackendUnavailable
from storage.records.generation.drawings import Drawing

_LENGTH_BYTES = 4
LONGEST_BYTES = 256 * 1024 * 1024
"""A message that says it is longer is none of ours: 8,192 x 8,192 pixels are 201 million bytes."""


class DrawRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures of a drawing that are wanted, by their numbers in it, and whether previews are.

    Less urgent requests have a larger number in `urgency`. `job` names it in logs.
    """

    drawing: Drawing
    wanted: tuple[int, ...]
    previews: bool = False
    urgency: int = 0
    job: str = ""


class StillWaiting(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Nothing has happened for a while: `ahead` pictures of other requests go first, or the model is being loaded."""

    ahead: int


class PictureStarted(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A picture is being drawn, in this batch shape."""

    number: int
    shape: int


class StepDone(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A picture has `step` of its `steps` behind it."""

    number: int
    step: int
    steps: int


class PreviewDrawn(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What a picture looks like so far: a small JPEG."""

    number: int
    jpeg: bytes


class PictureDrawn(msgspec.Struct, kw_only=True, tag=True):
    """A finished picture: `pixels` are rows of red, green and blue, a byte each; empty once its reader has taken them.
    `seconds`: from its start.

    `busy_seconds` is its share of what the device worked: a call's time over the pictures in it.
    """

    number: int
    width: int
    height: int
    pixels: bytes
    shape: int
    seconds: float
    busy_seconds: float


class DrawingFailed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Nothing more comes: the error's code in the project's list, and what to do."""

    code: str
    reason: str


class DrawingEnded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Every wanted picture has been sent."""


Message = StillWaiting | PictureStarted | StepDone | PreviewDrawn | PictureDrawn | DrawingFailed | DrawingEnded
Hold = Callable[[int], AbstractContextManager[None]]
_decoder = msgspec.msgpack.Decoder(Message)
_encoder = msgspec.msgpack.Encoder()


def held_by_nobody(_size: int) -> AbstractContextManager[None]:
    """No limit."""
    return nullcontext()


def framed(message: Message) -> bytes:
    """A message behind its length."""
    content = _encoder.encode(message)
    return len(content).to_bytes(_LENGTH_BYTES, "big") + content


def read_messages(pieces: Iterable[bytes], hold: Hold = held_by_nobody) -> Generator[Message]:
    """The messages in a stream that arrives in pieces of any size.

    hold: entered with the bytes of a message before it is read, and left when the next one is asked for.

    Raises BackendUnavailable when the stream ends within one, or is none of ours; what `hold` raises.
    """
    stream = _Stream(pieces)
    while stream.has(_LENGTH_BYTES):
        length = int.from_bytes(stream.take(_LENGTH_BYTES), "big")
        if length > LONGEST_BYTES:
            raise BackendUnavailable(f"The engine sends a message of {length:,} bytes. Is it of this release?")
        with hold(length):
            if not stream.has(length):
                raise BackendUnavailable("The engine ended in the middle of a message.")
            # In one expression: what is suspended here keeps no copy of a picture.
            yield _decoded(stream.take(length))
    if stream.waiting:
        raise BackendUnavailable("The engine ended in the middle of a message.")


class _Stream:
    """What has arrived and was not taken yet."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self.waiting = iter(pieces), bytearray()

    def has(self, size: int) -> bool:
        """Whether so many bytes are there, waited for; False when the stream ends before."""
        while len(self.waiting) < size:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self.waiting += piece
        return True

    def take(self, size: int) -> bytes:
        """So many bytes that are there."""
        with memoryview(self.waiting) as view:
            taken = bytes(view[:size])
        del self.waiting[:size]
        return taken


def _decoded(content: bytes) -> Message:
    try:
        return _decoder.decode(content)
    except msgspec.DecodeError as error:
        raise BackendUnavailable("The engine sends what this release does not know. Restart both.") from error
