"""A step's progress counts UNet calls over all its pictures, and its newest preview is a JPEG."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from PIL import Image

from flows.generation import step_progress
from flows.generation.step_progress import StepProgress, as_jpeg
from storage.records.generation.drawings import Operation
from tests.flows.generation.bench import a_step


class Watched:
    """A job that keeps what is reported, and the previews that are shown."""

    def __init__(self) -> None:
        self.id = uuid4()
        self.reports: list[tuple[str, int, int]] = []
        self.shown: list[bytes] = []
        show = SimpleNamespace(show=lambda _id, jpeg: self.shown.append(jpeg))
        self.stores = SimpleNamespace(progress=show)

    def report(self, phase: str, step: int, total: int) -> None:
        self.reports.append((phase, step, total))

    def check(self) -> None:
        """It may go on."""


def encoded(form: str, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (9, 9, 9)).save(buffer, form)
    return buffer.getvalue()


def test_pictures_that_are_there_count_and_a_backend_that_lies_moves_nothing_back_or_beyond() -> None:
    job = Watched()
    progress = StepProgress(cast(Any, job), "base", a_step("base", 1, 2, 3).drawing, [0])
    callbacks = progress.callbacks()
    callbacks.step(1, 1, 3)
    callbacks.step(2, 700, 3)
    callbacks.step(1, 0, 0)
    progress.kept(1)
    assert job.reports == [("base", done, 9) for done in (3, 4, 7, 7, 9)]


def test_an_upscale_counts_pictures() -> None:
    job = Watched()
    drawing = a_step("large", operation=Operation.UPSCALE).drawing
    StepProgress(cast(Any, job), "large", drawing, []).kept(0)
    assert job.reports == [("large", 0, 1), ("large", 1, 1)]


def test_previews_are_shown_at_most_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    job, now = Watched(), [100.0]
    monkeypatch.setattr(step_progress.time, "monotonic", lambda: now[0])
    preview = StepProgress(cast(Any, job), "base", a_step().drawing, []).callbacks().preview
    jpeg = encoded("JPEG")
    for _ in range(5):
        preview(0, jpeg)
        now[0] += 0.2
    assert job.shown == [jpeg, jpeg]


@pytest.mark.parametrize("content", [b"", b"<svg>", encoded("GIF"), encoded("PNG")[:45], encoded("PNG", 4096)])
def test_what_is_no_small_picture_is_not_shown(content: bytes) -> None:
    assert as_jpeg(content) == b""


def test_a_preview_in_another_format_becomes_a_jpeg() -> None:
    assert as_jpeg(encoded("PNG")).startswith(b"\xff\xd8\xff")
