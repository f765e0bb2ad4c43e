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
from storage.records.generation.comfyui.comfy_models import ComfyNames, InstalledModel
from storage.records.generation.drawings import Drawing, DrawnImage, DrawnModel
from tests.comfyui import ComfyServer, serving
from tests.flows.generation.comfyui.scripted_peer import ScriptedPeer, scripted_peer

STARTER = Path(__file__).parents[4] / "deployments" / "local" / "starter"
SOURCE, MASK = "5" * 64, "6" * 64
QUICK = ComfyLimits(poll=0.05, reconnect=0.05, cancel=5.0)
"""Looks often, and is as patient as ever: a busy machine fails no test."""
IMPATIENT = ComfyLimits(
    connect=1.0,
    read=1.0,
    response=1.0,
    poll=0.05,
    reconnect=0.05,
    unreachable=0.6,
    queue=0.8,
    stall=0.6,
    picture=0.6,
    cancel=0.3,
)
"""For tests in which something is waited for that never comes."""
SOON = 15.0
"""Seconds in which such a wait is over on a busy machine, too: a fraction of what the peer hangs."""
PEERS_MODEL = ComfyNames(models={1: InstalledModel(name="mugs.safetensors")})
STARTER_VERSION, TINY_VERSION = (DrawnModel(version_id=number, family="sd1", files={}) for number in (1, 2))
NAMES = ComfyNames(
    models={1: InstalledModel(name="node:Starter", pixels_per_latent=4), 2: InstalledModel(name="node:TinySD")}
)
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
def real(comfyui_server: ComfyServer) -> Iterator[ComfyBackend]:
    """The backend on a real ComfyUI, which a test before may have killed."""
    comfyui_server.start()
    made = ComfyBackend(ComfyAddress(url=comfyui_server.url), picture_named, names=NAMES)
    yield made
    made.close()


@pytest.fixture
def peer() -> Iterator[ScriptedPeer]:
    """A peer that does as its script says."""
    with scripted_peer() as running:
        yield running


@pytest.fixture
def http(peer: ScriptedPeer) -> Iterator[ComfyHttp]:
    """HTTP to that peer."""
    client = ComfyHttp(ComfyAddress(url=peer.url), QUICK)
    yield client
    client.close()


@pytest.fixture
def backend(peer: ScriptedPeer) -> Iterator[ComfyBackend]:
    """The backend on that peer."""
    made = ComfyBackend(ComfyAddress(url=peer.url), picture_named, names=PEERS_MODEL, limits=QUICK)
    yield made
    made.close()


@pytest.fixture
def impatient(peer: ScriptedPeer) -> Iterator[ComfyBackend]:
    """The backend on that peer, with little patience."""
    made = ComfyBackend(ComfyAddress(url=peer.url), picture_named, names=PEERS_MODEL, limits=IMPATIENT)
    made.capabilities()
    yield made
    made.close()
