"""The place in the queue and previews, while a generation waits and is drawn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from deployments.client.api import open_api
from deployments.client.responses import JobResponse
from deployments.commands.generation import drawing_watch
from deployments.commands.generation.drawing_watch import replace_file, watching
from storage.postgres.jobs import jobs
from storage.redis.progress import ProgressWriter
from storage.settings import load_settings
from tests.deployments.line import Line
from tests.platform_api.generation.drawing import GENERATIONS, Artist, drawable


def test_the_queue_is_noted_and_the_preview_file_is_the_newest(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing_watch, "QUEUE_SECONDS", 0.02)
    monkeypatch.setattr(drawing_watch, "PREVIEW_SECONDS", 0.02)
    client = line.door.client()
    body = {"model": drawable(line.door, client), "prompt": "a mug"}
    first, second = (client.post(GENERATIONS, json=body).json()["id"] for _ in range(2))
    notes: list[str] = []
    target = line.folder / "look.jpg"
    writer = ProgressWriter(line.door.settings.redis)
    with open_api(load_settings()) as api:
        job = api.get(f"{GENERATIONS}/{second}", JobResponse)
        before = job.queue_position
        assert before
        with watching(api, job, notes.append, target):
            client.post(f"{GENERATIONS}/{first}/cancel")
            wait_until(lambda: bool(notes))
            claimed = Artist(line.door).claim(second)
            for look in (b"\xff\xd8 first", b"\xff\xd8 second"):
                writer.show(claimed.id, look)
                wait_until(lambda look=look: target.exists() and target.read_bytes() == look)
    writer.close()
    assert str(before - 1) in notes[0] or "next in the queue" in notes[0]
    assert [path.name for path in line.folder.iterdir() if path.suffix != ".png"] == ["look.jpg"]
    line.door.database.run(jobs.fail(UUID(second), 1, "x", "x"))


def test_whoever_looks_at_a_file_sees_one_whole_picture(tmp_path: Path) -> None:
    target = tmp_path / "look.jpg"
    replace_file(target, b"0" * 100_000)
    torn: list[bytes] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            content = target.read_bytes()
            if len(set(content)) != 1 or len(content) != 100_000:
                torn.append(content)

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(100):
        replace_file(target, bytes([48 + number % 10]) * 100_000)
    ended.set()
    thread.join()
    assert torn == []
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "no" / "look.jpg", b"")


def wait_until(done: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)
