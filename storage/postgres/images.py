"""Images of versions: what a list, a version and an image's own address show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg.types.json import Jsonb

from storage.postgres.connection import Query, count, load_statements, many, one
from storage.records.catalog import CatalogImage, ShownImage

SQL = load_statements(__file__)


def of_versions(version_ids: Sequence[int], each: int) -> Query[list[CatalogImage]]:
    """The first `each` images of every version."""
    return many(SQL["of_versions"], {"version_ids": list(version_ids), "each": each}, CatalogImage)


def shown(ids: Sequence[int]) -> Query[list[ShownImage]]:
    """Images by their ids, in that order."""
    return many(SQL["shown"], {"ids": list(ids)}, ShownImage)


def by_id(image_id: int, sha256: str) -> Query[CatalogImage]:
    """An image, gone ones too. Reading raises NotFound."""
    return one(SQL["by_id"], {"id": image_id, "sha256": sha256}, CatalogImage, f"No image {image_id}.")


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
