"""A pool of child processes with a memory limit, in which images from strangers become canonical ones.

A child runs storage/blobs/images.py: a fresh Python process (never a fork of a server with threads), which reads one
request a line and returns one line. One that dies or takes too long is replaced, and its image is refused. The parent
does not import Pillow: what it does not load, no image can break, and its start is that much shorter.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from storage.blobs.failures import STAGING, store_error
from storage.errors import ImageRefused, StoreUnavailable

# Of address space (RLIMIT_AS): the interpreter and its libraries count, too, not the pixels alone.
MEMORY_LIMIT_BYTES = 1536 * 1024 * 1024
SECONDS_EACH = 30.0
_PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class CanonicalImage:
    """What a canonical PNG measures, in pixels and bytes, and its place-holder."""

    width: int
    height: int
    size: int
    blurhash: str


class ImageWorkers:
    """A small pool of children that make images canonical. Safe to call from several threads; closes its children."""

    def __init__(self, max_pixels: int, *, count: int = 2, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self._max_pixels, self._memory = max_pixels, memory_limit_bytes
        self.count, self.started = count, 0
        self._children: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = False
        # Last in, first out: the child that worked last is warm, and those that load never needs are never started.
        self._idle: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(None)

    def canonicalise(self, source: Path, target: Path) -> CanonicalImage:
        """`canonicalise` in a child; waits for a free one. Raises ImageRefused, DiskFull, StoreUnavailable."""
        child = self._idle.get()
        try:
            if child is None or not child.alive:
                child = self._new_child()
            return child.ask(source, target, self._max_pixels)
        finally:
            self._put_back(child)

    def _put_back(self, child: _Child | None) -> None:
        with self._lock:
            if self._closed and child is not None:
                child.stop()
            self._idle.put(child if child is not None and child.alive else None)

    def _new_child(self) -> _Child:
        # Several threads may need their first child at once; one that the set has lost would outlive `close`.
        with self._lock:
            if self._closed:
                raise StoreUnavailable("The server stops. Send the image again in a few seconds.")
            # Those that died are dropped here, or the set would grow with each image that killed its child.
            self._children = {child for child in self._children if child.alive}
            child = _Child(self._memory)
            self._children.add(child)
            self.started += 1
            return child

    def kill_children(self) -> None:
        """Kill the idle children as the system would when memory runs out; they are replaced when next needed."""
        for child in list(self._idle.queue):
            if child is not None:
                child.kill()

    def close(self) -> None:
        """Kill the children, also those at work: whoever waits for an image is gone by now."""
        with self._lock:
            self._closed = True
            for child in self._children:
                child.kill()
            # Pipes of idle children alone: those of one at work are closed by the thread that waits for it.
            idle: list[_Child | None] = []
            with contextlib.suppress(queue.Empty):
                while True:
                    idle.append(self._idle.get_nowait())
            for child in idle:
                if child is not None:
                    child.stop()
                self._idle.put(None)


class _Child:
    """One long-lived child process, at a lower priority than the server."""

    def __init__(self, memory_limit_bytes: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "storage.blobs.images", str(memory_limit_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=_PROJECT,
            # Nothing of our environment: the child decodes bytes of strangers and needs none of our secrets. Each
            # malloc arena reserves 64 MiB of the address space that RLIMIT_AS counts, so there are two.
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2"},
            # Ctrl-C in the server's terminal goes to its whole process group, and would kill children at work.
            start_new_session=True,
            # poll asks the kernel: a line that Python had buffered already would never show as readable.
            bufsize=0,
        )
        self.alive = True

    def ask(self, source: Path, target: Path, max_pixels: int) -> CanonicalImage:
        """One image; a child that dies or is too slow costs that image its place."""
        request = json.dumps({"source": str(source), "target": str(target), "max_pixels": max_pixels})
        response = self._exchange(request.encode() + b"\n")
        if response is None:
            self.stop()
            raise ImageRefused("too_much_work", "takes too much memory or time to open; export it smaller")
        facts = cast(dict[str, Any], json.loads(response))
        if "reason" in facts:
            raise ImageRefused(facts["reason"], facts["message"])
        if "errno" in facts:
            number = facts["errno"] or 0
            raise store_error(OSError(number, os.strerror(number)), STAGING)
        return CanonicalImage(**facts)

    def _exchange(self, request: bytes) -> bytes | None:
        stdin, stdout = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        try:
            stdin.write(request)
            stdin.flush()
        except BrokenPipeError:
            return None
        response = stdout.readline() if _is_ready(stdout, SECONDS_EACH) else b""
        return response if response.endswith(b"\n") else None

    def kill(self) -> None:
        """Kill the process and wait for it."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Kill the process and close what led to it."""
        self.alive = False
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _is_ready(stream: BinaryIO, seconds: float) -> bool:
    """Whether something can be read within a time. By poll: select knows no descriptor above 1023."""
    waiting = select.poll()
    waiting.register(stream, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))
