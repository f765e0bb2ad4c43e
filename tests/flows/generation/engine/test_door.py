"""The engine's door, in a thread of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from flows.generation.engine.client import EngineClient
from flows.generation.engine.engine import Engine
from flows.generation.engine.server import served
from storage.errors import InUse, StoreUnavailable
from tests.flows.generation.engine.bench import SECONDS, LocalFiles, running


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
