"""An engine in a thread of the test, with tiny models, and what it has sent."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from flows.generation.engine.engine import Engine
from flows.generation.engine.messages import (
    DrawingEnded,
    DrawingFailed,
    DrawRequest,
    Message,
    PictureDrawn,
    PictureStarted,
)
from flows.generation.engine.tickets import Ticket
from storage.errors import BlobMissing
from storage.records.generation.drawings import Drawing, DrawnAdapter, DrawnImage, DrawnModel

SECONDS = 60.0


@dataclass
class LocalFiles:
    """Models and adapters in folders of the test. `gate`: a model is loaded once it is set."""

    models: Mapping[int, Path]
    adapters: Mapping[str, Path] = field(default_factory=dict)
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    @contextmanager
    def folder(self, model: DrawnModel) -> Generator[Path]:
        self.gate.wait(SECONDS)
        if model.version_id not in self.models:
            raise BlobMissing("the model is gone")
        yield self.models[model.version_id]

    @contextmanager
    def adapter(self, adapter: DrawnAdapter) -> Generator[Path]:
        yield self.adapters[adapter.sha256]

    def picture(self, sha256: str) -> Image.Image:
        if sha256 not in self.pictures:
            raise BlobMissing("the picture is gone")
        return self.pictures[sha256]


class Heard:
    """The messages of one request."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.ended = threading.Event()
        self._some = threading.Condition()

    def __call__(self, message: Message) -> None:
        with self._some:
            self.messages.append(message)
            self._some.notify_all()
        if isinstance(message, DrawingEnded | DrawingFailed):
            self.ended.set()

    def wait_for(self, kind: type[Message]) -> Any:
        """The first message of a kind, once it is there."""
        with self._some:
            assert self._some.wait_for(lambda: any(isinstance(one, kind) for one in self.messages), SECONDS)
        return next(one for one in self.messages if isinstance(one, kind))

    def pictures(self) -> dict[int, NDArray[np.uint8]]:
        """Every picture by its number, (height, width, 3), once the request has ended well."""
        assert self.ended.wait(SECONDS), self.messages[-3:]
        assert isinstance(self.messages[-1], DrawingEnded), self.messages[-1]
        drawn = [one for one in self.messages if isinstance(one, PictureDrawn)]
        return {one.number: np.frombuffer(one.pixels, np.uint8).reshape(one.height, one.width, 3) for one in drawn}

    def shapes(self) -> set[int]:
        """The batch shapes that its pictures were begun in, once it has ended."""
        assert self.ended.wait(SECONDS)
        return {one.shape for one in self.messages if isinstance(one, PictureStarted)}

    def failure(self) -> DrawingFailed:
        """Why it failed."""
        assert self.ended.wait(SECONDS)
        [failed] = [one for one in self.messages if isinstance(one, DrawingFailed)]
        return failed


@contextmanager
def running(files: LocalFiles, budget: int = 10**9, idle_seconds: float = 300.0) -> Generator[Engine]:
    """An engine that draws until the end of the block."""
    engine = Engine(files, files.picture, torch.device("cpu"), budget, idle_seconds)
    thread = threading.Thread(target=engine.run, name="engine")
    thread.start()
    try:
        yield engine
    finally:
        engine.stop()
        files.gate.set()
        thread.join(SECONDS)
        assert not thread.is_alive()


def model_of(version_id: int) -> DrawnModel:
    """A model of its own for each version."""
    return DrawnModel(version_id=version_id, family="sd1", files={"unet": f"{version_id:064d}"})


def drawing(*seeds: int, version: int = 1, **changes: Any) -> Drawing:
    """A few quick pictures."""
    fields: dict[str, Any] = {
        "model": model_of(version),
        "images": tuple(DrawnImage(prompt="a photo of a mug", seed=seed) for seed in seeds),
        "width": 64,
        "height": 64,
        "steps": 3,
        "guidance_scale": 3.0,
    }
    return Drawing(**{**fields, **changes})


def ask(engine: Engine, whole: Drawing, **changes: Any) -> Heard:
    """Submit all pictures of a drawing, or those that are `wanted`."""
    return submit(engine, whole, **changes)[0]


def submit(engine: Engine, whole: Drawing, **changes: Any) -> tuple[Heard, Ticket]:
    """As `ask`, with the ticket to cancel it by."""
    heard = Heard()
    fields: dict[str, Any] = {"drawing": whole, "wanted": tuple(range(len(whole.images))), **changes}
    return heard, engine.submit(DrawRequest(**fields), heard)
