"""The `parameters` text of a picture, A1111's "infotext": how it was drawn, for people and for the tools that read it.

    a photo of a sks mug
    Negative prompt: blurred
    Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Model: mugs, ...

Every tool of the field writes and reads this form. It cannot hold every prompt: lines lose blanks at their ends, and a
line of a prompt may begin as a negative prompt does. Where a prompt would not be read back as it is, the settings name
it once more under keys of ours, which other tools pass over.

Sources: AUTOMATIC1111/stable-diffusion-webui, modules/processing.py (`create_infotext`) and modules/infotext_utils.py
(`parse_generation_parameters`); civitai/civitai, src/utils/metadata/automatic.metadata.ts (`Civitai resources`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from storage.errors import InvalidRequest
from storage.records.generation.drawings import Drawing, DrawnImage, Operation
from storage.records.generation.infotext import embedded, is_settings_line, read_settings, setting
from storage.records.generation.parameter_values import DrawnFacts, alias, facts_of

MAX_TEXT = 1_048_576
"""Characters of a text that is read."""
EXACT_PROMPT, EXACT_NEGATIVE = "Darkroom prompt", "Darkroom negative prompt"
"""Our keys for prompts that the form itself does not carry as they are."""

_NEGATIVE = "Negative prompt:"
_TEMPLATES = ("Template:", "Negative Template:")
# Where a tool has put everything on one line: the settings begin at the last number of steps with a setting behind it.
_STEPS_WITHIN = re.compile(r"(?:^|[\s.,])Steps:\s?\d{1,5}\s?,\s?[A-Z][\w /-]{0,30}:")
_AIR_TYPE = re.compile(r"urn:air:[\w/-]+:([\w/-]+):")


class KnownAfterwards(msgspec.Struct, frozen=True, kw_only=True):
    """What a drawing does not say of itself: how it was drawn, and the hashes that other tools know its files by.

    `sampler` and `schedule_type` are the scheduler by A1111's names. `batch_shape` is 1 or 8. `model_hash` is the
    checkpoint's AutoV2; `adapter_hashes` has AutoV3 by the SHA-256 that the drawing names. Unknown ones stay out.
    """

    sampler: str
    schedule_type: str = ""
    batch_shape: int
    backend: str
    version: str
    model_hash: str = ""
    adapter_hashes: dict[str, str] = {}


def write_parameters(drawing: Drawing, image: DrawnImage, known: KnownAfterwards) -> str:
    """The text of one image of a drawing; `read_parameters` finds in it all that was asked for."""
    settings = list(_settings(drawing, image, known))
    text = _joined(image.prompt, drawing.negative_prompt, settings)
    prompt, negative, _line = _parts(text)
    if prompt != image.prompt:
        settings.append(setting(EXACT_PROMPT, image.prompt))
    if negative != drawing.negative_prompt:
        settings.append(setting(EXACT_NEGATIVE, drawing.negative_prompt))
    return _joined(image.prompt, drawing.negative_prompt, settings)


def read_parameters(text: str) -> DrawnFacts:
    """What a text says of its picture, whichever tool wrote it; a text without settings is all prompt.

    What is malformed is left out, or kept in `other` under its key. Raises InvalidRequest over MAX_TEXT characters.
    """
    if len(text) > MAX_TEXT:
        message = f"has {len(text):,} characters; at most {MAX_TEXT:,} are read. Send the lines of one picture"
        raise InvalidRequest({"parameters": message})
    prompt, negative, line = _parts(text)
    settings = read_settings(line)
    exact_prompt, exact_negative = settings.pop(EXACT_PROMPT, None), settings.pop(EXACT_NEGATIVE, None)
    return facts_of(
        settings,
        prompt=exact_prompt if isinstance(exact_prompt, str) else prompt,
        negative_prompt=exact_negative if isinstance(exact_negative, str) else negative,
    )


def has_settings(text: str) -> bool:
    """Whether a text says anything beyond a prompt: a comment of a camera, for one, does not."""
    return len(text) <= MAX_TEXT and bool(_parts(text)[2])


def _settings(drawing: Drawing, image: DrawnImage, known: KnownAfterwards) -> Iterator[str]:
    """The settings in A1111's order, ours after its own, and Civitai's last."""
    yield setting("Steps", drawing.steps)
    yield setting("Sampler", known.sampler)
    # A1111 takes a missing one for its own choice, which for some samplers is Karras.
    if known.schedule_type:
        yield setting("Schedule type", known.schedule_type)
    yield setting("CFG scale", float(drawing.guidance_scale))
    yield setting("Seed", image.seed)
    yield setting("Size", f"{drawing.width}x{drawing.height}")
    if known.model_hash:
        yield setting("Model hash", known.model_hash)
    if drawing.model.name:
        yield setting("Model", drawing.model.name)
    if drawing.source:
        yield setting("Denoising strength", float(drawing.strength))
    if drawing.clip_skip:
        yield setting("Clip skip", drawing.clip_skip)
    if drawing.scheduler.eta:
        yield setting("Eta DDIM" if drawing.scheduler.name == "ddim" else "Eta", float(drawing.scheduler.eta))
    # First noise comes from a generator of the CPU, on every device.
    yield setting("RNG", "CPU")
    hashes = [
        f"{alias(adapter.name)}: {known.adapter_hashes[adapter.sha256]}"
        for adapter in drawing.adapters
        if adapter.name and adapter.sha256 in known.adapter_hashes
    ]
    if hashes:
        yield setting("Lora hashes", ", ".join(hashes))
    if drawing.guidance_rescale:
        yield setting("Guidance rescale", float(drawing.guidance_rescale))
    if drawing.operation is not Operation.TXT2IMG:
        yield setting("Operation", drawing.operation.value)
    yield setting("Batch shape", known.batch_shape)
    yield setting("Backend", known.backend)
    yield setting("Version", f"Darkroom {known.version}")
    yield f"Civitai resources: {embedded(list(_resources(drawing)))}"


def _resources(drawing: Drawing) -> Iterator[dict[str, object]]:
    """Model and adapters as Civitai lists them. A list without any would not be found by its pattern."""
    model = drawing.model
    yield _resource(model.air, "checkpoint", model.version_id, model.name, None)
    for adapter in drawing.adapters:
        yield _resource(adapter.air, "lora", adapter.version_id, adapter.name, adapter.strength)


def _resource(air: str, kind: str, version_id: int, name: str, weight: float | None) -> dict[str, object]:
    typed = _AIR_TYPE.match(air)
    listed: dict[str, object] = {"type": typed[1] if typed else kind}
    if weight is not None:
        listed["weight"] = weight
    listed["modelVersionId"] = version_id
    if name:
        listed["modelName"] = name
    if air:
        listed["air"] = air
    return listed


def _joined(prompt: str, negative: str, settings: list[str]) -> str:
    lines = [prompt] if prompt else []
    if negative:
        lines.append(f"{_NEGATIVE} {negative}")
    return "\n".join([*lines, ", ".join(settings)])


def _parts(text: str) -> tuple[str, str, str]:
    """Prompt, negative prompt and settings of a text. Lines end at line feeds alone."""
    lines = text.lstrip("\ufeff").split("\n")
    first = next((number for number in reversed(range(len(lines))) if is_settings_line(lines[number])), None)
    if first is not None:
        return *_prompts("\n".join(lines[:first])), _without_templates(lines[first:])
    jammed = [match.start() for match in _STEPS_WITHIN.finditer(text)]
    if jammed:
        return *_prompts(text[: jammed[-1]]), text[jammed[-1] :].lstrip(" .,\n")
    return *_prompts(text), ""


def _prompts(text: str) -> tuple[str, str]:
    """The negative prompt begins at the first line that says so; on one line with everything, where it says so."""
    starts = re.search(rf"^[ \t]{{0,99}}{_NEGATIVE}", text, re.MULTILINE) or re.search(_NEGATIVE, text)
    if starts is None:
        return text.strip(), ""
    return text[: starts.start()].strip(), text[starts.end() :].strip()


def _without_templates(lines: list[str]) -> str:
    """The settings line and what follows it, up to the templates that an extension for wildcards adds."""
    templates = (number for number, line in enumerate(lines) if line.startswith(_TEMPLATES))
    return "\n".join(lines[: next(templates, len(lines))])
