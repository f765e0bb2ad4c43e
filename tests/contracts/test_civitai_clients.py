"""Three clients of Civitai's API that others wrote list, page, look up by hash and download what is published here.

tests/faults has the same for what the main job made on a whole platform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from civitai_hub.errors import AuthRequiredError, CivitaiError, NotFoundError
from civitapy import Model
from civitapy.errors import CivitAIError

from storage.blobs.store import BlobStore
from storage.postgres.catalog import catalog
from storage.records.catalog.catalog import NewImage
from tests.contracts.civitai_clients import (
    civitai_hub_at,
    civitapy_at,
    download_by_civitai_hub,
    download_by_civitdl,
    every_model,
)
from tests.platform_api.door import Door, photo, register_starter, serving
from tests.platform_api.http.test_downloads import CONTENT, Published, publish

SHA256 = hashlib.sha256(CONTENT).hexdigest().upper()


@dataclass
class Catalogue:
    """A running API with three published models, each with an image."""

    door: Door
    published: list[Published]

    @property
    def newest(self) -> Published:
        return self.published[-1]


@pytest.fixture(scope="module")
def catalogue(
    module_database_url: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Catalogue]:
    with serving(tmp_path_factory.mktemp("civitai"), module_database_url, valkey_server) as door:
        register_starter(door.database)
        published = [publish(door, door.client(), "model.safetensors") for _ in range(3)]
        picture = BlobStore(door.settings.blobs).put(photo(1))
        image = NewImage(
            sha256=picture.sha256,
            size=picture.size,
            media_type="image/png",
            width=64,
            height=48,
            blurhash="L00000",
            meta={"prompt": "a photo of a sks mug", "seed": 7, "steps": 25, "sampler": "DDIM", "cfgScale": 3.0},
        )
        for model in published:
            door.database.run(catalog.add_images(model.version, door.account_id, [image]))
        yield Catalogue(door, published)


def test_civitapy_lists_pages_looks_up_and_downloads(catalogue: Catalogue, tmp_path: Path) -> None:
    client, newest = civitapy_at(catalogue.door.url, tmp_path), catalogue.newest
    listed = client.models_list(limit=2, sort="Newest", types=["Checkpoint", "LORA"])
    assert [item["id"] for item in listed["items"]] == [model.model for model in reversed(catalogue.published[1:])]

    assert every_model(client, sort="Newest") == [model.model for model in reversed(catalogue.published)]
    assert Model(**client.models_get(newest.model)).model_versions[0].files[0].primary
    assert client.model_versions_by_hash_bulk([SHA256])[0]["id"] == catalogue.published[0].version
    found = client.model_versions_by_hash_ids([SHA256.lower()])
    assert [match.model_version_id for match in found] == [catalogue.published[0].version]
    mini = client.model_versions_mini(newest.version)
    assert mini["air"] == f"urn:air:other:checkpoint:civitai:{newest.model}@{newest.version}"
    images = client.images_list(model_id=newest.model, with_meta=True)
    assert images["items"][0]["meta"]["seed"] == 7
    assert client.tags_list()["items"] == []
    assert client.creators_list()["items"][0]["username"] == "owner"
    assert "Checkpoint" in client.enums()["ModelType"]
    [path] = client.download_model_version(newest.version)
    assert Path(path).read_bytes() == CONTENT


def test_civitapy_reads_our_refusals(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(CivitAIError, match="No model"):
        civitapy_at(catalogue.door.url, tmp_path).models_get(999999)
    with pytest.raises(CivitAIError):
        civitapy_at(catalogue.door.url, tmp_path, "drk_wrong_key").models_list()
    assert civitapy_at(catalogue.door.url, tmp_path, catalogue.door.key).users_me()["username"] == "owner"


@pytest.mark.parametrize("with_key", [False, True])
def test_civitai_hub_lists_pages_looks_up_and_downloads(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_key: bool
) -> None:
    newest = catalogue.newest
    with civitai_hub_at(catalogue.door.url, monkeypatch, catalogue.door.key if with_key else None) as client:
        found = client.search_models(types="Checkpoint", base_models="starter", sort="Newest", limit=100)
        assert {model.id for model in found} == {model.model for model in catalogue.published}
        every = client.search_models(sort="Newest", limit=3)
        assert [model.id for model in every] == [model.model for model in reversed(catalogue.published)]
        assert client.get_version_by_hash(SHA256[:10].lower()).id == catalogue.published[0].version
        assert download_by_civitai_hub(client, newest.model, tmp_path).read_bytes() == CONTENT


def test_civitai_hub_reads_our_refusals(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    with civitai_hub_at(catalogue.door.url, monkeypatch) as client:
        with pytest.raises(NotFoundError):
            client.get_version_by_hash("0" * 64)
        with pytest.raises(CivitaiError, match="invalid_cursor"):
            client._get_json("/models", {"cursor": "not ours"})
    with civitai_hub_at(catalogue.door.url, monkeypatch, "drk_wrong_key") as client, pytest.raises(AuthRequiredError):
        client.get_model(catalogue.newest.model)


def test_civitdl_downloads_a_model_with_its_images_and_hashes(catalogue: Catalogue, tmp_path: Path) -> None:
    door = catalogue.door
    files = download_by_civitdl(door.url, catalogue.newest.model, tmp_path, door.key)
    assert files[".safetensors"].read_bytes() == CONTENT
    assert files[".png"].read_bytes() == photo(1)
    assert files[".safetensors"].name.startswith("sks-mug-")
    assert files[".safetensors"].name.endswith(
        f"_v1-mid_{catalogue.newest.model}-vid_{catalogue.newest.version}.safetensors"
    )
    assert f"SHA256, {SHA256}" in files[".csv"].read_text()
