"""What a generation shows beside its events: its place in the queue, and previews as a picture file."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import httpx

from deployments.client.api import Api, ApiRefusal, ApiUnreachable
from deployments.client.responses import JobResponse

QUEUE_SECONDS, PREVIEW_SECONDS = 3.0, 1.0
OK = 200


@contextlib.contextmanager
def watching(api: Api, job: JobResponse, note: Callable[[str], None], preview: Path | None) -> Generator[None]:
    """Say how many go before the job while it waits, and keep `preview` the newest one while it is drawn.

    Beside whoever reads its events: those come when it begins and while it is drawn, and say nothing of the queue.
    """
    ended = threading.Event()
    watch = DrawingWatch(api, job, note, preview)
    thread = threading.Thread(target=watch.run, args=(ended,), name="drawing-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class DrawingWatch:
    """Looks again and again until it is told that the job has ended."""

    def __init__(self, api: Api, job: JobResponse, note: Callable[[str], None], preview: Path | None) -> None:
        self._api, self._job, self._note, self._preview = api, job, note, preview
        self._waits, self._ahead = job.state == "submitted", job.queue_position
        self._shown = b""

    def run(self, ended: threading.Event) -> None:
        """Look until `ended`. A look that fails is passed over: the events say what became of the API."""
        while not ended.wait(QUEUE_SECONDS if self._waits else PREVIEW_SECONDS):
            with contextlib.suppress(ApiRefusal, ApiUnreachable, httpx.HTTPError):
                if self._waits:
                    self._look_at_queue()
                elif self._preview is None:
                    return
                else:
                    self._look_at_preview(self._preview)

    def _look_at_queue(self) -> None:
        job = self._api.get(self._job.path, JobResponse)
        self._waits = job.state == "submitted"
        if self._waits and job.queue_position is not None and job.queue_position != self._ahead:
            self._ahead = job.queue_position
            self._note(queue_words(job))

    def _look_at_preview(self, target: Path) -> None:
        response = self._api.http.get(f"{self._job.path}/preview")
        if response.status_code == OK and response.content != self._shown:
            self._shown = response.content
            replace_file(target, response.content)


def queue_words(job: JobResponse) -> str:
    """How many go before a job, and for how long that may be."""
    ahead = job.queue_position or 0
    words = "next in the queue" if ahead == 0 else f"{ahead} generations go before it"
    return f"{words}, about {job.estimated_seconds:.0f} s" if job.estimated_seconds else words


def replace_file(target: Path, content: bytes) -> None:
    """Write a file as a whole: whoever looks at it sees the old one or the new one. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(content)
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
