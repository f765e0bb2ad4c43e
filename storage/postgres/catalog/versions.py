"""Model versions as their owners write them: made, changed, published, hidden, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from psycopg.types.json import Jsonb

from storage.errors import WrongState
from storage.postgres.connection import Query, Script, count, load_statements, many, one
from storage.records.catalog.catalog import Model, ModelVersion, VersionFields
from storage.records.catalog.vocabulary import Status

SQL = load_statements(__file__)


def create(model: Model, fields: VersionFields) -> Query[ModelVersion]:
    """A draft, newest of its model, which the caller holds."""
    parameters = {"model_id": model.id, "fields": Jsonb(msgspec.to_builtins(fields))}
    return one(SQL["create"], parameters, ModelVersion, "the new version")


def change(version: ModelVersion, changes: Mapping[str, object]) -> Query[ModelVersion]:
    """Say something else of a version: columns to values."""
    return one(SQL["change"], {"id": version.id, "changes": Jsonb(dict(changes))}, ModelVersion, _missing(version))


def with_files(model_id: int) -> Query[list[ModelVersion]]:
    """A model's versions that have a file to download, newest first."""
    return many(SQL["with_files"], {"model_id": model_id}, ModelVersion)


def publish(version: ModelVersion, at: datetime | None = None, *, opens: bool = False) -> Script[ModelVersion]:
    """Publish a version, now or at a later date; `opens`: a private one becomes public.

    Raises WrongState when it is gone or has no file.
    """
    if version.gone_at is not None:
        raise WrongState(f"Model version {version.id} is gone: {version.gone_reason}. Create a new one.")
    if version.id not in [ready.id for ready in (yield from with_files(version.model_id))]:
        raise WrongState(f"Model version {version.id} has no file to download. Add one, then publish.")
    parameters = {"id": version.id, "at": at, "opens": opens}
    return (yield from one(SQL["publish"], parameters, ModelVersion, _missing(version)))


def publish_due() -> Query[int]:
    """Publish what was scheduled and whose time has come; returns how many."""
    return count(SQL["publish_due"], {})


def unpublish(version: ModelVersion, status: Status = Status.UNPUBLISHED) -> Script[ModelVersion]:
    """Hide a published or scheduled version. Raises WrongState."""
    if version.status not in (Status.PUBLISHED, Status.SCHEDULED):
        raise WrongState(f"Model version {version.id} is {version.status}; only what is published can be unpublished.")
    parameters = {"id": version.id, "status": status}
    return (yield from one(SQL["unpublish"], parameters, ModelVersion, _missing(version)))


def delete(version: ModelVersion, reason: str) -> Script[ModelVersion]:
    """Delete a version with its files and images; what stays says that it is gone, and why."""
    yield from count(SQL["delete_files"], {"id": version.id})
    yield from count(SQL["delete_images"], {"id": version.id})
    return (yield from one(SQL["delete"], {"id": version.id, "reason": reason}, ModelVersion, _missing(version)))


def _missing(version: ModelVersion) -> str:
    return f"No model version {version.id}."
