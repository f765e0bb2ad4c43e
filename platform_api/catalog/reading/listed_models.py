"""Pages of models as everybody sees them: built once for each revision of a model, then joined."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec

from platform_api.cache import responses
from platform_api.catalog.reading import catalog_parts, catalog_views
from platform_api.catalog.reading.catalog_parts import read_parts
from platform_api.catalog.reading.catalog_views import ModelView, model_view
from platform_api.http.links import Addresses
from storage.postgres.catalog import catalog
from storage.postgres.connection import Script
from storage.records.catalog import catalog as records
from storage.records.catalog import variants
from storage.records.policy.viewers import ANYBODY
from storage.stores import AsyncStores

_MAKERS = (responses, catalog_parts, catalog_views, records, variants)
SHAPE = hashlib.sha256(b"".join(Path(str(made.__file__)).read_bytes() for made in _MAKERS)).hexdigest()[:12]
"""Changes with the code that makes views, so that a newer release does not send what an older one kept."""


@dataclass(frozen=True)
class Shown:
    """How models are shown: images of which levels, addresses under which host, and whether with all files."""

    levels: int
    where: Addresses
    primary_only: bool = False

    def name(self, epoch: str, model_id: int, revision: int) -> str:
        """What a model is kept under when it is shown like this."""
        return f"model:{SHAPE}:{epoch}:{model_id}:{revision}:{self.levels}:{int(self.primary_only)}:{self.where.base}"


async def shown_models(stores: AsyncStores, ids: Sequence[int], how: Shown) -> list[ModelView]:
    """The models of a page, in its order. What is hidden by now is not shown: a page may be shorter than asked.

    Each is JSON already; only the type says otherwise.
    """
    # Asked each time, and the revision is part of the name: so what lies in Valkey is never the wrong revision, whoever
    # put it there and whenever.
    present = await stores.database.run(catalog.revisions(ids))
    # Two restores of one backup give the same revisions; only the epoch tells them apart.
    epoch = present[0].epoch if present else ""
    names = {model.id: how.name(epoch, model.id, model.revision) for model in present if model.nsfw_level & how.levels}
    known = await stores.models.get(list(names.values()))
    lacking = [model_id for model_id, name in names.items() if name not in known]
    built = await stores.database.run(_build(lacking, how)) if lacking else {}
    if built:
        await stores.models.keep({how.name(epoch, *identity): content for identity, content in built.items()})
    # By id alone: a model that changed since its revision was read is shown as it is now, and kept under that revision.
    fresh = {model_id: content for (model_id, _), content in built.items()}
    found = [known.get(name) or fresh.get(model_id) for model_id, name in names.items()]
    # Raw is written as it is, so what was kept is not decoded and encoded again.
    return cast(list[ModelView], [msgspec.Raw(content) for content in found if content is not None])


def _build(ids: Sequence[int], how: Shown) -> Script[dict[tuple[int, int], bytes]]:
    """Models from their rows, by id and revision."""
    # Again: one may have been hidden since its revision was read.
    found = [model for model in (yield from catalog.models_by_id(ids)) if model.listed]
    parts = yield from read_parts(found, ANYBODY, levels=how.levels)
    return {
        (model.id, model.revision): msgspec.json.encode(
            model_view(model, parts, how.where, primary_only=how.primary_only)
        )
        for model in found
    }
