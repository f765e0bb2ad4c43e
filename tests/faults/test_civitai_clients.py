"""What the main job made is a model like any other to Civitai's clients: listed, paged, looked up and downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors import safe_open

from tests.contracts.civitai_clients import (
    civitai_hub_at,
    civitapy_at,
    download_by_civitai_hub,
    download_by_civitdl,
    every_model,
)
from tests.faults.bench import Bench

pytestmark = pytest.mark.timeout(1500)  # a hang, not a slow machine


def assert_whole(path: str | Path, sha256: str) -> None:
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest().upper() == sha256
    with safe_open(path, framework="np") as weights:
        assert any(key.startswith("model.diffusion_model.") for key in weights.keys())  # noqa: SIM118 - it is no dict


def assert_three_clients_find_and_download(
    url: str,
    key: str,
    version: dict[str, Any],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_newest: bool = True,
) -> None:
    """Clients that others wrote list, page, look up and download a version that was trained here and is published."""
    model_id, [file] = version["modelId"], version["files"]
    sha256 = file["hashes"]["SHA256"]

    client = civitapy_at(url, folder / "civitapy")
    assert model_id in every_model(client, sort="Newest")
    shown = [each["id"] for each in client.models_get(model_id)["modelVersions"]]
    assert version["id"] in (shown[:1] if is_newest else shown)
    [found] = client.model_versions_by_hash_bulk([sha256])
    assert found["files"][0]["hashes"]["SHA256"] == sha256  # the first version with these bytes
    [path] = client.download_model_version(version["id"])
    assert_whole(path, sha256)

    with civitai_hub_at(url, monkeypatch) as hub:
        assert model_id in {model.id for model in hub.search_models(sort="Newest", limit=100)}
        assert hub.get_version_by_hash(sha256[:10]).id == found["id"]
        assert_whole(download_by_civitai_hub(hub, model_id, folder / "hub"), sha256)

    files = download_by_civitdl(url, model_id, folder / "civitdl", key)
    assert_whole(files[".safetensors"], sha256)
    assert files[".png"].stat().st_size > 0  # a picture of its evaluation


def test_three_clients_find_and_download_a_model_that_was_trained_here(
    bench: Bench, straight_job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, version = bench.platform.api_url, bench.model_version(straight_job)
    nobodys = httpx.get(f"{url}/api/v1/models/{version['modelId']}")
    assert nobodys.status_code == 404  # a fine-tune is its owner's until it is published
    assert bench.client.post(f"/models/{version['modelId']}/publish").status_code == 200
    assert_three_clients_find_and_download(url, bench.platform.key, version, tmp_path, monkeypatch)
