"""The engine as a flow asks it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec

from flows.generation.engine.messages import (
    DrawingEnded,
    DrawingFailed,
    DrawRequest,
    Hold,
    Message,
    held_by_nobody,
    read_messages,
)
from storage.errors import BackendUnavailable, InvalidRequest, JobCannotSucceed, StoreUnavailable, error_named

CONNECT_SECONDS, SILENT_SECONDS = 5.0, 30.0
"""An engine that is there says something every five seconds."""


class EngineClient:
    """The engine that listens on a Unix socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def draw(self, request: DrawRequest, hold: Hold = held_by_nobody) -> Generator[Message]:
        """What happens to a request, until every wanted picture has come; leaving the loop cancels it.

        hold: see `read_messages`.

        Raises BackendUnavailable when the engine is not there, falls silent, hangs or ends, InvalidRequest when it does
        not know what it is asked for, and what made a drawing fail: a JobCannotSucceed, or StoreUnavailable for a store
        of the engine's that is unavailable.
        """
        try:
            with (
                self._client() as client,
                client.stream("POST", "/draw", content=msgspec.msgpack.encode(request)) as response,
            ):
                if response.status_code == 422:
                    raise _refusal(response.read())
                response.raise_for_status()
                # Closed here, whoever else still names it: it holds memory for the picture that is in hand.
                with closing(read_messages(response.iter_raw(), hold)) as messages:
                    for message in messages:
                        if isinstance(message, DrawingFailed):
                            raise _failure(message)
                        if isinstance(message, DrawingEnded):
                            return
                        yield message
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error
        raise BackendUnavailable("The engine ended before the drawing was done.")

    def status(self) -> dict[str, Any]:
        """What the engine holds. Raises BackendUnavailable."""
        try:
            with self._client() as client:
                return client.get("/status").raise_for_status().json()
        # What is no JSON is a ValueError.
        except (httpx.HTTPError, ValueError) as error:
            raise self._unavailable(error) from error

    def rest(self) -> int:
        """Let the engine forget the models that nobody draws with; returns how many. Raises BackendUnavailable."""
        try:
            with self._client() as client:
                return int(client.post("/rest").raise_for_status().json()["dropped"])
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error

    def _client(self) -> httpx.Client:
        timeout = httpx.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS)
        # No certificates: nothing is encrypted within a machine.
        transport = httpx.HTTPTransport(uds=str(self._socket), verify=False)
        return httpx.Client(base_url="http://engine", transport=transport, timeout=timeout, trust_env=False)

    def _unavailable(self, error: Exception) -> BackendUnavailable:
        return BackendUnavailable(
            # Without the address: owners of jobs read this.
            f"The engine does not respond ({type(error).__name__}). `darkroom status` shows whether it runs."
        )


class _EngineRefusal(msgspec.Struct):
    detail: str
    fields: dict[str, str] = {}


def _refusal(content: bytes) -> Exception:
    try:
        refusal = msgspec.json.decode(content, type=_EngineRefusal)
    except msgspec.DecodeError:
        return BackendUnavailable("The engine refuses in a way that this release does not know. Restart both.")
    return InvalidRequest(refusal.fields or {"request": refusal.detail})


def _failure(message: DrawingFailed) -> Exception:
    kind = error_named(message.code)
    if kind is not None and issubclass(kind, JobCannotSucceed):
        return kind(message.reason)
    if kind is not None and issubclass(kind, StoreUnavailable):
        return (BackendUnavailable if issubclass(kind, BackendUnavailable) else StoreUnavailable)(message.reason)
    return JobCannotSucceed(message.reason)
