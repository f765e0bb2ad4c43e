"""Which backends there are, and what the engine's says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from flows.generation.backends.local import LocalBackend
from flows.generation.backends.lookup import open_backends
from flows.generation.engine.backend import EngineBackend
from flows.generation.engine.server import served
from storage.comfyui_settings import ComfyuiSettings
from storage.errors import BackendUnavailable
from storage.records.generation.drawings import NO_MODEL, Operation
from storage.settings import GenerationSettings, Settings
from storage.stores import Stores
from tests.flows.generation.backends.toys import DRAWING
from tests.flows.generation.engine.bench import LocalFiles, running


@pytest.mark.parametrize(
    ("engine", "url", "names"),
    [
        (True, "", ["local"]),
        (True, "http://comfy.example.org", ["local", "comfyui"]),
        (False, "http://comfy.example.org", ["comfyui"]),
        (False, "", []),
    ],
)
def test_the_settings_name_the_backends(module_stores: Stores, engine: bool, url: str, names: list[str]) -> None:
    settings = Settings(generation=GenerationSettings(engine=engine), comfyui=ComfyuiSettings(url=url))
    found = open_backends(replace(module_stores, settings=settings))

    assert list(found) == names
    for backend in found.values():
        backend.close()


def test_the_engine_says_what_it_is_while_it_is_there(short_folder: Path) -> None:
    path = short_folder / "facts" / "engine.sock"
    backend = LocalBackend(EngineBackend(path))
    with pytest.raises(BackendUnavailable, match="does not respond"):
        backend.facts()
    with running(LocalFiles({})) as engine, served(engine, {"release": "1.2", "device": "cpu", "pid": 5}, path):
        facts = backend.facts()

    assert facts.version == "1.2"
    assert (facts.capabilities["device"], facts.capabilities["families"]) == ("cpu", ["sd1", "sdxl"])
    assert "pid" not in facts.capabilities


def test_the_engine_lacks_the_families_that_it_does_not_know() -> None:
    backend = LocalBackend(EngineBackend(Path("/nowhere")))
    strange = msgspec.structs.replace(DRAWING, model=msgspec.structs.replace(DRAWING.model, family="flux"))
    upscale = msgspec.structs.replace(DRAWING, model=NO_MODEL, operation=Operation.UPSCALE)

    assert backend.missing_for(DRAWING) == backend.missing_for(upscale) == {}
    assert list(backend.missing_for(strange)) == ["model"]
