"""Files of a version as its owner writes them: described, hidden, deleted. The caller holds the model."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg.types.json import Jsonb

from storage.errors import WrongState
from storage.postgres.catalog import catalog
from storage.postgres.connection import Query, Script, count, load_statements
from storage.records.catalog.catalog import FileRole, ModelVersion, VersionFile
from storage.records.catalog.vocabulary import Status

SQL = load_statements(__file__)


def change(file: VersionFile, changes: Mapping[str, object]) -> Query[int]:
    """Say something else of a file: columns to values."""
    return count(SQL["change"], {"id": file.id, "changes": Jsonb(dict(changes))})


def delete(version: ModelVersion, file: VersionFile) -> Script[None]:
    """Delete a file. Raises WrongState for the last one of a version that is, or will be, published."""
    others = yield from catalog.files(version.id)
    left = [other for other in others if other.role is FileRole.WEIGHTS and other.id != file.id]
    if not left and version.status in (Status.PUBLISHED, Status.SCHEDULED):
        raise WrongState(
            f"File {file.id} is the last one of model version {version.id}, which is {version.status}. "
            "Unpublish the version, or add another file, first."
        )
    yield from count(SQL["delete"], {"id": file.id})
