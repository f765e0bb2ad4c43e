"""Files of a version as Civitai's clients read them, and as they are kept."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Meta

from platform_api.http.links import API, Addresses
from storage.records.catalog.catalog import Checked, FileHashes, FileRole, Model, ModelVersion, VersionFile
from storage.records.catalog.variants import download_name

NO_CODE = "No Pickle imports"
NOT_SCANNED = "No virus scanner has seen it. It holds tensors only: every byte of it belongs to one"


class FileMetadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Which variant a file is, and what was checked of its tensors."""

    format: str | None = None
    size: str | None = None
    fp: str | None = None
    quant_type: str | None = None
    checked: Checked | None = None


class FileView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One file of a version. `primary` is the one that the version's bare `downloadUrl` serves."""

    id: int
    size_kb: Annotated[float, Meta(description="1,024 bytes each.")] = msgspec.field(name="sizeKB")
    name: Annotated[str, Meta(examples=["sks-mug_v1.safetensors"])]
    override_name: str | None
    type: Annotated[str, Meta(examples=["Model"])]
    pickle_scan_result: str
    pickle_scan_message: str
    virus_scan_result: str
    virus_scan_message: str
    scanned_at: datetime
    metadata: FileMetadata
    hashes: FileHashes
    primary: bool
    download_url: str


class StoredFileView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A stored file by its path, members of the diffusers folder too. `size` is in bytes."""

    path: Annotated[str, Meta(examples=["folder/unet/diffusion_pytorch_model.safetensors"])]
    role: FileRole
    size: int
    sha256: str
    url: str


def file_view(model: Model, version: ModelVersion, file: VersionFile, primary: bool, where: Addresses) -> FileView:
    """A file. Only the primary one has the version's bare address: clients find it by that."""
    query = "" if primary else _variant(file)
    return FileView(
        id=file.id,
        size_kb=file.size / 1024,
        name=download_name(model, version, file),
        override_name=file.override_name,
        type=file.type,
        # Only safetensors are taken, which cannot hold a pickle.
        pickle_scan_result="Success",
        pickle_scan_message=NO_CODE,
        # No scanner has seen the file. Of Civitai's words (Pending, Success, Danger, Error) this one claims the least.
        virus_scan_result="Pending",
        virus_scan_message=NOT_SCANNED,
        scanned_at=file.created_at,
        metadata=FileMetadata(
            format=file.format, size=file.size_kind, fp=file.fp, quant_type=file.quant_type, checked=file.checked
        ),
        hashes=file.hashes,
        primary=primary,
        download_url=where.download(version.id, query),
    )


def stored_file_view(version_id: int, file: VersionFile) -> StoredFileView:
    """A file as it is kept."""
    url = f"{API}/model-versions/{version_id}/files/{quote(file.path)}"
    return StoredFileView(path=file.path, role=file.role, size=file.size, sha256=file.sha256, url=url)


def _variant(file: VersionFile) -> str:
    named = {"type": file.type.value, "format": file.format, "size": file.size_kind, "fp": file.fp}
    pairs = {**named, "quantType": file.quant_type, "fileId": str(file.id)}
    return urlencode({name: value for name, value in pairs.items() if value is not None})
