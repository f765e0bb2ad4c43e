"""The socket of a ComfyUI: progress, previews, and hints that something ended.

All of it is a hint. A socket that does not open, closes, or sends what nobody understands costs previews and no
picture: what a picture's state is, the history says.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

import msgspec
from websockets.exceptions import InvalidHandshake, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from flows.generation.comfyui.address import ComfyAddress
from flows.generation.comfyui.limits import MESSAGE_BYTES, ComfyLimits
from storage.records.generation.comfyui.comfy_graphs import SAMPLER

# The library logs the headers of its handshake, which hold the secret, at the level DEBUG.
SILENT = logging.Logger("darkroom.comfyui.socket", logging.CRITICAL + 1)
CLOSE_SECONDS = 1.0
PREVIEW, PREVIEW_WITH_METADATA = 1, 4
"""Kinds of binary messages: a picture alone, and one behind JSON that names its prompt."""
SUPPORTED = msgspec.json.encode({"type": "feature_flags", "data": {"supports_preview_metadata": True}}).decode()
PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
"""How a JPEG and a PNG begin: nothing else is passed on as a preview."""
ENDINGS = frozenset({"execution_success", "execution_error", "execution_interrupted"})


@dataclass(frozen=True)
class SamplerStep:
    """So many steps of the sampler are done."""

    prompt_id: str
    done: int
    steps: int


@dataclass(frozen=True)
class PromptPreview:
    """A JPEG or PNG of what the picture is so far. Older versions do not name the prompt."""

    prompt_id: str
    content: bytes


@dataclass(frozen=True)
class PromptEnded:
    """The history has something new to say of a prompt."""

    prompt_id: str


Event = SamplerStep | PromptPreview | PromptEnded


class EventSocket:
    """One socket, opened again when it closes, no more often than the limits say."""

    def __init__(self, address: ComfyAddress, client_id: str, limits: ComfyLimits) -> None:
        self._address, self._limits = address, limits
        self._url = f"{address.socket}?{urlencode({'clientId': client_id})}"
        self._socket: ClientConnection | None = None
        self._opened = float("-inf")
        self._last_prompt = ""

    def close(self) -> None:
        """Close it, if it is open."""
        socket, self._socket = self._socket, None
        if socket is not None:
            # It is of no use any more, however it ends.
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                socket.close()

    def wait(self, seconds: float) -> Iterator[Event]:
        """Events as they come, for at most so long; ends early when the socket closes in the meantime."""
        until = time.monotonic() + seconds
        self.open()
        if self._socket is None:
            time.sleep(seconds)
        while self._socket is not None and (left := until - time.monotonic()) > 0:
            try:
                message = self._socket.recv(timeout=left)
            except TimeoutError:
                return
            except (OSError, WebSocketException):
                self.close()
                return
            yield from self._events(message)

    def open(self) -> None:
        """Open it unless it is open, or was tried a moment ago."""
        if self._socket is not None or time.monotonic() - self._opened < self._limits.reconnect:
            return
        self._opened = time.monotonic()
        try:
            self._socket = connect(
                self._url,
                additional_headers=self._address.headers,
                proxy=None,
                compression=None,
                open_timeout=self._limits.connect,
                close_timeout=CLOSE_SECONDS,
                ping_timeout=self._limits.read,
                max_size=MESSAGE_BYTES,
                logger=SILENT,
            )
            self._socket.send(SUPPORTED)
        except (OSError, WebSocketException, InvalidHandshake, InvalidURI, TimeoutError, EOFError):
            self.close()

    def _events(self, message: str | bytes) -> Iterator[Event]:
        if isinstance(message, bytes):
            yield from self._previews(message)
            return
        try:
            parsed: object = msgspec.json.decode(message)
        except (msgspec.DecodeError, RecursionError):
            return
        match parsed:
            case {"type": str(kind), "data": dict(data)}:
                yield from self._read(kind, cast(dict[str, Any], data))
            case _:
                return

    def _read(self, kind: str, data: dict[str, Any]) -> Iterator[Event]:
        prompt_id = data.get("prompt_id")
        if not isinstance(prompt_id, str):
            return
        self._last_prompt = prompt_id
        match kind, data:
            case "progress", {"node": str(node), "value": int(done), "max": int(steps)} if node == SAMPLER:
                yield SamplerStep(prompt_id, done, steps)
            case "executing", {"node": None}:
                yield PromptEnded(prompt_id)
            case _ if kind in ENDINGS:
                yield PromptEnded(prompt_id)
            case _:
                return

    def _previews(self, message: bytes) -> Iterator[Event]:
        for preview in self._pictures(message):
            if preview.content.startswith(PICTURES):
                yield preview

    def _pictures(self, message: bytes) -> Iterator[PromptPreview]:
        """Source: ComfyUI's protocol: numbers of four bytes, the highest byte first."""
        if len(message) < 8:
            return
        kind, second = struct.unpack_from(">II", message)
        if kind == PREVIEW:
            yield PromptPreview(self._last_prompt, message[8:])
        elif kind == PREVIEW_WITH_METADATA and 8 + second <= len(message):
            with contextlib.suppress(msgspec.DecodeError, RecursionError):
                match msgspec.json.decode(message[8 : 8 + second]):
                    case {"prompt_id": str(prompt_id)}:
                        yield PromptPreview(prompt_id, message[8 + second :])
                    case _:
                        return
