"""From a step of Civitai's orchestration to a step of ours, and from the names of our fields back to theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from storage.errors import InvalidRequest
from storage.records.generation.drawings import Operation
from storage.records.generation.resolved_workflows import ResolvedStep, ResolvedWorkflow
from storage.records.generation.step_fields import GRID, AdapterRequest, StepOutput
from storage.records.generation.step_requests import StepRequest
from storage.records.orchestration.templates import (
    ComfyInput,
    ImageGenInput,
    ImageUpscalerInput,
    Reference,
    SdCppInput,
    StepRead,
    TextToImageInput,
    picture_field,
    picture_of,
)
from storage.request_faults import field_faults

_AIR = re.compile(
    r"(?:urn:)?(?:air:)?(?P<name>[a-z0-9_-]+:[a-z0-9_-]+:[a-z0-9_-]+:\d{1,16}@\d{1,16})"
    r"(?P<file>\+\d+)?(?:\.(?P<format>[a-z0-9_-]+))?",
    re.IGNORECASE,
)
_PATH = re.compile(r"output\.(?:images(?:\[(\d{1,3})\]|\.(\d{1,3}))|blob)(?:\.url|\.id)?\Z", re.IGNORECASE)
_OF_WORKFLOW = re.compile(r"workflow\[(\d+)\]\.(.+)\Z")
_FORMATS = {"png": "png", "jpeg": "jpeg", "webp": "webp"}
_BACKENDS = {"comfy": "comfyui", "comfyui": "comfyui", "local": "local"}
_COMMON = {
    "name": "name",
    "model": "input.model",
    "prompt": "input.prompt",
    "negativePrompt": "input.negativePrompt",
    "steps": "input.steps",
    "guidanceScale": "input.cfgScale",
    "seed": "input.seed",
    "count": "input.quantity",
    "width": "input.width",
    "height": "input.height",
    "clipSkip": "input.clipSkip",
    "format": "input.outputFormat",
    "image": "input.image",
}
_NAMES: Mapping[type[msgspec.Struct], Mapping[str, str]] = {
    TextToImageInput: {
        "scheduler": "input.scheduler",
        "spacing": "input.scheduler",
        "adapters": "input.additionalNetworks",
        "image": "input.sourceImage",
        "strength": "input.sourceImageDenoiseStrenght",
        "backend": "input.engine",
    },
    SdCppInput: {
        "scheduler": "input.sampleMethod",
        "spacing": "input.schedule",
        "adapters": "input.loras",
        "strength": "input.strength",
    },
    ComfyInput: {
        "scheduler": "input.sampler",
        "spacing": "input.scheduler",
        "adapters": "input.loras",
        "strength": "input.denoiseStrength",
    },
    ImageUpscalerInput: {"width": "input.numberOfRepeats", "height": "input.numberOfRepeats"},
}


class Adapter(NamedTuple):
    """An adapter as it is asked for: its AIR, and how strongly."""

    air: str
    strength: float


class Asked(NamedTuple):
    """A step of ours with what it was made of: for the names of its fields, and for the AIRs that it names."""

    step: StepRequest
    read: StepRead
    adapters: tuple[Adapter, ...]


def reference_of(read: StepRead) -> StepOutput | None:
    """The picture of an earlier step that a step goes on from. Raises InvalidRequest for a path that is none."""
    picture = picture_of(read)
    if not isinstance(picture, Reference):
        return None
    found = _PATH.match(picture.path)
    if found is None:
        reason = f"'{picture.path}' is no picture of a step; write output.images[0].url, or output.blob.url"
        raise InvalidRequest({f"input.{picture_field(read)}.path": reason})
    # `$name` is how they write the name of a step.
    return StepOutput(step=picture.step.removeprefix("$") or "0", image=int(found[1] or found[2] or 0))


def asked_of(read: StepRead, source: str | StepOutput | None, size: tuple[int, int] | None) -> Asked:
    """Our step. `source`: its picture, by the SHA-256 or of an earlier step; `size` in pixels of one to enlarge.

    Raises InvalidRequest with the names of their fields within the step.
    """
    match read.input:
        case TextToImageInput() as given:
            networks = given.additional_networks or {}
            adapters = tuple(
                Adapter(air, 1.0 if one.strength is None else one.strength) for air, one in networks.items()
            )
            plain = _text_to_image(given)
        case ImageGenInput() as given:
            adapters = tuple(Adapter(air, strength) for air, strength in (given.loras or {}).items())
            plain = _image_gen(given, source)
        case ImageUpscalerInput() as given:
            adapters = ()
            plain = _upscaler(given, size)
    faults: dict[str, str] = {}
    if "model" in plain:
        plain["model"] = plain_air(plain["model"], "input.model", faults)
    plain["adapters"] = [
        {
            "model": plain_air(one.air, named(f"adapters[{place}].model", read, adapters), faults),
            "strength": one.strength,
        }
        for place, one in enumerate(adapters)
    ]
    if isinstance(source, StepOutput):
        plain["image"] = {"$ref": source.step, "image": source.image}
    elif source is not None:
        plain["image"] = source
    plain["name"] = read.template.name
    kept = {name: value for name, value in plain.items() if value is not None and value != []}
    faults |= {named(field, read, adapters): reason for field, reason in _step_faults(kept).items()}
    if faults:
        raise InvalidRequest(faults)
    return Asked(msgspec.convert(kept, StepRequest), read, adapters)


def named(field: str, read: StepRead, adapters: tuple[Adapter, ...]) -> str:
    """What a field of our step is called in theirs."""
    names = {**_COMMON, **_NAMES[type(read.input)]}
    if found := re.match(r"adapters\[(\d+)\](.*)", field):
        place = int(found[1])
        air = adapters[place].air[:100] if place < len(adapters) else str(place)
        rest = found[2] if found[2] == ".strength" and isinstance(read.input, TextToImageInput) else ""
        return f"{names['adapters']}[{air}]{rest}"
    first, _, rest = field.partition(".")
    return names.get(first, first) + (f".{rest}" if rest else "")


def named_in(error: InvalidRequest, asked: tuple[Asked, ...]) -> InvalidRequest:
    """A refusal of our workflow, with the names of their fields."""
    fields: dict[str, str] = {}
    for field, reason in error.fields.items():
        found = _OF_WORKFLOW.match(field)
        if found is None or int(found[1]) >= len(asked):
            fields[field] = reason
            continue
        place = int(found[1])
        fields[f"steps[{place}].{named(found[2], asked[place].read, asked[place].adapters)}"] = reason
    return InvalidRequest(fields)


def check_airs(resolved: ResolvedWorkflow, asked: tuple[Asked, ...]) -> None:
    """Raises InvalidRequest where an AIR names another model than the one of its version's number here, or another
    ecosystem than the one that it draws in: a number may be one of Civitai's own."""
    faults: dict[str, str] = {}
    for place, (step, one) in enumerate(zip(resolved.steps, asked, strict=True)):
        for field, wanted, own in _airs(step, one):
            if own.lower() != wanted.lower():
                number = wanted.rpartition("@")[2]
                faults[f"steps[{place}].{field}"] = f"is no resource of this platform: its version {number} is {own}"
        given, family = one.read.input, step.drawing.model.family
        if isinstance(given, ImageGenInput) and given.ecosystem != family:
            faults[f"steps[{place}].input.ecosystem"] = f"the model is of the ecosystem {family}"
    if faults:
        raise InvalidRequest(faults)


def _airs(step: ResolvedStep, one: Asked) -> list[tuple[str, str, str]]:
    """Each AIR that a step names: its field, as it was asked for, and the resource's own."""
    if not isinstance(one.step.model, str):
        return []
    drawing = step.drawing
    # A version that is an adapter comes first among them, with the base that it was trained on as the model.
    implied = len(drawing.adapters) - len(one.adapters)
    own = drawing.adapters[0].air if implied else drawing.model.air
    found = [("input.model", one.step.model, own)]
    for place, adapter in enumerate(one.step.adapters):
        field = named(f"adapters[{place}].model", one.read, one.adapters)
        found.append((field, str(adapter.model), drawing.adapters[implied + place].air))
    return found


def plain_air(text: Any, field: str, faults: dict[str, str]) -> str:
    """An AIR in its full form; what is wrong with it goes into `faults` under the field's name."""
    found = _AIR.fullmatch(str(text))
    if found is None:
        faults[field] = f"'{str(text)[:100]}' is no AIR with a version, such as urn:air:sd1:checkpoint:civitai:2@3"
        return "urn:air:unknown"
    if found["file"] is not None:
        faults[field] = (
            "names one file of a version; a version is drawn with as a whole, so leave out '+' and its number"
        )
    if (found["format"] or "safetensor").lower() not in ("safetensor", "safetensors", "diffusers"):
        faults[field] = f"names the format '{found['format'][:20]}'; versions here are safetensors"
    return f"urn:air:{found['name']}"


def _step_faults(plain: dict[str, Any]) -> dict[str, str]:
    faults = field_faults(plain, StepRequest)
    adapters = plain.get("adapters", [])
    of_each = {
        field: reason
        for place, adapter in enumerate(adapters)
        for field, reason in field_faults(adapter, AdapterRequest, f"adapters[{place}].").items()
    }
    if of_each:
        faults.pop("adapters", None)
    return faults | of_each


def _drawn(given: TextToImageInput | ImageGenInput) -> dict[str, Any]:
    """What all step types that draw with a model have in common."""
    output = given.output_format
    return {
        "model": given.model,
        "prompt": given.prompt,
        "negativePrompt": given.negative_prompt,
        "steps": given.steps,
        "guidanceScale": given.cfg_scale,
        "seed": given.seed,
        "count": given.quantity,
        "width": given.width,
        "height": given.height,
        "clipSkip": given.clip_skip,
        "format": None if output is None else _FORMATS.get(output.lower(), output),
    }


def _text_to_image(given: TextToImageInput) -> dict[str, Any]:
    from_picture = given.source_image is not None
    engine = given.engine
    return _drawn(given) | {
        "operation": (Operation.IMG2IMG if from_picture else Operation.TXT2IMG).value,
        "count": _count(given.quantity, given.batch_size),
        "scheduler": None if given.scheduler in (None, "undefined") else given.scheduler,
        "strength": given.source_image_denoise_strenght if from_picture else None,
        "backend": None if engine in (None, "", "auto") else _BACKENDS.get(engine.lower(), engine),
    }


def _count(quantity: int | None, batch: int | None) -> int | None:
    """Pictures in all: batches times their size."""
    return quantity if batch is None else batch * (1 if quantity is None else quantity)


def _image_gen(given: ImageGenInput, source: object) -> dict[str, Any]:
    variant = given.operation == "createVariant"
    if variant and source is None:
        raise InvalidRequest({"input.image": "is needed by createVariant"})
    if not variant and source is not None:
        raise InvalidRequest({"input.image": "is for createVariant; leave it out"})
    plain = _drawn(given) | {"operation": (Operation.IMG2IMG if variant else Operation.TXT2IMG).value}
    match given:
        case SdCppInput():
            own = {"scheduler": given.sample_method, "spacing": given.schedule, "strength": given.strength}
        case ComfyInput():
            own = {"scheduler": given.sampler, "spacing": given.scheduler, "strength": given.denoise_strength}
        case _:
            own = {}
    return plain | own


def _upscaler(given: ImageUpscalerInput, size: tuple[int, int] | None) -> dict[str, Any]:
    width, height = size or (0, 0)
    factor = 2**given.number_of_repeats
    if width * factor % GRID or height * factor % GRID:
        reason = (
            f"makes {width * factor} x {height * factor} pixels of {width} x {height}; sides are multiples of {GRID}"
        )
        raise InvalidRequest({"input.numberOfRepeats": f"{reason} here, so cut the picture to such a size first"})
    return {"operation": Operation.UPSCALE.value, "width": width * factor, "height": height * factor}
