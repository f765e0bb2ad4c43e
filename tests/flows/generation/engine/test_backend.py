"""The engine keeps the contract of backends, through its socket."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path

import msgspec
import pytest
import torch

from flows.generation.backends.local import LocalBackend
from flows.generation.callbacks import DrawingCallbacks
from flows.generation.drawn_pictures import DrawnPicture
from flows.generation.engine import picture_reports
from flows.generation.engine.backend import EngineBackend
from flows.generation.engine.client import EngineClient
from flows.generation.engine.server import served
from storage.errors import JobCannotSucceed
from storage.records.generation.drawings import Drawing, DrawnModel
from storage.stores import Stores
from tests.flows.generation.comfyui.conftest import MASK, SOURCE, STARTER, picture_named
from tests.flows.generation.drawing_contract import (
    Drawer,
    DrawingContract,
    a_drawing,
    drawn,
    numbered,
    through_selection,
)
from tests.flows.generation.engine.bench import LocalFiles, running

STARTER_VERSION, TINY_VERSION = (
    DrawnModel(version_id=number, family="sd1", files={"unet": f"{number:064d}"}) for number in (1, 2)
)


@pytest.fixture(scope="module")
def socket(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where an engine with the starter and a tiny model listens."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("e") / "engine.sock"
    pictures = {name: picture_named(name) for name in (SOURCE, MASK)}
    files = LocalFiles({1: Path(STARTER), 2: tiny_model}, pictures=pictures)
    with running(files) as engine, served(engine, {}, path):
        yield path


class TestEngine(DrawingContract):
    """Pictures are drawn alone, as `exact` asks for: those of another shape may differ by a level."""

    @pytest.fixture
    def drawer(self, socket: Path, module_stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Drawer:
        monkeypatch.setattr(picture_reports, "PREVIEW_SECONDS", 0.0)
        engine, client = EngineBackend(socket), EngineClient(socket)
        through = through_selection(module_stores, "local", LocalBackend(engine))

        def draw(drawing: Drawing, callbacks: DrawingCallbacks) -> Generator[DrawnPicture]:
            return through(msgspec.structs.replace(drawing, exact=True), callbacks)

        def unfinished() -> int:
            # It learns of a client that hung up by the next turn of its loop.
            deadline = time.monotonic() + 10
            while (waiting := client.status()["waiting"]) and time.monotonic() < deadline:
                time.sleep(0.02)
            return waiting

        return Drawer(draw, STARTER_VERSION, TINY_VERSION, 1, 0, unfinished)

    def test_a_model_that_is_not_there_is_refused_and_not_replaced(self, drawer: Drawer) -> None:
        unknown = DrawnModel(version_id=987_654, family="sd1", files={"unet/x.safetensors": "9" * 64})
        with pytest.raises(JobCannotSucceed, match="the model is gone"):
            drawn(drawer, a_drawing(unknown))


def test_what_was_drawn_before_is_not_drawn_again(socket: Path) -> None:
    whole = a_drawing(TINY_VERSION, 1, 2, 3, exact=True)
    pictures = numbered(EngineBackend(socket).draw(whole))

    [rest] = EngineBackend(socket).draw(whole, wanted=[1])

    assert (rest.number, rest.image.tobytes()) == (1, pictures[1].tobytes())
