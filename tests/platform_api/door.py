"""The API as a real server on a port of its own, with accounts, keys, a base model and photos to use it with."""

from __future__ import annotations

import contextlib
import io
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import uvicorn
from PIL import Image
from pydantic import SecretStr

from platform_api.app import served
from storage.orchestration_settings import OrchestrationSettings
from storage.postgres.accounts import accounts
from storage.postgres.connection import Database
from storage.postgres.jobs import base_models
from storage.records.accounts.accounts import Scope, make_key
from storage.records.jobs.base_models import BaseModelCard, BaseModelFile, EvaluationFacts
from storage.settings import (
    ApiSettings,
    LimitSettings,
    NotificationSettings,
    PostgresSettings,
    QuotaSettings,
    RedisSettings,
    SearchSettings,
    Settings,
    UploadSettings,
)

ALL = tuple(Scope)
SWITCHED_ON = OrchestrationSettings(enabled=True)
UNLIMITED = LimitSettings(reads=0, writes=0, searches=0, downloads=0, failed_keys=0)


@dataclass
class Door:
    """A running API."""

    settings: Settings
    database: Database
    url: str
    account_id: UUID
    key: str
    clients: list[httpx.Client] = field(default_factory=list)

    def account(self, name: str = "owner") -> UUID:
        """The account of a name, made when new."""
        return self.database.run(accounts.ensure_account(name)).id

    def new_key(self, *scopes: Scope, account: str = "owner") -> str:
        """The text of a new key."""
        key = make_key()
        self.database.run(accounts.add_key(self.account(account), key, "test", scopes))
        return key.text

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        """A client that sends `key` (the owner's when none is given; no key for the empty one)."""
        text = self.key if key is None else key
        headers = {"Authorization": f"Bearer {text}"} if text else {}
        made = httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=False, **options)
        self.clients.append(made)
        return made

    @property
    def staging(self) -> list[Path]:
        """What lies in the staging folder."""
        folder = self.settings.data_folder / "uploads"
        return list(folder.iterdir()) if folder.exists() else []

    @property
    def blobs(self) -> list[Path]:
        """Every file in the blob store."""
        return [path for path in (self.settings.data_folder / "blobs").rglob("*") if path.is_file()]


@contextlib.contextmanager
def serving(
    folder: Path,
    database_url: str,
    valkey_url: str = "redis://127.0.0.1:1/0",
    uploads: UploadSettings | None = None,
    search: SearchSettings | None = None,
    limits: LimitSettings | None = None,
    api: ApiSettings | None = None,
    quotas: QuotaSettings | None = None,
) -> Iterator[Door]:
    """A door over these stores, served by uvicorn in a thread."""
    settings = Settings(
        data_folder=folder,
        postgres=PostgresSettings(url=SecretStr(database_url)),
        redis=RedisSettings(url=SecretStr(valkey_url)),
        uploads=uploads or UploadSettings(),
        search=search or SearchSettings(),
        limits=limits or LimitSettings(),
        api=(api or ApiSettings()).model_copy(update={"signing_key": SecretStr("a key for tests")}),
        quotas=quotas or QuotaSettings(),
        orchestration=SWITCHED_ON,
        notifications=NotificationSettings(sealing_key=SecretStr("another"), smtp_host="mail.example.com"),
    )
    with Database(settings.postgres) as database, listening(settings) as url:
        door = Door(settings, database, url, UUID(int=0), "")
        door.account_id, door.key = door.account(), door.new_key(*ALL)
        yield door
        for client in door.clients:
            client.close()


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[str]:
    """The API's address while it is served."""
    # Only on a socket that says it is TCP does asyncio send at once (TCP_NODELAY): else a response takes 40 ms more.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        settings.api.public_url = f"http://127.0.0.1:{port}"
        options = uvicorn.Config(
            served(settings), log_level="warning", access_log=False, timeout_graceful_shutdown=1, proxy_headers=False
        )
        server = uvicorn.Server(options)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
            if not thread.is_alive():
                raise RuntimeError("The server did not start.")
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(timeout=15)


def register_starter(database: Database, name: str = "starter") -> None:
    """A base model row with a small card; no bytes behind it."""
    card = BaseModelCard(
        resolution=64,
        class_words=("mug", "cat"),
        evaluation=EvaluationFacts(scenes=("on the beach", "in the snow")),
    )
    files = [BaseModelFile(path="model_index.json", sha256="0" * 64, size=2)]
    database.run(base_models.register(name, "f" * 64, card, files))


def photo(seed: int, size: tuple[int, int] = (64, 48), kind: str = "PNG", **options: object) -> bytes:
    """An image file with noise in it, different for each seed."""
    content = random.Random(seed).randbytes(size[0] * size[1] * 3)
    stream = io.BytesIO()
    Image.frombytes("RGB", size, content).save(stream, kind, **options)
    return stream.getvalue()


def form(*files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    """Files as httpx sends them in the upload form."""
    return [("files", file) for file in files]


def upload(client: httpx.Client, count: int = 3) -> dict[str, Any]:
    """A new data set of `count` photos, as the API returns it."""
    response = client.post("/api/v1/data-sets", files=form(*((f"{seed}.png", photo(seed)) for seed in range(count))))
    assert response.status_code == 201, response.text
    return response.json()
