"""Data sets: rows after bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

import msgspec
from psycopg.types.json import Jsonb

from storage.errors import InUse, NotFound
from storage.postgres.connection import Query, Script, column, load_statements, many, one
from storage.records.jobs.data_sets import DataSet, DataSetImage, content_hash

SQL = load_statements(__file__)


def _missing(data_set_id: UUID) -> str:
    return f"No data set {data_set_id}. Upload the photos first: POST /api/v1/data-sets"


def create(account_id: UUID, name: str, images: Sequence[DataSetImage]) -> Script[DataSet]:
    """A data set of images whose bytes are stored."""
    digest = content_hash(images)
    parameters = {"id": uuid4(), "account_id": account_id, "name": name, "content_hash": digest}
    data_set = yield from one(SQL["insert"], parameters, DataSet, "the new data set")
    rows = Jsonb(msgspec.to_builtins(list(images)))
    yield from Query(SQL["insert_images"], {"data_set_id": data_set.id, "images": rows}, len)
    return msgspec.structs.replace(data_set, image_count=len(images))


def get(data_set_id: UUID, account_id: UUID) -> Query[DataSet]:
    """An account's data set. Reading raises NotFound for one that is deleted or another's."""
    return one(SQL["get"], {"id": data_set_id, "account_id": account_id}, DataSet, _missing(data_set_id))


def list_for_account(
    account_id: UUID, *, before: tuple[datetime, UUID] | None = None, limit: int = 50
) -> Query[list[DataSet]]:
    """A page of an account's data sets, newest first."""
    at, identity = before or (None, None)
    parameters = {"account_id": account_id, "before": at, "before_id": identity, "limit": limit}
    return many(SQL["list"], parameters, DataSet)


def images(data_set_id: UUID) -> Query[list[DataSetImage]]:
    """The images of a data set, in the order they were sent."""
    return many(SQL["images"], {"data_set_id": data_set_id}, DataSetImage)


def known_photos(sha256s: Sequence[str]) -> Query[list[str]]:
    """Which of these photos are in any data set."""
    return column(SQL["known_photos"], {"sha256s": list(sha256s)}, str)


def hold(data_set_id: UUID, account_id: UUID) -> Script[DataSet]:
    """The data set, locked until the transaction ends so that it is not deleted meanwhile. Raises NotFound."""
    yield from Query(SQL["lock"], {"id": data_set_id, "account_id": account_id}, len)
    return (yield from get(data_set_id, account_id))


def delete(data_set_id: UUID, account_id: UUID) -> Script[list[str]]:
    """Delete a data set, and the grids that show its photos; returns the hashes whose bytes may now be orphans.

    Raises NotFound, InUse.
    """
    parameters = {"id": data_set_id, "account_id": account_id}
    held = yield from column(SQL["lock"], parameters, UUID)
    if not held:
        raise NotFound(_missing(data_set_id))
    using = yield from column(SQL["jobs_using"], parameters, UUID)
    if using:
        raise InUse(f"Job {using[0]} still needs data set {data_set_id}. Cancel it or wait until it ends.")
    yield from column(SQL["delete"], parameters, UUID)
    grids = yield from column(SQL["delete_grids"], parameters, str)
    return grids + (yield from column(SQL["delete_images"], parameters, str))
