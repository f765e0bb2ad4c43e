"""Uploads of model files: their rows while they arrive, and the version's file that they become."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid4

from storage.errors import FileExists, Gone, NotAllowed, NotFound
from storage.postgres.accounts import quotas
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Query, Rows, Script, as_record, column, load_statements, maybe, one
from storage.records.accounts.quotas import Limits
from storage.records.catalog.catalog import Model, ModelVersion, NewFile, VersionFile
from storage.records.catalog.uploads import ModelUpload, WantedFile
from storage.records.policy.checks import check_changed
from storage.records.policy.facts import version_facts
from storage.records.policy.viewers import Viewer

SQL = load_statements(__file__)


def check_target(wanted: WantedFile, viewer: Viewer) -> Script[tuple[Model, ModelVersion]]:
    """The version that a file shall belong to, and its model.

    Raises NotFound or Gone for one that the viewer does not see, NotAllowed for another's, FileExists for a name that
    is taken by other bytes. A name that is taken passes when the sender has not announced which bytes come.
    """
    version = yield from catalog.version_by_id(wanted.version_id)
    model = yield from catalog.model_by_id(version.model_id)
    check_changed(viewer, version_facts(model, version))
    present = yield from file_of_name(wanted.version_id, wanted.name)
    if present is not None and wanted.sha256 is not None and present.sha256 != wanted.sha256:
        raise _taken(present)
    return model, version


def create(
    wanted: WantedFile, length: int, metadata: str, viewer: Viewer, hours: float, limits: Limits
) -> Script[ModelUpload]:
    """An upload of `length` bytes, which count from now on, that may rest for `hours`.

    Raises as `check_target` does, and QuotaExceeded.
    """
    yield from check_target(wanted, viewer)
    if viewer.account_id is None:
        raise NotAllowed("Only accounts upload files.")
    yield from quotas.hold(viewer.account_id, limits, adding=length, uploads=1)
    parameters = {
        "id": uuid4(),
        "account_id": viewer.account_id,
        "version_id": wanted.version_id,
        "name": wanted.name,
        "type": wanted.type,
        "length": length,
        "sha256": wanted.sha256,
        "metadata": metadata,
        "hours": hours,
    }
    return (yield from one(SQL["create"], parameters, ModelUpload, "the new upload"))


def get(upload_id: UUID, viewer: Viewer) -> Query[ModelUpload]:
    """An upload of the viewer's account. Reading raises NotFound, and Gone for one that rested too long."""

    def read(rows: Rows) -> ModelUpload:
        found = as_record(ModelUpload, rows[0]) if rows else None
        if found is None or found.account_id != viewer.account_id:
            raise NotFound(f"No upload {upload_id}. It was finished, refused or given up; begin a new one.")
        if rows[0]["expired"]:
            raise Gone(f"Upload {upload_id} rested too long and was given up. Begin a new one.")
        return found

    return Query(SQL["get"], {"id": upload_id}, read)


def receive(upload: ModelUpload, received: int, hours: float) -> Query[ModelUpload]:
    """Record that so many bytes are on the disk. Reading raises NotFound when the upload was given up meanwhile."""
    parameters = {"id": upload.id, "received": received, "hours": hours}
    return one(SQL["receive"], parameters, ModelUpload, f"No upload {upload.id}. It was given up meanwhile.")


def finish(upload: ModelUpload, file: NewFile) -> Script[ModelUpload]:
    """The upload's stored bytes become a file of its version. Raises as `attach`, NotFound when it was given up."""
    made, _ = yield from attach(upload.version_id, file)
    missing = f"No upload {upload.id}. It was given up meanwhile."
    return (yield from one(SQL["finish"], {"id": upload.id, "file_id": made.id}, ModelUpload, missing))


def attach(version_id: int, file: NewFile) -> Script[tuple[VersionFile, bool]]:
    """Stored bytes become a file of a version; the same bytes under the same name are the file that is there. Also
    returns whether it is new.

    Raises Gone when the version was deleted meanwhile, FileExists when another file has the name.
    """
    # Read twice: the first time only to learn which model to lock; what decides is read under the lock.
    version = yield from catalog.version_by_id(version_id)
    model = yield from models.lock(version.model_id)
    version = yield from catalog.version_by_id(version_id)
    if model.gone_at is not None or version.gone_at is not None:
        raise Gone(f"Model version {version_id} was deleted meanwhile: {version.gone_reason or model.gone_reason}.")
    # An upload that is finished twice, because its response was lost, ends with the one file.
    present = yield from file_of_name(version_id, file.path)
    if present is not None:
        if present.sha256 != file.sha256:
            raise _taken(present)
        return present, False
    yield from catalog.add_files(version_id, [file])
    made = yield from file_of_name(version_id, file.path)
    if made is None:
        raise NotFound(f"Model version {version_id} lacks the file that was just added.")
    return made, True


def file_of_name(version_id: int, path: str) -> Query[VersionFile | None]:
    """The file at a path of a version, if there is one."""
    return maybe(SQL["file_of_name"], {"version_id": version_id, "path": path}, VersionFile)


def file_of(upload: ModelUpload) -> Script[VersionFile | None]:
    """The file that an upload became; None while it is unfinished, or when the file was deleted since."""
    return (yield from file_of_name(upload.version_id, upload.name)) if upload.file_id is not None else None


def delete(upload_id: UUID) -> Query[list[UUID]]:
    """Forget an upload; the file that it became stays."""
    return column(SQL["delete"], {"id": upload_id}, UUID)


def expired() -> Query[list[UUID]]:
    """Uploads that rested too long, oldest first."""
    return column(SQL["expired"], {}, UUID)


def known(ids: Sequence[UUID]) -> Query[list[UUID]]:
    """Those of `ids` that are uploads."""
    return column(SQL["known"], {"ids": list(ids)}, UUID)


def _taken(file: VersionFile) -> FileExists:
    return FileExists(
        f"Model version {file.version_id} has another file '{file.path}'. Choose another name, or delete it first."
    )
