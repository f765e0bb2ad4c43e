"""What views of models are made of, read in a few statements for any number of models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TypeVar

from platform_api.catalog.reading.catalog_views import PageParts
from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, images, models
from storage.postgres.connection import Script
from storage.records.catalog.catalog import CatalogImage, Model, ModelVersion, VersionFile
from storage.records.policy.facts import Facts, file_facts, version_facts
from storage.records.policy.rights import may
from storage.records.policy.viewers import Viewer

Row = TypeVar("Row", VersionFile, CatalogImage)

IMAGES_EACH = 20
"""Images that a version shows; its own address shows half as many, with how they were made."""


def read_parts(
    found: Sequence[Model], viewer: Viewer, *, images_each: int = IMAGES_EACH, levels: int = 63
) -> Script[PageParts]:
    """The parts of some models: versions, files and images that the viewer sees, and of the images those that share a
    bit with `levels`."""
    ids = [model.id for model in found]
    # All of them: which the viewer sees is decided below, by the one policy.
    everything = yield from catalog.versions(ids)
    versions: dict[int, list[ModelVersion]] = {identity: [] for identity in ids}
    facts: dict[int, Facts] = {}
    models_by_id = {model.id: model for model in found}
    for version in everything:
        one = version_facts(models_by_id[version.model_id], version)
        if may(viewer, one).see:
            facts[version.id] = one
            versions[version.model_id].append(version)
    version_ids = list(facts)
    owned = [identity for identity, one in facts.items() if viewer.has_power_over(one.owner_id)]
    pictures = yield from images.of_versions(version_ids, images_each, everything_of=owned)
    files = yield from catalog.files(*version_ids)
    return PageParts(
        accounts=(yield from accounts.accounts({model.account_id for model in found})),
        tags=(yield from models.tags_of(*ids)),
        model_stats=(yield from catalog.model_stats(ids)),
        version_stats=(yield from catalog.version_stats(version_ids)),
        versions=versions,
        files=_by_version([file for file in files if may(viewer, file_facts(facts[file.version_id], file)).see]),
        images=_by_version([image for image in pictures if image.nsfw_level & levels]),
    )


def _by_version(rows: Sequence[Row]) -> dict[int, list[Row]]:
    """Rows that come in the order of their versions, by version."""
    return {key: list(group) for key, group in groupby(rows, key=lambda row: row.version_id)}
