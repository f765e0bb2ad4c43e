"""What views of models are made of, read in a few statements for any number of models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TypeVar

from platform_api.resources.catalog_views import Parts
from storage.postgres import access, catalog, images, models
from storage.postgres.connection import Script
from storage.records.catalog import CatalogImage, Model, ModelVersion, VersionFile
from storage.records.visibility import Viewer, seen_versions

Row = TypeVar("Row", VersionFile, CatalogImage)

IMAGES_EACH = 20
"""Images that a version shows; its own address shows half as many, with how they were made."""


def read_parts(
    found: Sequence[Model], viewer: Viewer, *, images_each: int = IMAGES_EACH, levels: int = 63
) -> Script[Parts]:
    """The parts of some models: versions that the viewer sees, and images that share a bit with `levels`."""
    ids = [model.id for model in found]
    everything = yield from catalog.versions(ids)
    versions: dict[int, list[ModelVersion]] = {}
    for model in found:
        theirs = [version for version in everything if version.model_id == model.id]
        versions[model.id] = seen_versions(model, theirs, viewer)
    version_ids = [version.id for theirs in versions.values() for version in theirs]
    pictures = yield from images.of_versions(version_ids, images_each)
    return Parts(
        accounts=(yield from access.accounts({model.account_id for model in found})),
        tags=(yield from models.tags_of(*ids)),
        model_stats=(yield from catalog.model_stats(ids)),
        version_stats=(yield from catalog.version_stats(version_ids)),
        versions=versions,
        files=_by_version((yield from catalog.files(*version_ids))),
        images=_by_version([image for image in pictures if image.nsfw_level & levels]),
    )


def _by_version(rows: Sequence[Row]) -> dict[int, list[Row]]:
    """Rows that come in the order of their versions, by version."""
    return {key: list(group) for key, group in groupby(rows, key=lambda row: row.version_id)}
