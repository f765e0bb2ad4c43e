"""Registering a base model: its folder is checked, its bytes are stored, then it gets a row and a name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from deployments.base_models.base_folders import BaseFolder, check_base_folder
from flows.runs.lazy_imports import imported_when_used
from storage.errors import InUse, InvalidRequest, NotFound, WeightsRefused
from storage.postgres.connection import Query, Script
from storage.postgres.jobs import base_models
from storage.records.jobs.base_models import BaseModel, BaseModelFile
from storage.stores import Stores

if TYPE_CHECKING:
    from deployments.base_models import single_files
else:
    single_files = imported_when_used("deployments.base_models.single_files")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def add_base_model(
    stores: Stores, path: Path, name: str, replace: bool = False, config: Path | None = None
) -> BaseModel:
    """Register the base model in `path` as `name`, so that requests can name it. Repeating it changes nothing.

    `path` is a diffusers folder, or a single safetensors file that is made into one with the configs of `config`.
    Raises InvalidRequest for the name, WeightsRefused for the model, InUse when the name stands for another folder
    and `replace` is false. Nothing is stored in these cases.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            {"name": f"'{name[:80]}' must be lower-case letters, digits, '.', '_' or '-', at most 64 (--name sd15)"}
        )
    if not path.is_file():
        return register_folder(stores, check_base_folder(path), name, replace)
    # On the disk of the data, which has room for models; a system's temporary folder may be memory. What a killed
    # process leaves there goes with the next `darkroom up`.
    temporary = stores.settings.data_folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="base-model-", dir=temporary) as folder:
        made = single_files.convert_single_file(path, config, Path(folder) / "model")
        return register_folder(stores, check_base_folder(made), name, replace)


def register_folder(stores: Stores, checked: BaseFolder, name: str, replace: bool = False) -> BaseModel:
    """Register a folder that passed its check as `name`; otherwise as `add_base_model`."""
    # Before anything is stored: a name that stands for another folder is refused without a copy of gigabytes.
    hashes = {path: _hash_file(checked.path / path) for path in checked.files}
    known = stores.database.run(_known(name))
    if known is not None and known.folder_hash != folder_hash(hashes) and not replace:
        raise InUse(f"Base model '{name}' is another folder already. Choose another --name, or add --replace.")
    files = _store(stores, checked, hashes)
    # Made again for each try: two that replace a folder at once may be a deadlock, of which one is run again.
    return stores.database.run(
        lambda: base_models.register(name, folder_hash(hashes), checked.card, files, replace=replace)
    )


def folder_hash(hashes: Mapping[str, str]) -> str:
    """SHA-256 over the sorted paths with their files' own hashes: what a base model is, wherever its folder lies."""
    lines = "".join(f"{path}\0{sha256}\n" for path, sha256 in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _store(stores: Stores, checked: BaseFolder, hashes: Mapping[str, str]) -> list[BaseModelFile]:
    files: list[BaseModelFile] = []
    for path in checked.files:
        blob = stores.blobs.put_file(checked.path / path)
        # The hash names what was checked, so other bytes must not be stored in its place.
        if blob.sha256 != hashes[path]:
            raise WeightsRefused(
                "changed", f"{path} changed while it was read. Let the copy finish, then add it again."
            )
        files.append(BaseModelFile(path=path, sha256=blob.sha256, size=blob.size))
    return files


def _known(name: str) -> Script[BaseModel | None]:
    query: Query[BaseModel] = base_models.by_name(name)
    try:
        return (yield from query)
    except NotFound:
        return None


def _hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
