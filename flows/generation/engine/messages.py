"""What a flow and the engine say to each other: MessagePack, each message behind its length in four bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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


class PictureDrawn(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A finished picture: `pixels` are rows of red, green and blue, a byte each. `seconds`: from its start.

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
_decoder = msgspec.msgpack.Decoder(Message)
_encoder = msgspec.msgpack.Encoder()


def framed(message: Message) -> bytes:
    """A message behind its length."""
    content = _encoder.encode(message)
    return len(content).to_bytes(_LENGTH_BYTES, "big") + content


def read_messages(pieces: Iterable[bytes]) -> Iterator[Message]:
    """The messages in a stream that arrives in pieces of any size.

    Raises BackendUnavailable when the stream ends within one, or is none of ours.
    """
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= _LENGTH_BYTES:
            length = int.from_bytes(waiting[:_LENGTH_BYTES], "big")
            if length > LONGEST_BYTES:
                raise BackendUnavailable(f"The engine sends a message of {length:,} bytes. Is it of this release?")
            if len(waiting) < _LENGTH_BYTES + length:
                break
            content = bytes(waiting[_LENGTH_BYTES : _LENGTH_BYTES + length])
            del waiting[: _LENGTH_BYTES + length]
            try:
                yield _decoder.decode(content)
            except msgspec.DecodeError as error:
                raise BackendUnavailable("The engine sends what this release does not know. Restart both.") from error
    if waiting:
        raise BackendUnavailable("The engine ended in the middle of a message.")
