"""The engine's door, in a thread of the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image

from flows.generation.engine import server
from flows.generation.engine.__main__ import draw_until_stopped
from flows.generation.engine.client import EngineClient
from flows.generation.engine.engine import Engine
from flows.generation.engine.messages import DrawRequest, PictureDrawn
from flows.generation.engine.server import served
from flows.jobs.stalls import StallLimit
from storage.errors import InUse, StoreUnavailable
from storage.records.generation.drawings import Operation
from storage.records.jobs.jobs import Progress
from tests.flows.generation.engine.bench import SECONDS, LocalFiles, drawing, running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine" / "engine.sock"


@pytest.fixture
def engine() -> Iterator[Engine]:
    """One that draws nothing with a model."""
    with running(LocalFiles({})) as one:
        yield one


def test_the_door_is_open_when_the_block_begins(engine: Engine, path: Path) -> None:
    with served(engine, {"device": "cpu"}, path):
        assert EngineClient(path).status()["device"] == "cpu"

    with pytest.raises(StoreUnavailable):
        EngineClient(path).status()


def test_a_second_engine_on_the_folder_is_refused_and_the_first_answers_on(engine: Engine, path: Path) -> None:
    with served(engine, {"place": "first"}, path):
        with pytest.raises(InUse, match="Another engine"), served(engine, {"place": "second"}, path):
            pass

        assert EngineClient(path).status()["place"] == "first"


def test_what_ends_an_engine_by_name_is_logged_and_its_exit_status(
    engine: Engine, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limit = StallLimit(60.0, lambda: Progress(phase="draw"), lambda _error: None)
    with served(engine, {}, path):
        assert draw_until_stopped(engine, {}, path, limit) == 1

    assert "Another engine has" in caplog.text


def upscales(count: int, side: int) -> DrawRequest:
    """Large pictures that are made at once."""
    whole = drawing(*range(count), operation=Operation.UPSCALE, source="5" * 64, width=side, height=side)
    return DrawRequest(drawing=whole, wanted=tuple(range(count)))


@contextmanager
def served_upscales(path: Path) -> Iterator[Engine]:
    pictures = {"5" * 64: Image.new("RGB", (64, 64), (9, 8, 7))}
    with running(LocalFiles({}, pictures=pictures)) as engine, served(engine, {}, path):
        yield engine


def test_large_pictures_arrive_whole(path: Path) -> None:
    with served_upscales(path):
        messages = list(EngineClient(path).draw(upscales(2, 512)))

    drawn = [one for one in messages if isinstance(one, PictureDrawn)]
    assert [one.number for one in drawn] == [0, 1]
    assert {one.pixels for one in drawn} == {bytes((9, 8, 7)) * 512 * 512}


def test_a_reader_that_does_not_read_is_cancelled_and_holds_nobody_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "UNREAD_SECONDS", 0.2)
    with served_upscales(path) as engine:
        slow = EngineClient(path).draw(upscales(60, 1024))
        next(slow)
        deadline = time.monotonic() + SECONDS
        while engine.waiting() and time.monotonic() < deadline:
            time.sleep(0.05)
        others = list(EngineClient(path).draw(upscales(1, 64)))

        with pytest.raises(StoreUnavailable, match=r"was read for 0\.2 seconds"):
            for _ in slow:
                pass

    assert isinstance(others[-1], PictureDrawn)


def test_a_server_that_does_not_start_is_named(engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", lambda _self, **_sockets: None)
    begun = list[bool]()

    with pytest.raises(StoreUnavailable, match=r"server at .* has ended"), served(engine, {}, path):
        begun.append(True)
    assert not begun


def test_an_engine_whose_server_has_ended_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = threading.Event()

    def run(self: uvicorn.Server, **_sockets: Any) -> None:
        self.started = True
        closed.wait(SECONDS)

    monkeypatch.setattr(uvicorn.Server, "run", run)
    with (
        running(LocalFiles({})) as engine,
        pytest.raises(StoreUnavailable, match="Start the engine again"),
        served(engine, {}, path),
    ):
        drawing = next(one for one in threading.enumerate() if one.name == "engine")
        assert drawing.is_alive()
        closed.set()
        drawing.join(SECONDS)
        assert not drawing.is_alive()
