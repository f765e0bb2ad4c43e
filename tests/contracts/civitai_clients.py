"""Three clients of Civitai's API that others wrote, each told to ask an API of ours.

civitapy takes a base URL. civitai-hub takes one after construction, and trusts the hosts it is told to. civitdl knows
one host only, so an adapter of its HTTP session carries its requests here. The recipe is in
docs/how-to/civitai-clients.md.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import civitai_hub.config
import pytest
from civitai_hub.cache import CacheStore
from civitai_hub.client import CivitaiClient
from civitai_hub.config import Settings as HubSettings
from civitai_hub.resolver import FileSelectors, pick_files, pick_version
from civitapy import CivitAIClient, Model
from civitapy.client import AsyncPaginator
from civitdl.batch._model import Model as DownloadedModel
from helpers.options import BatchOptions
from helpers.sourcemanager import SourceManager
from requests.adapters import HTTPAdapter

HUB_DOWNLOADS: Any = import_module("civitai_hub.download")  # the package has a function of the same name


def civitapy_at(url: str, folder: Path, token: str = "") -> CivitAIClient:
    """civitapy, which downloads to a folder and compares hashes."""
    return CivitAIClient(
        base_url=f"{url}/api/v1", download_dir=str(folder), verify_hash=True, token=token, retry_count=1
    )


def every_model(client: CivitAIClient, **filters: Any) -> list[int]:
    """The ids of a list that civitapy pages through, one model to a page."""

    async def read() -> list[int]:
        return [model.id async for model in AsyncPaginator(client, "/models", Model, limit=1, **filters)]

    return asyncio.run(read())


def civitai_hub_at(url: str, monkeypatch: pytest.MonkeyPatch, token: str | None = None) -> CivitaiClient:
    """civitai-hub, which trusts the host of the URL."""
    client = CivitaiClient(token=token, max_retries=0)
    client.base_url = f"{url}/api/v1"
    hosts = (urlsplit(url).hostname,)
    monkeypatch.setattr(civitai_hub.config, "TRUSTED_HOSTS", hosts)
    monkeypatch.setattr(HUB_DOWNLOADS, "TRUSTED_HOSTS", hosts)
    return client


def download_by_civitai_hub(client: CivitaiClient, model_id: int, folder: Path) -> Path:
    """The file that civitai-hub picks of a model's newest version."""
    version = pick_version(client.get_model(model_id))
    [file] = pick_files(version, FileSelectors())
    settings = HubSettings(
        token=None, cache_dir=folder, offline=False, use_symlinks=False, progress=False, host="civitai.com"
    )
    store = CacheStore(folder, use_symlinks=False)
    arguments = (client, model_id, version, file, store)
    return Path(HUB_DOWNLOADS.download_file(*arguments, settings=settings, local_dir=folder / "out"))


class ToThisHost(HTTPAdapter):
    """Carries requests for any host to one of ours."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url)
        super().__init__()

    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
        """Send a request, addressed to the test server."""
        parts = urlsplit(request.url)
        request.url = urlunsplit(parts._replace(scheme=self._host.scheme, netloc=self._host.netloc))
        return super().send(request, *arguments, **options)


def download_by_civitdl(url: str, model_id: int, folder: Path, token: str) -> dict[str, Path]:
    """What civitdl leaves of a model: the file, its images and a table of hashes, by suffix."""
    options = BatchOptions(
        retry_count=0,
        pause_time=0.0,
        max_images=3,
        nsfw_mode="0",
        with_prompt=True,
        without_model=False,
        api_key=token,
        verbose=False,
        sorter="basic",
        limit_rate=None,
        cache_mode="0",
        strict_mode="1",
        model_overwrite=True,
        with_color=False,
    )
    options.session.mount("https://civitai.com", ToThisHost(url))
    [wanted] = SourceManager().parse_src([str(model_id)])
    DownloadedModel(str(folder), options).download(wanted)
    return {path.suffix: path for path in folder.rglob("*") if path.is_file()}
