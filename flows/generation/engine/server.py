"""The engine's door: HTTP on a Unix socket that only this user can open.

POST /draw takes a DrawRequest and streams messages until the drawing has ended; who hangs up cancels it. GET /status
says what the engine holds and how much waits. POST /rest lets go of the models that nobody draws with.
"""

from __future__ import annotations

import asyncio
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
    Message,
    StillWaiting,
    framed,
)
from flows.generation.engine.request_checks import checked
from storage.errors import InvalidRequest, StoreUnavailable

LONGEST_REQUEST_BYTES = 16 * 1024 * 1024
ALIVE_SECONDS = 5.0
"""A request that waits, for its model say, hears from the engine this often: silence means that the engine is gone."""


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
    loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Message]()

    def send(message: Message) -> None:
        # The loop of a server that is stopping takes no more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(arrived.put_nowait, message)

    ticket = engine.submit(wanted, send)
    try:
        while True:
            try:
                message = await asyncio.wait_for(arrived.get(), ALIVE_SECONDS)
            except TimeoutError:
                yield framed(StillWaiting(ahead=engine.ahead_of(ticket)))
                continue
            yield framed(message)
            if isinstance(message, DrawingEnded | DrawingFailed):
                return
    finally:
        engine.cancel(ticket)


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
