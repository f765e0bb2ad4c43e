"""Images of versions: what a list, a version and an image's own address show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg.types.json import Jsonb

from storage.postgres.connection import Query, count, load_statements, many, one
from storage.postgres.policy.policy import with_clauses
from storage.records.catalog.catalog import CatalogImage, ShownImage

SQL = with_clauses(load_statements(__file__))


def of_versions(
    version_ids: Sequence[int], each: int, *, everything_of: Sequence[int] | None = None
) -> Query[list[CatalogImage]]:
    """The first `each` images of every version that a viewer sees: all of `everything_of`, what is not blocked of the
    others. None: all."""
    whole = version_ids if everything_of is None else everything_of
    parameters = {"version_ids": list(version_ids), "each": each, "everything_of": list(whole)}
    return many(SQL["of_versions"], parameters, CatalogImage)


def shown(ids: Sequence[int]) -> Query[list[ShownImage]]:
    """Images by their ids, in that order."""
    return many(SQL["shown"], {"ids": list(ids)}, ShownImage)


def listed(ids: Sequence[int]) -> Query[frozenset[int]]:
    """Those of `ids` that everybody may see in a list."""
    return Query(SQL["listed"], {"ids": list(ids)}, lambda rows: frozenset(row["id"] for row in rows))


def of_version(version_id: int, image_id: int) -> Query[CatalogImage]:
    """An image of a version, gone ones too. Reading raises NotFound."""
    parameters = {"id": image_id, "version_id": version_id}
    return one(SQL["of_version"], parameters, CatalogImage, f"Model version {version_id} has no image {image_id}.")


def change(image: CatalogImage, changes: Mapping[str, object]) -> Query[CatalogImage]:
    """Say something else of an image: columns to values."""
    return one(SQL["change"], {"id": image.id, "changes": Jsonb(dict(changes))}, CatalogImage, f"No image {image.id}.")


def delete(image: CatalogImage) -> Query[int]:
    """Show an image no more; its bytes are swept."""
    return count(SQL["delete"], {"id": image.id})
