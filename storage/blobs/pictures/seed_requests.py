"""The request that a picture was drawn from, as far as the picture says: `darkroom generate --from image.png`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from storage.blobs.pictures.read import PictureFacts
from storage.records.generation.parameter_values import DrawnFacts, DrawnResource, alias

ADAPTERS = frozenset({"lora", "lycoris", "lyco", "locon", "loha", "lokr", "dora"})
"""Kinds of what is mixed into a model's layers, by the names that tools have for them."""
UNSAID = frozenset({"Created Date", "Civitai metadata", "User"})
"""Settings that change no picture."""
MAX_LEFT_OUT, LONGEST_NAME = 100, 100
"""Names that are listed, and characters of each."""
UNDEFINED = "undefined"
"""What Civitai's site writes for a sampler that a model does not let one choose."""

_TAG = re.compile(r"<(?:lora|lyco|hypernet):([^<>]+)>", re.IGNORECASE)


@dataclass(frozen=True)
class SeedRequest:
    """Fields of a request by their names in the API, and what the picture says besides, by its names in the picture.

    A model is its AIR or one of its hashes. Values are as the picture has them: whoever takes them checks them.
    """

    fields: dict[str, Any]
    left_out: tuple[str, ...] = ()


def read_seed_request(facts: PictureFacts) -> SeedRequest:
    """Our own request exactly as it was; of other pictures what their text says, at their own size if it names none."""
    if facts.request:
        return SeedRequest(facts.request)
    drawn = facts.drawn
    prompt, tagged, unknown_tags = _without_tags(drawn)
    adapters = [one for one in tagged if one.kind in ADAPTERS]
    fields: dict[str, Any] = {
        "prompt": prompt,
        "negativePrompt": drawn.negative_prompt or None,
        "seed": drawn.seed,
        "steps": drawn.steps,
        "guidanceScale": drawn.guidance_scale,
        "guidanceRescale": drawn.guidance_rescale,
        "width": drawn.width or facts.width,
        "height": drawn.height or facts.height,
        "scheduler": None if drawn.sampler.lower() == UNDEFINED else drawn.sampler or None,
        "spacing": drawn.schedule_type or None,
        "eta": drawn.eta,
        "clipSkip": drawn.clip_skip,
        "model": _identity(drawn.model, drawn) or None,
        "adapters": [_adapter(one, drawn) for one in adapters if _identity(one, drawn)] or None,
    }
    left_out = [
        *(key for key in drawn.other if key not in UNSAID and (key, drawn.other[key]) != ("RNG", "CPU")),
        *_left_out(drawn, adapters, [one for one in tagged if one.kind not in ADAPTERS]),
        *unknown_tags,
    ]
    said = {name: value for name, value in fields.items() if value is not None}
    return SeedRequest(said, tuple(name[:LONGEST_NAME] for name in left_out[:MAX_LEFT_OUT]))


def _left_out(drawn: DrawnFacts, adapters: Iterable[DrawnResource], others: Iterable[DrawnResource]) -> Iterable[str]:
    if drawn.sampler.lower() == UNDEFINED:
        yield "Sampler"
    # What it was drawn over is not in the picture.
    if drawn.strength is not None:
        yield "Denoising strength"
    if drawn.operation:
        yield "Operation"
    if not _identity(drawn.model, drawn) and (drawn.model.name or drawn.model.version_id):
        yield "Model"
    yield from (f"{one.kind} {_called(one)}" for one in adapters if not _identity(one, drawn))
    yield from (f"{one.kind or 'resource'} {_called(one)}".strip() for one in others)


def _identity(one: DrawnResource, drawn: DrawnFacts) -> str:
    """What finds it here. The numbers in another platform's AIR are not ours; a hash means the same everywhere."""
    ours = drawn.version.startswith("Darkroom")
    return (one.air or one.hash) if ours else (one.hash or one.air)


def _adapter(one: DrawnResource, drawn: DrawnFacts) -> dict[str, Any]:
    found: dict[str, Any] = {"model": _identity(one, drawn)}
    return found if one.weight is None else found | {"strength": one.weight}


def _called(one: DrawnResource) -> str:
    return one.name or one.air or (str(one.version_id) if one.version_id else one.hash)


def _without_tags(drawn: DrawnFacts) -> tuple[str, list[DrawnResource], list[str]]:
    """The prompt without A1111's `<lora:name:0.8>`, the resources with the strengths of their tags, and other tags."""
    resources, unknown = list(drawn.resources), list[str]()
    places = {alias(one.name): place for place, one in enumerate(resources) if one.name}
    for tag in _TAG.finditer(drawn.prompt):
        name, *strengths = tag[1].split(":")
        place = places.get(alias(name))
        if place is None:
            unknown.append(tag[0])
        elif resources[place].weight is None:
            resources[place] = msgspec.structs.replace(resources[place], weight=_strength(strengths))
    prompt, tags = _TAG.subn("", drawn.prompt)
    return prompt.strip() if tags else drawn.prompt, resources, unknown


def _strength(written: list[str]) -> float | None:
    """The first of a tag's strengths: 1 where it has none, as in A1111; None where it is no number."""
    if not written:
        return 1.0
    return float(written[0]) if re.fullmatch(r"\s*[+-]?\d{1,6}(\.\d{0,9})?\s*", written[0]) else None
