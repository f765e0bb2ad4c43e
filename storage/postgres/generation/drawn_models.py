"""Versions of the catalogue as a drawing names them: by the bytes of their files."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from storage.errors import InvalidRequest, NotFound
from storage.postgres.catalog import catalog
from storage.postgres.connection import Script
from storage.postgres.jobs import base_models
from storage.postgres.jobs.submissions import of_field
from storage.records.catalog.catalog import FileRole, Model, ModelVersion, VersionFile
from storage.records.catalog.variants import air, primary_file
from storage.records.generation.drawings import DrawnAdapter, DrawnModel
from storage.records.generation.resolved_drawings import AdapterFacts, ModelFacts
from storage.records.jobs.training import TrainingJobRequest, TrainingRecipe
from storage.records.policy.checks import check_version
from storage.records.policy.viewers import Viewer

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
"""An adapter's file in diffusers' keys, among the files of its version."""


def model_facts(version_id: int, viewer: Viewer) -> Script[tuple[ModelFacts, tuple[AdapterFacts, ...]]]:
    """A version as a model to draw with; of an adapter its base, and the adapter itself.

    Raises NotFound and Gone by the policy, InvalidRequest for one that cannot be drawn with.
    """
    version, model, files = yield from _seen(version_id, viewer)
    recipe = _recipe("model", version)
    members = _folder(files)
    if not members:
        raise InvalidRequest({"model": f"version {version_id} has no files left to draw with; name another one"})
    if ADAPTER_FILE not in members:
        drawn = DrawnModel(
            version_id=version.id,
            family=recipe.family,
            files=members,
            held_in=recipe.held_in,
            size_bytes=sum(file.size for file in files if file.role is FileRole.FOLDER),
            name=_name(model, version),
            air=air(model, version, primary_file(files)),
        )
        return _facts(drawn, recipe), ()
    try:
        base = yield from base_models.hold_by_hash(recipe.base_model_hash)
    except NotFound as error:
        raise InvalidRequest({"model": f"version {version_id} is an adapter, and its base is gone: {error}"}) from error
    parts = yield from base_models.files(base.id)
    drawn = DrawnModel(
        version_id=0,
        family=recipe.family,
        files={part.path: part.sha256 for part in parts},
        held_in=recipe.held_in,
        size_bytes=sum(part.size for part in parts),
        name=base.name,
    )
    return _facts(drawn, recipe), (_adapter(version, model, files, recipe),)


def adapter_facts(field: str, version_id: int, viewer: Viewer) -> Script[AdapterFacts]:
    """A version as an adapter beside a model. Raises as `model_facts`, naming `field`."""
    version, model, files = yield from _seen(version_id, viewer)
    recipe = _recipe(field, version)
    if ADAPTER_FILE not in _folder(files):
        raise InvalidRequest({field: f"version {version_id} is a whole model and no adapter; name it as `model`"})
    return _adapter(version, model, files, recipe)


def check_drawn_with(version_ids: Iterable[int], viewer: Viewer) -> Script[None]:
    """Raise InvalidRequest and Gone unless the viewer sees every one of these versions."""
    for version_id in version_ids:
        yield from of_field("model", _seen(version_id, viewer))


def _facts(drawn: DrawnModel, recipe: TrainingRecipe) -> ModelFacts:
    return ModelFacts(model=drawn, resolution=recipe.resolution, sampler=recipe.sampler)


def _seen(version_id: int, viewer: Viewer) -> Script[tuple[ModelVersion, Model, list[VersionFile]]]:
    version = yield from catalog.version_by_id(version_id)
    model = yield from catalog.model_by_id(version.model_id)
    check_version(version, model, viewer)
    return version, model, (yield from catalog.files(version_id))


def _recipe(field: str, version: ModelVersion) -> TrainingRecipe:
    if version.recipe is None:
        reason = f"version {version.id} was uploaded; pictures are drawn from versions that were trained here"
        raise InvalidRequest({field: f"{reason}. Name one of those"})
    return msgspec.convert(version.recipe, TrainingJobRequest).recipe


def _folder(files: list[VersionFile]) -> dict[str, str]:
    return {file.path: file.sha256 for file in files if file.role is FileRole.FOLDER}


def _adapter(version: ModelVersion, model: Model, files: list[VersionFile], recipe: TrainingRecipe) -> AdapterFacts:
    drawn = DrawnAdapter(
        version_id=version.id,
        sha256=_folder(files)[ADAPTER_FILE],
        name=_name(model, version),
        air=air(model, version, primary_file(files)),
    )
    return AdapterFacts(adapter=drawn, family=recipe.family)


def _name(model: Model, version: ModelVersion) -> str:
    return f"{model.name} {version.name}".strip()
