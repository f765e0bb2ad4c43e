"""Three clients of Civitai's API that others wrote list, page, look up by hash and download what was trained here.

civitapy takes a base URL. civitai-hub takes one after construction, and trusts the hosts it is told to. civitdl knows
one host only, so an adapter of its HTTP session carries its requests here. README has the recipe.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import civitai_hub.config
import pytest
from civitai_hub.cache import CacheStore
from civitai_hub.client import CivitaiClient
from civitai_hub.config import Settings as HubSettings
from civitai_hub.errors import AuthRequiredError, CivitaiError, NotFoundError
from civitai_hub.resolver import FileSelectors, pick_files, pick_version
from civitapy import CivitAIClient, Model
from civitapy.client import AsyncPaginator
from civitapy.errors import CivitAIError
from civitdl.batch._model import Model as DownloadedModel
from helpers.options import BatchOptions
from helpers.sourcemanager import SourceManager
from requests.adapters import HTTPAdapter

from storage.blobs.store import BlobStore
from storage.postgres import catalog
from storage.records.catalog import NewImage
from tests.platform_api.door import Door, photo, register_starter, serving
from tests.platform_api.test_downloads import CONTENT, Published, publish

HUB_DOWNLOADS: Any = import_module("civitai_hub.download")  # the package has a function of the same name
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


class ToThisHost(HTTPAdapter):
    """Carries requests for any host to one of ours."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url)
        super().__init__()

    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
        parts = urlsplit(request.url)
        request.url = urlunsplit(parts._replace(scheme=self._host.scheme, netloc=self._host.netloc))
        return super().send(request, *arguments, **options)


def a_civitapy(catalogue: Catalogue, folder: Path, token: str = "") -> CivitAIClient:
    return CivitAIClient(
        base_url=f"{catalogue.door.url}/api/v1", download_dir=str(folder), verify_hash=True, token=token, retry_count=1
    )


def test_civitapy_lists_pages_looks_up_and_downloads(catalogue: Catalogue, tmp_path: Path) -> None:
    client, newest = a_civitapy(catalogue, tmp_path), catalogue.newest
    listed = client.models_list(limit=2, sort="Newest", types=["Checkpoint", "LORA"])
    assert [item["id"] for item in listed["items"]] == [model.model for model in reversed(catalogue.published[1:])]

    async def every_one() -> list[int]:
        pages = AsyncPaginator(client, "/models", Model, limit=1, sort="Newest")
        return [model.id async for model in pages]

    assert asyncio.run(every_one()) == [model.model for model in reversed(catalogue.published)]
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
        a_civitapy(catalogue, tmp_path).models_get(999999)
    with pytest.raises(CivitAIError):
        a_civitapy(catalogue, tmp_path, "drk_wrong_key").models_list()
    assert a_civitapy(catalogue, tmp_path, catalogue.door.key).users_me()["username"] == "owner"


def a_hub_client(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, token: str | None = None) -> CivitaiClient:
    client = CivitaiClient(token=token, max_retries=0)
    client.base_url = f"{catalogue.door.url}/api/v1"
    hosts = (urlsplit(catalogue.door.url).hostname,)
    monkeypatch.setattr(civitai_hub.config, "TRUSTED_HOSTS", hosts)
    monkeypatch.setattr(HUB_DOWNLOADS, "TRUSTED_HOSTS", hosts)
    return client


@pytest.mark.parametrize("with_key", [False, True])
def test_civitai_hub_lists_pages_looks_up_and_downloads(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_key: bool
) -> None:
    newest = catalogue.newest
    with a_hub_client(catalogue, monkeypatch, catalogue.door.key if with_key else None) as client:
        found = client.search_models(types="Checkpoint", base_models="Other", sort="Newest", limit=100)
        assert found == [] or {model.id for model in found} <= {model.model for model in catalogue.published}
        every = client.search_models(sort="Newest", limit=3)
        assert [model.id for model in every] == [model.model for model in reversed(catalogue.published)]
        assert client.get_version_by_hash(SHA256[:10].lower()).id == catalogue.published[0].version
        version = pick_version(client.get_model(newest.model))
        [file] = pick_files(version, FileSelectors())
        settings = HubSettings(
            token=None, cache_dir=tmp_path, offline=False, use_symlinks=False, progress=False, host="civitai.com"
        )
        store = CacheStore(tmp_path, use_symlinks=False)
        path = HUB_DOWNLOADS.download_file(
            client, newest.model, version, file, store, settings=settings, local_dir=tmp_path / "out"
        )
        assert Path(path).read_bytes() == CONTENT


def test_civitai_hub_reads_our_refusals(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_hub_client(catalogue, monkeypatch) as client:
        with pytest.raises(NotFoundError):
            client.get_version_by_hash("0" * 64)
        with pytest.raises(CivitaiError, match="invalid_cursor"):
            client._get_json("/models", {"cursor": "not ours"})
    with a_hub_client(catalogue, monkeypatch, "drk_wrong_key") as client, pytest.raises(AuthRequiredError):
        client.get_model(catalogue.newest.model)


def test_civitdl_downloads_a_model_with_its_images_and_hashes(catalogue: Catalogue, tmp_path: Path) -> None:
    options = BatchOptions(
        retry_count=0,
        pause_time=0.0,
        max_images=3,
        nsfw_mode="0",
        with_prompt=True,
        without_model=False,
        api_key=catalogue.door.key,
        verbose=False,
        sorter="basic",
        limit_rate=None,
        cache_mode="0",
        strict_mode="1",
        model_overwrite=True,
        with_color=False,
    )
    options.session.mount("https://civitai.com", ToThisHost(catalogue.door.url))
    [wanted] = SourceManager().parse_src([str(catalogue.newest.model)])
    DownloadedModel(str(tmp_path), options).download(wanted)
    files = {path.suffix: path for path in tmp_path.rglob("*") if path.is_file()}
    assert files[".safetensors"].read_bytes() == CONTENT
    assert files[".png"].read_bytes() == photo(1)
    assert files[".safetensors"].name.startswith("sks-mug-")
    assert files[".safetensors"].name.endswith(
        f"_v1-mid_{catalogue.newest.model}-vid_{catalogue.newest.version}.safetensors"
    )
    assert f"SHA256, {SHA256}" in files[".csv"].read_text()
