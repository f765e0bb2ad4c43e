"""From a step as it was asked for to a drawing with nothing left open. Nothing here asks a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from storage.errors import InvalidRequest
from storage.records.generation.drawings import NO_MODEL, Drawing, DrawnAdapter, DrawnImage, DrawnModel, Operation
from storage.records.generation.prompts import PromptBudget
from storage.records.generation.scheduler_limits import unet_calls
from storage.records.generation.scheduler_names import find_scheduler
from storage.records.generation.schedulers import SchedulerSettings
from storage.records.generation.step_fields import GRID, MAX_LIST_CHARACTERS, MAX_SEED
from storage.records.generation.step_requests import StepRequest
from storage.records.generation.wildcards import PromptChoices
from storage.records.jobs.choices import ModelFamily
from storage.records.jobs.sampled_sets import SamplerSettings

DEFAULT_STRENGTH = 0.75
"""That of A1111's img2img."""


class FamilyLimits(NamedTuple):
    """What a family's models can draw: pixels a side and in all, beyond which objects repeat and memory ends."""

    max_side: int
    max_pixels: int


LIMITS: Mapping[str, FamilyLimits] = MappingProxyType(
    {
        ModelFamily.SD1.value: FamilyLimits(2048, 2048 * 2048),
        ModelFamily.SDXL.value: FamilyLimits(4096, 2048 * 2048),
    }
)
LARGEST = FamilyLimits(4096, 4096 * 4096)
"""Of what needs no model."""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a step needs to know of its model: its bytes, the side in pixels that it draws, how it was sampled."""

    model: DrawnModel
    resolution: int
    sampler: SamplerSettings = SamplerSettings()


class AdapterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter at full strength, and the family of models that it is for."""

    adapter: DrawnAdapter
    family: str


class SourcePicture(NamedTuple):
    """A picture in the blob store: SHA-256 of its bytes, and its pixels."""

    sha256: str
    width: int
    height: int


def drawing_of(
    step: StepRequest,
    facts: ModelFacts | None,
    adapters: Sequence[AdapterFacts],
    seed: int,
    *,
    implied: int = 0,
    source: SourcePicture | None = None,
    mask: SourcePicture | None = None,
    budget: PromptBudget | None = None,
) -> Drawing:
    """The drawing of a step. facts: of its model, None for one that needs none. adapters: in the order of the request,
    behind the first `implied` ones, which the model itself is: those have their full strength. seed: where the request
    has none. budget: of all steps' prompts.

    Raises InvalidRequest by field for what the model, the scheduler or the sources do not fit.
    """
    faults: dict[str, str] = {}
    width, height = _sides(step, facts, source)
    limits = LARGEST if facts is None else LIMITS.get(facts.model.family, LARGEST)
    faults |= _of_size(width, height, limits)
    faults |= _of_adapters(facts, adapters, implied)
    if mask is not None and source is not None and (mask.width, mask.height) != (source.width, source.height):
        sizes = f"{mask.width} x {mask.height} pixels and the image {source.width} x {source.height}"
        faults["mask"] = f"has {sizes}; they must be equal"
    scheduler, steps = _scheduler(step, facts, faults)
    images, negative = _prompts(step, seed if step.seed is None else step.seed, budget or PromptBudget(), faults)
    if faults:
        raise InvalidRequest(faults)
    sampler = facts.sampler if facts else SamplerSettings()
    guidance = sampler.guidance_scale if step.guidance_scale is None else step.guidance_scale
    return Drawing(
        model=facts.model if facts else NO_MODEL,
        adapters=tuple(
            msgspec.structs.replace(known.adapter, strength=strength)
            for known, strength in zip(
                adapters, [*[1.0] * implied, *(asked.strength for asked in step.adapters)], strict=True
            )
        ),
        operation=step.operation,
        images=images,
        negative_prompt=negative,
        scheduler=scheduler,
        steps=steps,
        guidance_scale=guidance,
        guidance_rescale=step.guidance_rescale,
        width=width,
        height=height,
        clip_skip=step.clip_skip,
        source=source.sha256 if source else "",
        mask=mask.sha256 if mask else "",
        strength=_strength(step),
        format=step.format,
        exact=step.exact,
        shape=step.shape,
    )


def _sides(step: StepRequest, facts: ModelFacts | None, source: SourcePicture | None) -> tuple[int, int]:
    """What is asked for; else the source's, as near as the grid allows; else what the model draws."""
    own = (source.width, source.height) if source else (facts.resolution, facts.resolution) if facts else (0, 0)
    width, height = (max(GRID, round(side / GRID) * GRID) for side in own)
    return step.width or width, step.height or height


def _of_size(width: int, height: int, limits: FamilyLimits) -> dict[str, str]:
    faults = {
        name: f"{side} is more than the {limits.max_side} pixels a side that this model's family draws"
        for name, side in (("width", width), ("height", height))
        if side > limits.max_side
    }
    if not faults and width * height > limits.max_pixels:
        faults["width"] = f"{width} x {height} are more than {limits.max_pixels:,} pixels; ask for less, and upscale"
    return faults


def _of_adapters(facts: ModelFacts | None, adapters: Sequence[AdapterFacts], implied: int) -> dict[str, str]:
    faults: dict[str, str] = {}
    seen: set[str] = set()
    for place, known in enumerate(adapters, -implied):
        if facts is not None and known.family != facts.model.family:
            faults[f"adapters[{place}].model"] = (
                f"is of the family {known.family}, and the model of {facts.model.family}; they do not fit together"
            )
        if known.adapter.sha256 in seen:
            faults[f"adapters[{place}].model"] = (
                "is there twice, or is the model itself; ask for it once, with the strength of both"
            )
        seen.add(known.adapter.sha256)
    return faults


def _scheduler(step: StepRequest, facts: ModelFacts | None, faults: dict[str, str]) -> tuple[SchedulerSettings, int]:
    steps = step.steps or (facts.sampler if facts else SamplerSettings()).steps
    try:
        found = find_scheduler(step.scheduler or "ddim", step.spacing or "", step.eta)
        unet_calls(found, steps, _strength(step))
    except InvalidRequest as error:
        faults.update(error.fields)
        return SchedulerSettings(), steps
    return found, steps


def _strength(step: StepRequest) -> float:
    """How much of its steps a drawing takes: all, where there is no source to go on from."""
    if step.operation not in (Operation.IMG2IMG, Operation.INPAINT):
        return 1.0
    return DEFAULT_STRENGTH if step.strength is None else step.strength


def _prompts(
    step: StepRequest, seed: int, budget: PromptBudget, faults: dict[str, str]
) -> tuple[tuple[DrawnImage, ...], str]:
    if step.operation is Operation.UPSCALE:
        return (DrawnImage(prompt="", seed=0),), ""
    seeds = [(seed + number) % (MAX_SEED + 1) for number in range(step.count)]
    try:
        budget.keep(len(step.prompt) + len(step.negative_prompt), "prompt")
        size = sum(len(name) + sum(map(len, values)) for name, values in step.wildcards.items())
        if size > MAX_LIST_CHARACTERS:
            reason = f"its lists are {size:,} characters in all; the limit is {MAX_LIST_CHARACTERS:,}"
            raise InvalidRequest({"wildcards": f"{reason}. Leave out values"})
        choices, prompts = PromptChoices(step.wildcards, budget), list[str]()
        for one in seeds:
            prompts.append(choices.text(step.prompt, one, "prompt"))
            budget.keep(len(prompts[-1]), "prompt")
            budget.check(prompts[-1], "prompt")
        # One for all pictures of a step, by the first one's seed.
        negative = choices.text(step.negative_prompt, seeds[0], "negativePrompt")
        budget.check(negative, "negativePrompt")
    except InvalidRequest as error:
        faults.update(error.fields)
        return (), ""
    return tuple(DrawnImage(prompt=prompt, seed=one) for prompt, one in zip(prompts, seeds, strict=True)), negative
