"""A real ComfyUI for the tests of this folder, and one that behaves as a test says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from flows.generation.comfyui.address import ComfyAddress
from flows.generation.comfyui.backend import ComfyBackend
from flows.generation.comfyui.http import ComfyHttp
from flows.generation.comfyui.limits import ComfyLimits
from storage.records.jobs.generation.comfy_models import ComfyNames, InstalledModel
from storage.records.jobs.generation.drawings import Drawing, DrawnImage, DrawnModel
from tests.comfyui import ComfyServer, serving
from tests.flows.generation.comfyui.scripted_peer import ScriptedPeer, scripted_peer

STARTER = Path(__file__).parents[4] / "deployments" / "local" / "starter"
SOURCE, MASK = "5" * 64, "6" * 64
QUICK = ComfyLimits(
    connect=1.0,
    read=1.0,
    response=1.0,
    poll=0.05,
    reconnect=0.05,
    unreachable=0.6,
    queue=0.8,
    stall=0.6,
    picture=1.5,
    cancel=0.3,
)
PEERS_MODEL = ComfyNames(models={1: InstalledModel(name="mugs.safetensors")})
DRAWING = Drawing(
    model=DrawnModel(version_id=1, family="sd1", files={}),
    images=(DrawnImage(prompt="a photo of a mug", seed=5),),
    width=64,
    height=64,
    steps=4,
    guidance_scale=3.0,
)


def drawing(**changes: Any) -> Drawing:
    """A small one of one picture, with changes."""
    return msgspec.structs.replace(DRAWING, **changes)


def pictures(*seeds: int) -> tuple[DrawnImage, ...]:
    """One picture a seed, of one prompt."""
    return tuple(DrawnImage(prompt="a photo of a mug", seed=seed) for seed in seeds)


def picture_named(sha256: str) -> Image.Image:
    """A source of many colours, and a mask whose left half is white."""
    if sha256 == SOURCE:
        gradient = Image.linear_gradient("L").resize((64, 64))
        return Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180)))
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    return mask


@pytest.fixture(scope="session")
def comfyui_server(comfyui_folder: Path) -> Iterator[ComfyServer]:
    """A real ComfyUI that can draw with the starter, started by the first test that asks for it."""
    with serving(comfyui_folder, STARTER) as server:
        yield server


@pytest.fixture
def peer() -> Iterator[ScriptedPeer]:
    """A peer that does as its script says."""
    with scripted_peer() as running:
        yield running


@pytest.fixture
def http(peer: ScriptedPeer) -> Iterator[ComfyHttp]:
    """HTTP to that peer, with little patience."""
    client = ComfyHttp(ComfyAddress(url=peer.url), QUICK)
    yield client
    client.close()


@pytest.fixture
def backend(peer: ScriptedPeer) -> Iterator[ComfyBackend]:
    """The backend on that peer, with little patience."""
    made = ComfyBackend(ComfyAddress(url=peer.url), picture_named, names=PEERS_MODEL, limits=QUICK)
    yield made
    made.close()
