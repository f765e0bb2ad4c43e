"""The request that draws one picture of a step again, and its graph for ComfyUI: what is written into the picture."""

from __future__ import annotations

import re
from typing import Any

from storage.errors import InvalidRequest
from storage.records.generation.comfyui.comfy_graphs import Graph, GraphParts, graph_of
from storage.records.generation.comfyui.comfy_models import InstalledModel, adapter_name, checkpoint_name, loader_of
from storage.records.generation.drawings import Drawing, DrawnImage, Operation, PictureFormat
from storage.records.generation.scheduler_names import comfy_names, find_scheduler
from storage.records.generation.wildcards import without_choices

_MARKS = re.compile(r"[{}|]|_(?=_)|(?<=_)_")


def request_of_picture(drawing: Drawing, number: int, *, shape: int, backend: str) -> dict[str, Any]:
    """The fields of a request for picture `number` alone, by their names in the API, without those at their defaults.

    shape: the batch shape that it was drawn in, so that it draws the same pixels; of 1 the request is exact.
    """
    image = drawing.images[number]
    plain: dict[str, Any] = {"operation": drawing.operation.value, "backend": backend}
    if drawing.operation is not Operation.UPSCALE:
        alone = drawing.exact or shape == 1
        plain |= _drawn(drawing, image) | {"exact": alone, "shape": 0 if alone else shape}
    sizes = {"width": drawing.width, "height": drawing.height}
    plain |= {**sizes, "image": drawing.source, "mask": drawing.mask, "format": drawing.format.value}
    left_out = {"operation": Operation.TXT2IMG.value, "format": PictureFormat.PNG.value, "guidanceRescale": 0.0}
    return {name: value for name, value in plain.items() if value not in ("", 0, False, left_out.get(name), [])} | {
        name: plain[name] for name in ("seed", "guidanceScale", "strength") if name in plain
    }


def _drawn(drawing: Drawing, image: DrawnImage) -> dict[str, Any]:
    model, adapters = drawing.model.version_id, list(drawing.adapters)
    if not model and adapters:
        # The version is an adapter, and the model its base, which is none.
        model = adapters.pop(0).version_id
    scheduler = drawing.scheduler
    fields: dict[str, Any] = {
        "model": model,
        "adapters": [{"model": one.version_id, "strength": one.strength} for one in adapters],
        "prompt": literal(image.prompt, image.seed),
        "negativePrompt": literal(drawing.negative_prompt, image.seed),
        "scheduler": scheduler.name,
        "spacing": scheduler.spacing,
        "steps": drawing.steps,
        "guidanceScale": drawing.guidance_scale,
        "guidanceRescale": drawing.guidance_rescale,
        "seed": image.seed,
        "clipSkip": drawing.clip_skip,
    }
    if scheduler.eta != find_scheduler(scheduler.name, scheduler.spacing).eta:
        fields["eta"] = scheduler.eta
    if drawing.operation in (Operation.IMG2IMG, Operation.INPAINT):
        fields["strength"] = drawing.strength
    return fields


def literal(prompt: str, seed: int) -> str:
    """A prompt whose choices are made, such that none is read into it again. The grammar has no form for a backslash
    before a brace."""
    try:
        if without_choices(prompt, seed) == prompt:
            return prompt
    except InvalidRequest:
        pass
    return _MARKS.sub(lambda mark: "\\" + mark[0], prompt)


def graph_of_picture(drawing: Drawing, number: int, source_size: tuple[int, int]) -> Graph | None:
    """The picture as a graph for an installation that has the model by the name that our rule gives it; None where
    ComfyUI has nothing that draws so. source_size: width and height in pixels, of what it goes on from."""
    sampler = comfy_names(drawing.scheduler)
    if sampler is None:
        return None
    parts = GraphParts(
        loader=loader_of(InstalledModel(name=checkpoint_name(drawing.model.files))),
        sampler=sampler,
        adapters=tuple(adapter_name(adapter.sha256) for adapter in drawing.adapters),
        source=f"{drawing.source}.png" if drawing.source else "",
        source_size=source_size,
        mask=f"{drawing.mask}.png" if drawing.mask else "",
    )
    return graph_of(drawing, number, parts)
