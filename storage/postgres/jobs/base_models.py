"""Base models: registered by the operator, named in requests."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from storage.errors import InUse
from storage.postgres.connection import Query, Script, column, load_statements, many, maybe, one
from storage.records.jobs.base_models import BaseModel, BaseModelCard, BaseModelFile

SQL = load_statements(__file__)


def register(
    name: str, folder_hash: str, card: BaseModelCard, files: Sequence[BaseModelFile], *, replace: bool = False
) -> Script[BaseModel]:
    """A base model whose bytes are stored. The same folder again changes nothing.

    A folder that is replaced keeps its row under `NAME@HASH`: jobs that were submitted with it name it by its hash.
    Raises InUse when the name stands for another folder and `replace` is false.
    """
    parameters = {"name": name, "folder_hash": folder_hash, "facts": Jsonb(msgspec.to_builtins(card))}
    base = yield from maybe(SQL["insert"], parameters, BaseModel)
    if base is None:
        known = yield from maybe(SQL["hold_by_name"], parameters, BaseModel)
        if known is None:  # somebody else has replaced it meanwhile
            return (yield from register(name, folder_hash, card, files, replace=replace))
        if known.folder_hash == folder_hash:
            return known
        if not replace:
            raise InUse(f"Base model '{name}' is another folder already. Choose another --name, or add --replace.")
        yield from column(SQL["forget_same"], {"id": known.id}, str)
        yield from column(SQL["retire"], {"id": known.id}, str)
        base = yield from one(SQL["insert"], parameters, BaseModel, "the base model")
    rows = Jsonb(msgspec.to_builtins(list(files)))
    yield from Query(SQL["insert_files"], {"base_model_id": base.id, "files": rows}, len)
    return base


def by_name(name: str) -> Query[BaseModel]:
    """The base model of a name. Reading raises NotFound."""
    missing = f"No base model '{name}'. List them with GET /api/v1/base-models; add one with: darkroom base add FOLDER"
    return one(SQL["by_name"], {"name": name}, BaseModel, missing)


def by_hash(folder_hash: str) -> Query[BaseModel]:
    """The base model whose folder has this hash. Reading raises NotFound."""
    return one(SQL["by_hash"], {"folder_hash": folder_hash}, BaseModel, _no_folder(folder_hash))


def hold_by_hash(folder_hash: str) -> Query[BaseModel]:
    """The same, and it stays until the transaction ends. Reading raises NotFound."""
    return one(SQL["hold_by_hash"], {"folder_hash": folder_hash}, BaseModel, _no_folder(folder_hash))


def _no_folder(folder_hash: str) -> str:
    return (
        f"No base model with the folder hash {folder_hash}. It was replaced and then deleted: register its folder once "
        "more (darkroom base add FOLDER --name NAME), or submit the job with the model that there is."
    )


def list_all() -> Query[list[BaseModel]]:
    """Every base model, by name."""
    return many(SQL["list"], {}, BaseModel)


def list_replaced() -> Query[list[BaseModel]]:
    """Those that were replaced and are kept for the jobs that name them, as NAME@HASH."""
    return many(SQL["list_replaced"], {}, BaseModel)


def files(base_model_id: UUID) -> Query[list[BaseModelFile]]:
    """The files of a base model folder, by path."""
    return many(SQL["files"], {"base_model_id": base_model_id}, BaseModelFile)


def files_of(folder_hash: str) -> Script[list[BaseModelFile]]:
    """The same of the base model whose folder has this hash. Reading raises NotFound."""
    base = yield from by_hash(folder_hash)
    return (yield from files(base.id))
