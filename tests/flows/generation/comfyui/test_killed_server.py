"""A server that dies while it draws. Behind the other files that use it: the next one would start it again."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from flows.generation.callbacks import DrawingCallbacks
from flows.generation.comfyui.address import ComfyAddress
from flows.generation.comfyui.backend import ComfyBackend
from storage.errors import BackendUnavailable
from tests.comfyui import ComfyServer
from tests.flows.generation.comfyui.conftest import NAMES, QUICK, SOON, TINY_VERSION, picture_named
from tests.flows.generation.drawing_contract import a_drawing


def test_a_killed_server_is_named_within_the_time(comfyui_server: ComfyServer) -> None:
    comfyui_server.start()
    backend = ComfyBackend(
        ComfyAddress(url=comfyui_server.url),
        picture_named,
        names=NAMES,
        limits=replace(QUICK, unreachable=0.5),
    )
    wanted, began = a_drawing(TINY_VERSION, 91, steps=2000), list[float]()

    def kill(*_: object) -> None:
        if not began:
            comfyui_server.kill()
            began.append(time.monotonic())

    with pytest.raises(BackendUnavailable, match=r"does not respond to history/.*Start it"):
        list(backend.draw(wanted, DrawingCallbacks(step=kill)))
    assert time.monotonic() - began[0] < SOON
    with pytest.raises(BackendUnavailable, match="does not respond"):
        backend.capabilities(fresh=True)
    backend.close()
