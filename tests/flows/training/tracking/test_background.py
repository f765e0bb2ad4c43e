"""A tracker that is slow, that fails or that hangs costs a training nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

import pytest

from flows.training.tracking.background import BackgroundTracker


class Noted:
    """Notes its calls; `fails_at` is the step at which it raises."""

    def __init__(self, fails_at: int = -1) -> None:
        self.calls: list[object] = []
        self._fails_at = fails_at

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step == self._fails_at:
            raise OSError("the server is gone\nand a second line")
        self.calls.append(step)

    def image(self, key: str, step: int, png: bytes) -> None:
        self.calls.append((key, step))

    def flush(self) -> None:
        self.calls.append("flush")

    def end(self, status: str) -> None:
        self.calls.append(status)


def test_calls_are_carried_out_in_their_order_and_the_end_waits_for_them() -> None:
    noted = Noted()
    tracker = BackgroundTracker("toy", lambda: noted)
    for step in range(3):
        tracker.call(lambda one, step=step: one.log(step, {"loss": 1.0}))
    tracker.call(lambda one: one.image("sample-0", 2, b""))
    tracker.end("FINISHED")
    assert noted.calls == [0, 1, 2, ("sample-0", 2), "FINISHED"]


def test_a_tracker_that_fails_is_left_out_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    noted = Noted(fails_at=1)
    tracker = BackgroundTracker("toy", lambda: noted)
    with caplog.at_level(logging.WARNING, "darkroom.tracking"):
        for step in range(4):
            tracker.call(lambda one, step=step: one.log(step, {"loss": 1.0}))
        tracker.end("FINISHED")
        tracker.call(lambda one: one.flush())
    assert noted.calls == [0]
    assert caplog.messages == ["tracker toy gets no more of this job: OSError: the server is gone"]


def test_a_tracker_that_does_not_begin_is_left_out_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    def begin() -> Noted:
        raise ConnectionError("no route")

    with caplog.at_level(logging.WARNING, "darkroom.tracking"):
        tracker = BackgroundTracker("toy", begin)
        tracker.end("FAILED")
    assert caplog.messages == ["tracker toy gets no more of this job: ConnectionError: no route"]


def test_the_end_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()
    tracker = BackgroundTracker("toy", Noted)
    tracker.call(lambda one: release.wait(30))  # pyright: ignore[reportArgumentType]
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "darkroom.tracking"):
        tracker.end("FINISHED", wait_seconds=0.2)
    release.set()
    assert time.monotonic() - started < 5
    assert caplog.messages == ["tracker toy has not taken everything after 0 s"]
