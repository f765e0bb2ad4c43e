"""The settings say where a ComfyUI is, what it is shown, and what versions are called there."""

from __future__ import annotations

import json

import pytest

from flows.generation.comfyui.configured import configured_backend
from storage.comfyui_settings import ComfyuiSettings
from storage.errors import InvalidSettings
from storage.settings import Settings
from tests.flows.generation.comfyui.conftest import drawing, picture_named
from tests.flows.generation.comfyui.scripted_peer import ScriptedPeer


def test_a_backend_is_what_the_environment_says(peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.script.wanted_header = ("X-Key", "s3cret")
    for name, value in {
        "URL": peer.url,
        "HEADER": "X-Key",
        "SECRET": "s3cret",
        "MODELS": json.dumps({"1": "mugs.safetensors"}),
        "ADAPTERS": '{"7": "red.safetensors"}',
    }.items():
        monkeypatch.setenv(f"DARKROOM_COMFYUI__{name}", value)
    settings = Settings().comfyui
    backend = configured_backend(settings, picture_named)

    assert [one.number for one in backend.draw(drawing())] == [0]
    assert "s3cret" not in repr(settings)
    backend.close()


@pytest.mark.parametrize(("url", "match"), [("", "DARKROOM_COMFYUI__URL"), ("gpu:8188", "must begin with http")])
def test_settings_without_a_usable_address_are_named(url: str, match: str) -> None:
    with pytest.raises(InvalidSettings, match=match):
        configured_backend(ComfyuiSettings(url=url), picture_named)
