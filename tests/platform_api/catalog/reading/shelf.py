"""A door with a public model on its shelf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from storage.blobs.store import BlobStore
from storage.postgres.catalog import catalog, models, versions
from storage.records.catalog.catalog import FileHashes, FileRole, Model, ModelVersion, NewFile, VersionFields
from storage.records.catalog.vocabulary import FileType
from tests.platform_api.door import Door
from tests.storage.makers import a_model

VERSION = VersionFields(name="v1", base_model="SD 1.5")
FULL, PRUNED = b"full weights" * 200_000, b"pruned weights" * 100_000


@dataclass
class Shelf:
    """A door with one public model of two files and an image."""

    door: Door
    model: Model
    version: ModelVersion

    def get(self, path: str, key: str = "", **options: Any) -> httpx.Response:
        """The response to a GET."""
        return self.door.client(key).get(path, **options)


def file_of(door: Door, content: bytes, path: str, **facts: Any) -> NewFile:
    """A weights file with this content in the door's store."""
    blob = BlobStore(door.settings.blobs).put(content)
    digest = blob.sha256
    hashes = FileHashes(auto_v1=digest[8:16], auto_v3=digest[16:28], crc32=digest[28:36], blake3=digest[::-1])
    return NewFile(
        path=path,
        role=FileRole.WEIGHTS,
        sha256=digest,
        size=blob.size,
        hashes=hashes,
        **facts,
    )


def put(door: Door, name: str, *contents: bytes, publish: bool = True, **fields: object) -> tuple[Model, ModelVersion]:
    """A model with one version whose files have these contents."""
    model = a_model(door.database, door.account_id, name, **fields)
    version = door.database.run(versions.create(model, VERSION))
    kinds = [{"size_kind": "full", "fp": "fp32"}, {"size_kind": "pruned", "fp": "fp16", "type": FileType.PRUNED_MODEL}]
    files = [file_of(door, content, f"{n}.safetensors", **kinds[n]) for n, content in enumerate(contents)]
    door.database.run(catalog.add_files(version.id, files))
    if publish:
        door.database.run(models.publish(model))
    return door.database.run(catalog.model_by_id(model.id)), version
