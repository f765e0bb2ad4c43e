"""A ComfyUI that behaves as a test says: HTTP and a socket as the real one has, in a thread, drawing nothing.

Unlike the real one it can hang, lie, return what was not asked for, and close its socket in the middle.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web
from PIL import Image

from tests.storage.records.generation.object_info import object_info

NEVER_SECONDS = 60.0
PREVIEW = b"\xff\xd8\xffpreview"


def png(width: int = 64, height: int = 64, colour: tuple[int, int, int] = (10, 20, 30)) -> bytes:
    """A picture of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(stream, "PNG")
    return stream.getvalue()


@dataclass
class Script:
    """What the peer does; a test changes it at any time.

    `statuses`, `bodies` and `headers` answer a path below /api in its place, `hangs` never does, `endless` does for
    ever, `slowly` a byte at a time. `after` is a status that a submission is answered with once it was drawn or queued.
    `ends` says whether a picture gets done, `fails` that its drawing does. `steps` are the pairs that it reports,
    `closes_after` so many of them it closes the socket. `pictures` are the bytes of what a prompt makes.
    """

    statuses: dict[str, int] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    hangs: set[str] = field(default_factory=set)
    endless: set[str] = field(default_factory=set)
    slowly: set[str] = field(default_factory=set)
    after: int = 200
    ends: bool = True
    starts: bool = True
    fails: bool = False
    forgets: bool = False
    steps: list[tuple[Any, Any]] = field(default_factory=list)
    messages: list[str | bytes] = field(default_factory=list)
    closes_after: int | None = None
    refuses_socket: bool = False
    ignores_ids: bool = False
    ignores_stops: bool = False
    jobs_cancel: int | None = None
    pictures: list[bytes] = field(default_factory=lambda: [png()])
    wanted_header: tuple[str, str] | None = None


class ScriptedPeer:
    """The peer's state: what was submitted and drawn, what waits, and each request by method and path."""

    def __init__(self) -> None:
        self.script = Script()
        self.url = ""
        self.requests: list[str] = []
        self.submitted: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.drawn: list[str] = []
        self.queue: dict[str, list[Any]] = {}
        self.running: list[str] = []
        self.others: list[list[Any]] = []
        self.history: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.opened = 0

    def app(self) -> web.Application:
        """Its routes, below /api and beside it."""
        app = web.Application(middlewares=[self._middleware], client_max_size=1 << 26)
        app.router.add_get("/ws", self._socket)
        for method, path, handler in (
            ("GET", "system_stats", self._stats),
            ("GET", "object_info", self._nodes),
            ("GET", "features", self._features),
            ("GET", "models/{folder}", self._models),
            ("POST", "prompt", self._prompt),
            ("GET", "history/{id}", self._history),
            ("POST", "history", self._forget),
            ("GET", "queue", self._queue),
            ("POST", "queue", self._delete),
            ("POST", "interrupt", self._interrupt),
            ("POST", "upload/image", self._upload),
            ("GET", "view", self._view),
            ("GET", "jobs", self._jobs),
            ("POST", "jobs/{id}/cancel", self._cancel),
        ):
            app.router.add_route(method, f"/api/{path}", handler)
        return app

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        path, script = request.path.removeprefix("/api/"), self.script
        self.requests.append(f"{request.method} {path}")
        if script.wanted_header and request.headers.get(script.wanted_header[0]) != script.wanted_header[1]:
            return web.Response(status=401)
        for name in sorted(script.hangs | script.endless | script.slowly):
            if path.startswith(name):
                return await self._for_ever(request, "hangs" if name in script.hangs else name)
        for name, body in script.bodies.items():
            if path.startswith(name):
                status = script.statuses.get(name, 200)
                return web.Response(status=status, body=body, headers=script.headers.get(name))
        for name, status in script.statuses.items():
            if path.startswith(name):
                return web.Response(status=status, headers=script.headers.get(name))
        return await handler(request)

    async def _for_ever(self, request: web.Request, name: str) -> web.StreamResponse:
        if name == "hangs":
            await asyncio.sleep(NEVER_SECONDS)
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" " if name in self.script.slowly else b" " * 65536)
                await asyncio.sleep(0.05 if name in self.script.slowly else 0)
        return response

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response({"system": {"comfyui_version": "0.3.75"}, "devices": []})

    async def _nodes(self, _: web.Request) -> web.Response:
        return web.json_response(object_info())

    async def _features(self, _: web.Request) -> web.Response:
        return web.json_response({"supports_preview_metadata": True, "max_upload_size": 1 << 26})

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response(["mugs.safetensors"] if request.match_info["folder"] == "checkpoints" else [])

    async def _prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.submitted.append(body)
        prompt_id = "another-id" if self.script.ignores_ids else body["prompt_id"]
        self.queue[prompt_id] = [len(self.submitted), prompt_id, body["prompt"], {}, ["save"]]
        if self.script.starts:
            await self._draw(prompt_id, body.get("client_id", ""))
        if self.script.forgets:
            self.queue.clear()
            self.running.clear()
        if self.script.after != 200:
            return web.Response(status=self.script.after)
        return web.json_response({"prompt_id": prompt_id, "number": len(self.submitted), "node_errors": {}})

    async def _draw(self, prompt_id: str, client_id: str) -> None:
        """All at once: it reports its steps, then it is done, or is drawn for ever."""
        script, socket = self.script, self.sockets.get(client_id)
        self.running.append(prompt_id)
        for number, (done, steps) in enumerate(script.steps):
            if socket is not None and not socket.closed:
                data = {"node": "sampler", "value": done, "max": steps, "prompt_id": prompt_id}
                await socket.send_str(json.dumps({"type": "progress", "data": data}))
                metadata = json.dumps({"prompt_id": prompt_id}).encode()
                await socket.send_bytes(struct.pack(">II", 4, len(metadata)) + metadata + PREVIEW)
            if socket is not None and script.closes_after == number + 1:
                await socket.close()
        for message in script.messages:
            if socket is not None:
                await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
        if script.ends:
            self.end(prompt_id)
            if socket is not None and not socket.closed:
                await socket.send_str(json.dumps({"type": "execution_success", "data": {"prompt_id": prompt_id}}))

    def end(self, prompt_id: str) -> None:
        """It is done: out of the queue, in the history."""
        self.queue.pop(prompt_id, None)
        self.running = [one for one in self.running if one != prompt_id]
        self.drawn.append(prompt_id)
        if self.script.fails:
            error = {"node_id": "sampler", "exception_type": "torch.OutOfMemoryError", "exception_message": "a secret"}
            status = {"status_str": "error", "completed": False, "messages": [["execution_error", error]]}
            self.history[prompt_id] = {"prompt": [], "outputs": {}, "status": status}
            return
        names = [f"{hashlib.sha256(picture).hexdigest()}-{prompt_id}.png" for picture in self.script.pictures]
        self.files.update(zip(names, self.script.pictures, strict=True))
        images = [{"filename": name, "subfolder": "", "type": "temp"} for name in names]
        status = {"status_str": "success", "completed": True, "messages": []}
        self.history[prompt_id] = {"prompt": [], "outputs": {"save": {"images": images}}, "status": status}

    async def _history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["id"]
        return web.json_response({prompt_id: self.history[prompt_id]} if prompt_id in self.history else {})

    async def _forget(self, request: web.Request) -> web.Response:
        for prompt_id in (await request.json())["delete"]:
            self.history.pop(prompt_id, None)
        return web.Response()

    async def _queue(self, _: web.Request) -> web.Response:
        running = [item for prompt_id, item in self.queue.items() if prompt_id in self.running]
        pending = [item for prompt_id, item in self.queue.items() if prompt_id not in self.running]
        return web.json_response({"queue_running": running, "queue_pending": [*pending, *self.others]})

    async def _delete(self, request: web.Request) -> web.Response:
        for prompt_id in (await request.json())["delete"]:
            if prompt_id not in self.running:
                self.queue.pop(prompt_id, None)
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        self.stop((await request.json()).get("prompt_id"))
        return web.Response()

    def stop(self, prompt_id: str) -> None:
        """It is stopped, if it is drawn."""
        if prompt_id in self.running and not self.script.ignores_stops:
            self.queue.pop(prompt_id)
            self.running.remove(prompt_id)
            status = {"status_str": "error", "completed": False, "messages": [["execution_interrupted", {}]]}
            self.history[prompt_id] = {"prompt": [], "outputs": {}, "status": status}

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        image: Any = form["image"]
        self.uploads[image.filename] = image.file.read()
        return web.json_response({"name": image.filename, "subfolder": form["subfolder"], "type": "input"})

    async def _view(self, request: web.Request) -> web.Response:
        content = self.files.get(request.query["filename"])
        return web.Response(status=404) if content is None else web.Response(body=content, content_type="image/png")

    async def _jobs(self, _: web.Request) -> web.Response:
        return web.Response(status=404) if self.script.jobs_cancel is None else web.json_response({"jobs": []})

    async def _cancel(self, request: web.Request) -> web.Response:
        if self.script.jobs_cancel == 200:
            self.stop(request.match_info["id"])
        return web.Response(status=self.script.jobs_cancel or 404)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.script.refuses_socket:
            return web.Response(status=403)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.opened += 1
        self.sockets[request.query["clientId"]] = socket
        async for message in socket:
            if message.type == WSMsgType.ERROR:
                break
        return socket


@contextlib.contextmanager
def scripted_peer() -> Iterator[ScriptedPeer]:
    """A peer that responds, until the block ends."""
    peer, ready = ScriptedPeer(), threading.Event()
    loop = asyncio.new_event_loop()
    runner: list[web.AppRunner] = []

    async def start() -> None:
        runner.append(web.AppRunner(peer.app(), shutdown_timeout=0.1))
        await runner[0].setup()
        site = web.TCPSite(runner[0], "127.0.0.1", 0)
        await site.start()
        peer.url = f"http://127.0.0.1:{runner[0].addresses[0][1]}"
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner[0].cleanup())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(10)
        yield peer
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
