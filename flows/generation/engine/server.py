"""The engine's door: HTTP on a Unix socket that only this user can open.

POST /draw takes a DrawRequest and streams messages until the drawing has ended; who hangs up cancels it. GET /status
says what the engine holds and how much waits. POST /rest lets go of the models that nobody draws with.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from flows.generation.engine.engine import Engine
from flows.generation.engine.engine_socket import listening_socket
from flows.generation.engine.messages import (
    DrawingEnded,
    DrawingFailed,
    DrawRequest,
    StillWaiting,
    framed,
)
from flows.generation.engine.request_checks import checked
from flows.generation.engine.tickets import Ticket
from flows.generation.engine.unread_messages import UnreadMessages
from storage.errors import InvalidRequest, StoreUnavailable

log = logging.getLogger("darkroom.engine")

LONGEST_REQUEST_BYTES = 16 * 1024 * 1024
ALIVE_SECONDS = 5.0
"""A request that waits, for its model say, hears from the engine this often: silence means that the engine is gone."""
UNREAD_SECONDS = 120.0
"""A reader that takes nothing for so long has its request cancelled: it holds memory, and the model."""
PIECE_BYTES = 256 * 1024


def application(engine: Engine, facts: dict[str, Any]) -> Starlette:
    """The routes of one engine. `facts`: what stays the same in its status, such as its device and release."""

    async def draw(request: Request) -> Response:
        try:
            wanted = checked(msgspec.msgpack.decode(await _body(request), type=DrawRequest))
        # A value in a value in a value and so on: more than Python's stack takes.
        except (msgspec.DecodeError, RecursionError) as error:
            return JSONResponse({"detail": f"The engine cannot read the request: {error}"}, status_code=422)
        except InvalidRequest as refusal:
            return JSONResponse({"detail": str(refusal), "fields": refusal.fields}, status_code=422)
        return StreamingResponse(_messages(engine, wanted), media_type="application/vnd.msgpack")

    async def status(_request: Request) -> Response:
        found = {"waiting": engine.waiting(), "calls": engine.calls, "loads": engine.models.loads}
        return JSONResponse({**facts, **found, "models": engine.models.held()})

    async def rest(_request: Request) -> Response:
        return JSONResponse({"dropped": await asyncio.to_thread(engine.rest)})

    return Starlette(
        routes=[
            Route("/draw", draw, methods=["POST"]),
            Route("/status", status, methods=["GET"]),
            Route("/rest", rest, methods=["POST"]),
        ]
    )


async def _body(request: Request) -> bytes:
    content = bytearray()
    with suppress(ClientDisconnect):
        async for piece in request.stream():
            content += piece
            if len(content) > LONGEST_REQUEST_BYTES:
                raise msgspec.DecodeError(f"it has more than {LONGEST_REQUEST_BYTES:,} bytes")
    return bytes(content)


async def _messages(engine: Engine, wanted: DrawRequest) -> AsyncGenerator[bytes]:
    unread = UnreadMessages()
    unread.on_room = engine.wake
    ticket = engine.submit(wanted, unread)
    watch = asyncio.create_task(_cancelled_if_unread(engine, ticket, unread))
    try:
        while True:
            try:
                async with asyncio.timeout(ALIVE_SECONDS):
                    message = await unread.take()
            except TimeoutError:
                message = StillWaiting(ahead=engine.ahead_of(ticket))
            content = framed(message)
            # In pieces: what the reader has not taken waits here, once, and not in the server's buffers too.
            for start in range(0, len(content), PIECE_BYTES):
                yield content[start : start + PIECE_BYTES]
                unread.moved()
            if isinstance(message, DrawingEnded | DrawingFailed):
                return
    finally:
        watch.cancel()
        engine.cancel(ticket)


async def _cancelled_if_unread(engine: Engine, ticket: Ticket, unread: UnreadMessages) -> None:
    """Draw no more for a reader that takes nothing; should it read again, it learns why."""
    while (quiet := unread.unread_seconds()) < UNREAD_SECONDS:
        await asyncio.sleep(UNREAD_SECONDS - quiet)
    reason = f"Nothing of what the engine drew was read for {UNREAD_SECONDS:g} seconds, so it draws no more of it."
    log.warning("job %r: %s", ticket.request.job, reason)
    engine.cancel(ticket)
    unread.close(DrawingFailed(code=StoreUnavailable.code, reason=f"{reason} Ask for the pictures that are missing."))


@contextmanager
def served(engine: Engine, facts: dict[str, Any], path: Path) -> Generator[None]:
    """Serve an engine on a Unix socket, in a thread of its own, while the block lets it draw.

    The door is open when the block begins. Should it close before the block ends, the engine is stopped: one that
    nobody can ask only looks well. Raises StoreUnavailable then, and what `listening_socket` raises.
    """
    app = application(engine, facts)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=5)
    )
    with listening_socket(path) as listening:
        serving = threading.Thread(target=_serve, args=(server, listening, engine), name="engine-server", daemon=True)
        serving.start()
        try:
            while serving.is_alive() and not server.started:
                time.sleep(0.01)
            if server.started:
                yield
        finally:
            closed_early = not server.should_exit and not serving.is_alive()
            server.should_exit = True
            serving.join(timeout=10)
        if closed_early:
            raise StoreUnavailable(
                f"The engine's server at {path} has ended; its log says why. Start the engine again."
            )


def _serve(server: uvicorn.Server, listening: socket.socket, engine: Engine) -> None:
    try:
        server.run(sockets=[listening])
    finally:
        engine.stop()
