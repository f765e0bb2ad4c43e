"""The catalogue: what succeeded jobs published."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from storage.postgres.connection import Query, as_record, column, count, load_statements, many, maybe, one
from storage.records.catalog.catalog import (
    Model,
    ModelRevision,
    ModelStats,
    ModelVersion,
    NewFile,
    NewImage,
    VersionFile,
    VersionStats,
)

SQL = load_statements(__file__)


def hold_names(account_id: UUID) -> Query[int]:
    """Keep others from naming this account's models until the transaction ends."""
    return count(SQL["hold_names"], {"account_id": account_id})


def settle() -> Query[int]:
    """Have the triggers that wait for the commit act now, so that what they derive is read in this transaction.

    They act once a transaction: a change after this is not settled.
    """
    return Query("set constraints all immediate", {}, len)  # no query that could be prepared, so in no .sql


def add_files(version_id: int, files: Sequence[NewFile]) -> Query[int]:
    """Name stored bytes as files of a version, with the hashes that weights are looked up by; returns how many."""
    rows = Jsonb(msgspec.to_builtins(list(files)))
    return Query(SQL["insert_files"], {"version_id": version_id, "files": rows}, len)


def add_images(version_id: int, account_id: UUID, images: Sequence[NewImage]) -> Query[list[int]]:
    """Show stored images with a version, behind those it has; returns their ids."""
    rows = Jsonb(msgspec.to_builtins(list(images)))
    parameters = {"version_id": version_id, "account_id": account_id, "images": rows}
    return column(SQL["insert_images"], parameters, int)


def model(model_id: int, account_id: UUID) -> Query[Model]:
    """An account's model. Reading raises NotFound."""
    return one(SQL["model"], {"id": model_id, "account_id": account_id}, Model, f"No model {model_id}.")


def model_by_id(model_id: int) -> Query[Model]:
    """A model, whoever owns it; for flows. Reading raises NotFound."""
    return one(SQL["model_by_id"], {"id": model_id}, Model, f"No model {model_id}.")


def list_models(account_id: UUID, *, before: int | None = None, limit: int = 50) -> Query[list[Model]]:
    """A page of an account's models, newest first."""
    return many(SQL["list_models"], {"account_id": account_id, "before": before, "limit": limit}, Model)


def versions(model_ids: Sequence[int]) -> Query[list[ModelVersion]]:
    """The versions of some models, newest of each first."""
    return many(SQL["versions"], {"model_ids": list(model_ids)}, ModelVersion)


def version(version_id: int, account_id: UUID) -> Query[ModelVersion]:
    """A version of an account's model. Reading raises NotFound."""
    missing = f"No model version {version_id}."
    return one(SQL["version"], {"id": version_id, "account_id": account_id}, ModelVersion, missing)


def version_by_id(version_id: int) -> Query[ModelVersion]:
    """A version, whoever owns it; for flows. Reading raises NotFound."""
    return one(SQL["version_by_id"], {"id": version_id}, ModelVersion, f"No model version {version_id}.")


def version_of_job(job_id: UUID) -> Query[ModelVersion | None]:
    """What a job published, if it has."""
    return maybe(SQL["version_of_job"], {"job_id": job_id}, ModelVersion)


def files(*version_ids: int) -> Query[list[VersionFile]]:
    """The files of some versions, in the versions' order; weights before the members of the diffusers folder."""
    return many(SQL["files"], {"version_ids": list(version_ids)}, VersionFile)


def models_by_id(ids: Sequence[int]) -> Query[list[Model]]:
    """Models in the order of `ids`, whoever owns them; unknown ones are left out."""
    return many(SQL["models_by_id"], {"ids": list(ids)}, Model)


def revisions(ids: Sequence[int]) -> Query[list[ModelRevision]]:
    """The revisions of those of some models that stand in lists, in the order of `ids`."""
    return many(SQL["revisions"], {"ids": list(ids)}, ModelRevision)


def versions_by_id(ids: Sequence[int]) -> Query[list[ModelVersion]]:
    """Versions, whoever owns them; unknown ones are left out."""
    return many(SQL["versions_by_id"], {"ids": list(ids)}, ModelVersion)


def model_stats(ids: Sequence[int]) -> Query[dict[int, ModelStats]]:
    """The counts of models by id; one whose counts are all 0 may be missing."""
    return Query(
        SQL["model_stats"], {"ids": list(ids)}, lambda rows: {r["model_id"]: as_record(ModelStats, r) for r in rows}
    )


def version_stats(ids: Sequence[int]) -> Query[dict[int, VersionStats]]:
    """The counts of versions by id; one whose counts are all 0 may be missing."""
    return Query(
        SQL["version_stats"],
        {"ids": list(ids)},
        lambda rows: {r["version_id"]: as_record(VersionStats, r) for r in rows},
    )


def unregistered(limit: int = 100) -> Query[list[ModelVersion]]:
    """Trained versions that MLflow's registry still lacks."""
    return many(SQL["unregistered"], {"limit": limit}, ModelVersion)


def withdrawn(limit: int = 100) -> Query[list[ModelVersion]]:
    """Versions that are gone, or whose models are, and that MLflow's registry still has."""
    return many(SQL["withdrawn"], {"limit": limit}, ModelVersion)


def note_registered(version_id: int, registered_as: str | None) -> Query[list[int]]:
    """Record what MLflow's registry calls a version: NAME/NUMBER; None when it has it no more."""
    return column(SQL["note_registered"], {"id": version_id, "registered_as": registered_as}, int)
