"""What the engine takes at its door, field by field: what is beyond these limits reaches no thread that draws."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from flows.diffusion.trajectories import ALONE, TOGETHER
from flows.generation.engine.messages import DrawRequest
from storage.errors import InvalidRequest
from storage.records.generation.drawings import Drawing, DrawnModel, Operation
from storage.records.generation.scheduler_limits import unet_calls
from storage.records.generation.step_fields import GRID

MAX_IMAGES, MAX_ADAPTERS, MAX_FILES = 64, 16, 4096
MAX_PROMPT_CHARACTERS, MAX_PATH_CHARACTERS = 10_000, 1_000
MIN_SIDE, MAX_SIDE, MAX_UPSCALED_SIDE = 64, 4096, 8192
MAX_STEPS = 999
MAX_GUIDANCE = 100.0
SHAPES = (0, ALONE, TOGETHER)
SHA256 = re.compile(r"[0-9a-f]{64}")
WITH_SOURCE = (Operation.IMG2IMG, Operation.INPAINT, Operation.UPSCALE)
_SHOWN = 80


def checked(request: DrawRequest) -> DrawRequest:
    """The request, if the engine can draw it. Raises InvalidRequest with a reason for each field that does not pass."""
    drawing = request.drawing
    faults = {
        **dict(_of_wanted(request)),
        **dict(_of_sizes(drawing)),
        **dict(_of_prompts(drawing)),
        **dict(_of_numbers(drawing)),
        **dict(_of_pictures(drawing)),
        **dict(_of_adapters(drawing)),
        **dict(_of_model(drawing)),
    }
    if not faults:
        faults = _of_steps(drawing)
    if faults:
        raise InvalidRequest(faults)
    return request


def _of_wanted(request: DrawRequest) -> Iterator[tuple[str, str]]:
    count = len(request.drawing.images)
    if not 1 <= count <= MAX_IMAGES:
        yield "images", f"{count} pictures; a drawing has 1 to {MAX_IMAGES}"
    elif any(not 0 <= number < count for number in request.wanted):
        yield "wanted", f"has pictures that the drawing lacks; it has 0 to {count - 1}"
    if len(set(request.wanted)) < len(request.wanted):
        yield "wanted", "has a picture twice; ask for each once"


def _of_sizes(drawing: Drawing) -> Iterator[tuple[str, str]]:
    most = MAX_UPSCALED_SIDE if drawing.operation is Operation.UPSCALE else MAX_SIDE
    for name, side in (("width", drawing.width), ("height", drawing.height)):
        if not MIN_SIDE <= side <= most:
            yield name, f"{side} pixels are not between {MIN_SIDE} and {most}"
        elif side % GRID:
            yield name, f"{side} is no multiple of {GRID}; ask for {side // GRID * GRID}"
    if drawing.shape not in SHAPES:
        yield "shape", f"{drawing.shape} is no batch shape; it is one of {', '.join(map(str, SHAPES))}"


def _of_prompts(drawing: Drawing) -> Iterator[tuple[str, str]]:
    longest = max((len(image.prompt) for image in drawing.images), default=0)
    for name, length in (("prompt", longest), ("negativePrompt", len(drawing.negative_prompt))):
        if length > MAX_PROMPT_CHARACTERS:
            yield name, f"has {length:,} characters; the limit is {MAX_PROMPT_CHARACTERS:,}"


def _of_numbers(drawing: Drawing) -> Iterator[tuple[str, str]]:
    # Each written so that a number that is none (NaN) is refused, too.
    if not 1 <= drawing.steps <= MAX_STEPS:
        yield "steps", f"{drawing.steps} is not between 1 and {MAX_STEPS}"
    if not 0.0 <= drawing.guidance_scale <= MAX_GUIDANCE:
        yield "guidanceScale", f"{drawing.guidance_scale:g} is not between 0 and {MAX_GUIDANCE:g}"
    if not 0.0 <= drawing.guidance_rescale <= 1.0:
        yield "guidanceRescale", f"{drawing.guidance_rescale:g} is not between 0 and 1"
    if not 0.0 < drawing.strength <= 1.0:
        yield "strength", f"{drawing.strength:g} is not above 0 and at most 1"


def _of_pictures(drawing: Drawing) -> Iterator[tuple[str, str]]:
    operation = drawing.operation
    needed = {"source": operation in WITH_SOURCE, "mask": operation is Operation.INPAINT}
    for name, value in (("source", drawing.source), ("mask", drawing.mask)):
        if needed[name] and not SHA256.fullmatch(value):
            yield name, f"'{value[:_SHOWN]}' is no SHA-256 of a picture, which {operation.value} needs"
        elif value and not needed[name]:
            yield name, f"{operation.value} takes none; leave it out"


def _of_adapters(drawing: Drawing) -> Iterator[tuple[str, str]]:
    if len(drawing.adapters) > MAX_ADAPTERS:
        yield "adapters", f"{len(drawing.adapters)} adapters; the limit is {MAX_ADAPTERS}"
        return
    seen = set[str]()
    for place, adapter in enumerate(drawing.adapters):
        name = f"adapters[{place}]"
        if not SHA256.fullmatch(adapter.sha256):
            yield f"{name}.sha256", f"'{adapter.sha256[:_SHOWN]}' is no SHA-256"
        elif adapter.sha256 in seen:
            yield f"{name}.sha256", "is there twice; ask for it once, with the strength of both"
        if not math.isfinite(adapter.strength):
            yield f"{name}.strength", f"{adapter.strength} is no number"
        seen.add(adapter.sha256)


def _of_model(drawing: Drawing) -> Iterator[tuple[str, str]]:
    model = drawing.model
    if not model.files and drawing.operation is not Operation.UPSCALE:
        yield "model", f"{drawing.operation.value} needs one; this one has no files"
    if len(model.files) > MAX_FILES:
        yield "model", f"has {len(model.files):,} files; the limit is {MAX_FILES:,}"
    else:
        yield from _of_files(model)


def _of_files(model: DrawnModel) -> Iterator[tuple[str, str]]:
    for path, sha256 in model.files.items():
        if not _is_inside(path):
            yield "model.files", f"'{path[:_SHOWN]}' is no path within the model's folder"
        elif not SHA256.fullmatch(sha256):
            yield "model.files", f"'{sha256[:_SHOWN]}' of '{path[:_SHOWN]}' is no SHA-256"


def _is_inside(path: str) -> bool:
    """Whether a path is relative, leads nowhere up, and is one that a file can have."""
    plain = len(path) <= MAX_PATH_CHARACTERS and "\0" not in path and "\\" not in path
    return plain and all(part not in ("", ".", "..") for part in path.split("/"))


def _of_steps(drawing: Drawing) -> Mapping[str, str]:
    """What the scheduler does not take; a picture that is made larger needs none."""
    if drawing.operation is Operation.UPSCALE:
        return {}
    goes_on = drawing.operation in (Operation.IMG2IMG, Operation.INPAINT)
    try:
        unet_calls(drawing.scheduler, drawing.steps, drawing.strength if goes_on else 1.0)
    except InvalidRequest as refusal:
        return refusal.fields
    return {}
