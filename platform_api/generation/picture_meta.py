"""How a picture of a generation was drawn: which step and versions drew it, and that in the names of Civitai's clients.

Names: civitai/civitai, src/server/schema/image.schema.ts (`baseImageMetaSchema`, `imageMetaSchema`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from storage.errors import InvalidRequest, WrongState
from storage.records.generation.drawings import Drawing, DrawnImage, DrawnModel, Operation
from storage.records.generation.parameter_values import alias
from storage.records.generation.resolved_workflows import ResolvedWorkflow, is_workflow, read_workflow
from storage.records.generation.scheduler_names import display_name
from storage.records.jobs.generation import GenerationRecipe
from storage.records.jobs.jobs import Job, JobFile

MAX_META_BYTES = 16 * 1024
"""As of the `meta` that is sent with an image."""


class DrawnPictureFacts(NamedTuple):
    """The drawing that a picture came from, what was drawn, and the picture's own width and height in pixels."""

    drawing: Drawing
    image: DrawnImage
    width: int
    height: int


def picture_facts(job: Job, file: JobFile, width: int, height: int) -> DrawnPictureFacts:
    """How a picture among a generation's files was drawn; of an enlarged one, how that was which it was made from.

    Raises WrongState for one that no model drew, and for one of a release that this one does not know.
    """
    if not is_workflow(job.request):
        return DrawnPictureFacts(*_of_earlier_release(job, file, width, height), width, height)
    try:
        workflow = read_workflow(job.request)
    except InvalidRequest as error:
        raise WrongState(f"Picture '{file.name}' was drawn by a later release: {error}") from error
    return DrawnPictureFacts(*_drawn(workflow, file), width, height)


def versions_of(drawing: Drawing) -> tuple[int, ...]:
    """The versions of the catalogue that drew it: the model, then its adapters. An adapter's base may be none."""
    numbers = (drawing.model.version_id, *(adapter.version_id for adapter in drawing.adapters))
    return tuple(dict.fromkeys(number for number in numbers if number))


def gallery_meta(facts: DrawnPictureFacts, model_name: str, hashes: Mapping[int, str]) -> dict[str, object]:
    """The `meta` of a picture in a gallery. hashes: of weights files by version, AutoV2 or AutoV3.

    Raises InvalidRequest for one that is longer than a gallery takes.
    """
    drawing, image = facts.drawing, facts.image
    meta: dict[str, object] = {
        "prompt": image.prompt,
        "negativePrompt": drawing.negative_prompt,
        "steps": drawing.steps,
        "sampler": display_name(drawing.scheduler),
        "cfgScale": drawing.guidance_scale,
        "seed": image.seed,
        "Size": f"{facts.width}x{facts.height}",
        "Model": model_name,
    }
    if drawing.model.version_id in hashes:
        meta["Model hash"] = hashes[drawing.model.version_id]
    if drawing.clip_skip:
        meta["clipSkip"] = drawing.clip_skip
    if drawing.operation in (Operation.IMG2IMG, Operation.INPAINT):
        meta["denoise"] = drawing.strength
    meta |= _resources(drawing, model_name, hashes)
    if len(msgspec.json.encode(meta)) > MAX_META_BYTES:
        raise InvalidRequest(
            {
                "prompt": f"with all else that is said of the picture it has more than {MAX_META_BYTES:,} bytes. "
                "Upload the picture with a `meta` of your own: POST /api/v1/model-versions/ID/images"
            }
        )
    return meta


def _resources(drawing: Drawing, model_name: str, hashes: Mapping[int, str]) -> dict[str, object]:
    """Model and adapters, as tools with hashes name them and as Civitai does."""
    model = drawing.model
    named: list[dict[str, object]] = [{"type": "model", "name": model_name}]
    listed: list[dict[str, object]] = []
    found: dict[str, str] = {}
    if model.version_id in hashes:
        named[0]["hash"] = found["model"] = hashes[model.version_id]
    if model.version_id:
        listed.append({"type": "checkpoint", "modelVersionId": model.version_id})
    if model.air:
        listed[-1:] = [{**listed[-1], "air": model.air}] if listed else [{"type": "checkpoint", "air": model.air}]
    for adapter in drawing.adapters:
        name = adapter.name or str(adapter.version_id)
        one: dict[str, object] = {"type": "lora", "name": name, "weight": adapter.strength}
        if adapter.version_id in hashes:
            one["hash"] = found[f"lora:{alias(name)}"] = hashes[adapter.version_id]
        named.append(one)
        entry: dict[str, object] = {
            "type": "lora",
            "weight": adapter.strength,
            "modelVersionId": adapter.version_id,
        }
        listed.append({**entry, "air": adapter.air} if adapter.air else entry)
    said: dict[str, object] = {"resources": named, "civitaiResources": listed}
    return said | ({"hashes": found} if found else {})


def _drawn(workflow: ResolvedWorkflow, file: JobFile) -> tuple[Drawing, DrawnImage]:
    steps = {step.name: step for step in workflow.steps}
    name, number = file.details.get("step"), file.details.get("number")
    step = steps.get(name) if isinstance(name, str) else None
    while step is not None and step.drawing.operation is Operation.UPSCALE:
        if step.image is None:
            raise WrongState(f"Picture '{file.name}' was made from one that was sent: no model drew it.")
        step, number = steps.get(step.image.step), step.image.image
    if step is None or not isinstance(number, int) or number not in range(step.pictures):
        raise WrongState(f"Picture '{file.name}' does not say which step drew it.")
    image = step.drawing.images[number]
    return step.drawing, image


def _of_earlier_release(job: Job, file: JobFile, width: int, height: int) -> tuple[Drawing, DrawnImage]:
    """Those of before there were workflows were drawn by DDIM from one prompt."""
    recipe = msgspec.convert(job.request, GenerationRecipe)
    seed = file.details.get("seed")
    image = DrawnImage(prompt=recipe.prompt, seed=seed if isinstance(seed, int) else recipe.seed)
    drawing = Drawing(
        model=DrawnModel(version_id=recipe.model_version_id, family="", files={}),
        images=(image,),
        negative_prompt=recipe.negative_prompt,
        steps=recipe.sampler.steps,
        guidance_scale=recipe.sampler.guidance_scale,
        width=width,
        height=height,
    )
    return drawing, image
