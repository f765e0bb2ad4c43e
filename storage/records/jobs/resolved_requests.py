"""From a training request to a job's: what is left out takes the base model's default, what does not fit is refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from storage.errors import InvalidRequest
from storage.records.catalog.vocabulary import Availability
from storage.records.jobs import trained_parts as parts
from storage.records.jobs.choices import TrainingMethod
from storage.records.jobs.data_sets import DataSetImage, samples_of_an_epoch
from storage.records.jobs.optimization import kept_by_epochs, own_rates, refuse_what_cannot_be_learned
from storage.records.jobs.presets import with_preset
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.records.jobs.training import (
    TrainingDefaults,
    TrainingJobRequest,
    TrainingOptions,
    TrainingRecipe,
    TrainingRequest,
)
from storage.records.jobs.training_samples import fault_of_identifier, refuse_shapes_that_do_not_fit
from storage.records.jobs.validation import refuse_photos_that_do_not_fit

_PLAIN_WORDS = re.compile(r"[A-Za-z0-9]+([ '\-][A-Za-z0-9]+)*")


class BaseModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What resolving a request needs to know of a registered base model."""

    name: str
    folder_hash: str
    family: str
    resolution: int
    class_words: tuple[str, ...]
    training: TrainingDefaults
    sampler: SamplerSettings
    evaluation_scenes: tuple[str, ...]


def resolve(
    request: TrainingRequest,
    *,
    data_set_hash: str,
    base: BaseModelFacts,
    seed: int,
    photos: Collection[DataSetImage] = (),
) -> TrainingJobRequest:
    """The job request that `request` means on base model `base`. `seed` is used when the request names none, `photos`
    of the data set when it counts epochs.

    What describes the machine stays open: the worker that claims the job resolves it (records/jobs/machines.py).

    Raises InvalidRequest naming every field that does not fit.
    """
    recipe = resolved_recipe(request, data_set_hash=data_set_hash, base=base, seed=seed, photos=photos)
    return TrainingJobRequest(
        data_set_id=request.data_set_id,
        base_model=base.name,
        model_name=model_name(request, recipe),
        recipe=recipe,
        availability=Availability(request.availability or Availability.PRIVATE),
        preset=request.preset or "",
    )


def resolved_recipe(
    request: TrainingOptions,
    *,
    data_set_hash: str,
    base: BaseModelFacts,
    seed: int,
    photos: Collection[DataSetImage] = (),
) -> TrainingRecipe:
    """The recipe alone, which needs no photos to be there: without them no checkpoint stays by epochs.

    Raises InvalidRequest.
    """
    _refuse_what_does_not_fit(request, base)
    request = with_preset(request, base.family, base.training)
    defaults = parts.defaults_of_method(request.method or base.training.method, base.training)
    values: dict[str, Any] = {}
    # By the struct's own fields, so that a new option is written down there and in the request only.
    for name in TrainingDefaults.__struct_fields__:
        asked = getattr(request, name)
        values[name] = getattr(defaults, name) if asked is None else asked
    usual = TrainingMethod.known(values["method"]).learning_rate
    values |= own_rates(request, base.training, values, usual)
    values |= _kept_by_epochs(request, values, photos)
    refuse_what_cannot_be_learned(values)
    parts.refuse_options_of_another_method(request, values)
    if request.lora_rank is not None and request.lora_alpha is None:
        values["lora_alpha"] = 0.0  # a base's alpha is for its own rank
    values["lora_alpha"] = values["lora_alpha"] or float(values["lora_rank"])
    refuse_shapes_that_do_not_fit(values, base.resolution)
    refuse_photos_that_do_not_fit(values)
    return TrainingRecipe(
        data_set_hash=data_set_hash,
        base_model_hash=base.folder_hash,
        family=base.family,
        resolution=base.resolution,
        class_word=request.class_word,
        seed=seed if request.seed is None else request.seed,
        sampler=_sampler(request, base),
        evaluation_scenes=base.evaluation_scenes if request.evaluation_scenes is None else request.evaluation_scenes,
        **values,
    )


def model_name(request: TrainingOptions, recipe: TrainingRecipe) -> str:
    """What the result is called in the catalogue, unless the request says so."""
    # A model of the catalogue is of one type, so a subject's adapter and its full model are two.
    return request.name or f"{recipe.identifier} {recipe.class_word}{' LoRA' if recipe.trains_adapter else ''}"


def complete_request(request: TrainingOptions, recipe: TrainingRecipe) -> dict[str, Any]:
    """What `request` means, with nothing left out, by the names of its JSON: asked for, it is the same job.

    Only the seed stays as it was: it is random unless it is asked for. Fields of another method, or of a text encoder
    where none trains, are left out, since they would be refused. Epochs are steps where the photos were known.
    """
    asked = msgspec.to_builtins(request)
    complete: dict[str, Any] = {}
    left_out: set[str] = set()
    if request.keep_every_epochs is not None:
        open_steps = {"keep_every"} if request.checkpoint_every else {"keep_every", "checkpoint_every"}
        left_out = {"keep_every_epochs"} if recipe.keep_every else open_steps
    for field in msgspec.structs.fields(type(request)):
        value = asked[field.encode_name]
        if field.name in TrainingDefaults.__struct_fields__:
            value = getattr(recipe, field.name)
        of_adapters = field.name.startswith("lora_") and not recipe.trains_adapter
        of_no_text = field.name == "text_encoder_steps" and not recipe.trains_text
        if value is not None and not of_adapters and not of_no_text and field.name not in left_out:
            complete[field.encode_name] = value
    sampler = {"steps": recipe.sampler.steps, "guidanceScale": recipe.sampler.guidance_scale}
    return complete | {
        "name": model_name(request, recipe),
        "evaluationScenes": list(recipe.evaluation_scenes),
        "sampler": sampler,
        "availability": request.availability or Availability.PRIVATE.value,
    }


def _kept_by_epochs(
    request: TrainingOptions, values: Mapping[str, Any], photos: Collection[DataSetImage]
) -> dict[str, int]:
    if request.keep_every_epochs is None:
        return {}
    if request.keep_every is not None:
        raise InvalidRequest({"keepEveryEpochs": "is in place of keepEvery; leave one of them out"})
    samples = samples_of_an_epoch(photos, values["validation_photos"])
    # None also where as many are held out as there are: that is refused by its own name.
    return (
        kept_by_epochs(request.keep_every_epochs, values, samples, request.checkpoint_every)
        if samples
        else {"keep_every": 0}
    )


def _sampler(request: TrainingOptions, base: BaseModelFacts) -> SamplerSettings:
    asked = request.sampler
    if asked is None:
        return base.sampler
    return SamplerSettings(
        steps=asked.steps or base.sampler.steps,
        guidance_scale=base.sampler.guidance_scale if asked.guidance_scale is None else asked.guidance_scale,
    )


def _refuse_what_does_not_fit(request: TrainingOptions, base: BaseModelFacts) -> None:
    wrong: dict[str, str] = {}
    if not _PLAIN_WORDS.fullmatch(request.class_word):
        wrong["classWord"] = "must be plain words (letters, digits, single spaces or hyphens), for example: mug"
    elif base.class_words and request.class_word not in base.class_words:
        known = ", ".join(base.class_words)
        wrong["classWord"] = (
            f"base model '{base.name}' does not know '{request.class_word}'; it knows: {known}. "
            "For other classes register a larger base with: darkroom base add FOLDER --name NAME"
        )
    fault = fault_of_identifier(request.identifier or base.training.identifier, request.class_word)
    if fault:
        wrong["identifier"] = fault
    if request.name is not None and not request.name.strip():
        wrong["name"] = "must not be blank"
    if wrong:
        raise InvalidRequest(wrong)
