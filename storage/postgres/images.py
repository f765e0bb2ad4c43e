"""Images of versions: what a list, a version and an image's own address show."""

from __future__ import annotations

from collections.abc import Sequence

from storage.postgres.connection import Query, load_statements, many, one
from storage.records.catalog import CatalogImage, ShownImage

SQL = load_statements(__file__)


def of_versions(version_ids: Sequence[int], each: int) -> Query[list[CatalogImage]]:
    """The first `each` images of every version."""
    return many(SQL["of_versions"], {"version_ids": list(version_ids), "each": each}, CatalogImage)


def shown(ids: Sequence[int]) -> Query[list[ShownImage]]:
    """Images by their ids, in that order."""
    return many(SQL["shown"], {"ids": list(ids)}, ShownImage)


def listed(ids: Sequence[int]) -> Query[frozenset[int]]:
    """Those of `ids` that everybody may see in a list."""
    return Query(SQL["listed"], {"ids": list(ids)}, lambda rows: frozenset(row["id"] for row in rows))


def by_id(image_id: int, sha256: str) -> Query[CatalogImage]:
    """An image, gone ones too. Reading raises NotFound."""
    return one(SQL["by_id"], {"id": image_id, "sha256": sha256}, CatalogImage, f"No image {image_id}.")
