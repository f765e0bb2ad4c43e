"""What tests of uploads share: a version to send files to, files to send, and tus by hand."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
from safetensors.numpy import save

from storage.postgres.accounts import accounts
from storage.postgres.catalog import models, versions
from storage.records.catalog.catalog import ModelFields, VersionFields
from storage.records.catalog.vocabulary import ModelType
from tests.platform_api.door import ALL, Door

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": "application/offset+octet-stream"}


def weights(seed: int = 1, numbers: int = 50_000, **metadata: str) -> bytes:
    """A sound safetensors file with noise in it, different for each seed."""
    noise = np.random.default_rng(seed).standard_normal(numbers).astype(np.float16)
    return save({"lora_unet_mid_block_resnets_0_conv1.lora_up.weight": noise}, metadata or None)


@dataclass
class Sender:
    """A caller with a version to send files to."""

    door: Door
    model_id: int
    version_id: int
    http: httpx.Client

    def metadata(self, name: str = "a.safetensors", **more: object) -> str:
        """Upload-Metadata for a file of the version."""
        said = {"versionId": self.version_id, "filename": name, **more}
        return ",".join(f"{key} {base64.b64encode(str(value).encode()).decode()}" for key, value in said.items())

    def begin(self, length: int, name: str = "a.safetensors", **more: object) -> str:
        """The path of a new upload."""
        headers = {**TUS, "Upload-Length": str(length), "Upload-Metadata": self.metadata(name, **more)}
        made = self.http.post("/api/v1/uploads", headers=headers)
        assert made.status_code == 201, made.text
        return made.headers["location"]

    def send(self, path: str, offset: int, content: Any, **headers: str) -> httpx.Response:
        """Bytes of an upload from `offset` on."""
        return self.http.patch(path, content=content, headers={**BYTES, "Upload-Offset": str(offset), **headers})

    def offset(self, path: str) -> int:
        """How many bytes the server has."""
        return int(self.http.head(path, headers=TUS).headers["upload-offset"])

    def put(self, content: Any, name: str = "a.safetensors", **query: Any) -> httpx.Response:
        """A file in one piece."""
        return self.http.put(f"/api/v1/model-versions/{self.version_id}/files/{name}", content=content, params=query)

    def files(self) -> list[tuple[str, str]]:
        """Name and SHA-256 of the version's files."""
        found = self.http.get(f"/api/v1/model-versions/{self.version_id}").json()["storedFiles"]
        return [(file["path"], file["sha256"]) for file in found]

    @property
    def parts(self) -> list[Path]:
        """What lies on the disk of uploads under way."""
        folder = self.door.settings.model_uploads_folder
        return list(folder.iterdir()) if folder.exists() else []

    def everything(self) -> tuple[object, ...]:
        """What an upload may leave: rows, blobs, temporary files."""
        with self.door.database.connect() as connection:
            rows = [
                connection.execute(f"select count(*) as n from {table}".encode()).fetchone()
                for table in ("model_uploads", "version_files", "file_hashes", "outbox")
            ]
        return rows, sorted(self.door.blobs), self.parts


def a_sender(
    door: Door, *, base_model: str = "SD 1.5", kind: ModelType = ModelType.LORA, account: str = "owner"
) -> Sender:
    """A new draft version of an account, and a client with a key of its own."""
    fields = ModelFields(name=f"model {uuid4()}", type=kind)
    model = door.database.run(models.create(door.account(account), fields))
    version = door.database.run(versions.create(model, VersionFields(name="v1", base_model=base_model)))
    client = door.client() if account == "owner" else door.client(door.new_key(*ALL, account=account))
    return Sender(door, model.id, version.id, client)


STOPPED = {"revoked": (401, "unauthenticated"), "banned": (403, "account_banned")}
"""The status and code for a key that stopped working: itself revoked, or its account banned."""


def stopping_its_key(door: Door, key: str, account: str, how: str, content: bytes) -> Iterator[bytes]:
    """Bytes that come slowly; between the first and the last of them the key that sends them stops working."""
    yield content[:100]
    time.sleep(0.2)
    if how == "revoked":
        door.database.run(accounts.revoke_key(key.split("_")[1]))
    else:
        door.database.run(accounts.ban(door.database.run(accounts.account(door.account(account))), "spam"))
    yield content[100:]
