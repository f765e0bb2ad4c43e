"""One picture of a drawing as a graph of ComfyUI, in the form that its API takes.

A node is called by its part in the drawing (`sampler`, `adapter-0`), so an error of a node names the field that caused
it. Noise is drawn from one seed a graph: ComfyUI's noise of a batch's second picture is not that of the next seed.

What a picture shows other than one of the local engine is listed in DIFFERENCES, for people to read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from storage.records.generation.comfyui.comfy_capabilities import SAVED_BY
from storage.records.generation.comfyui.comfy_models import PIXELS_PER_LATENT, ComfyLoader
from storage.records.generation.drawings import Drawing, Operation

DIFFERENCES = (
    "Weights in prompts: ComfyUI moves a weighted word away from, or toward, what an empty prompt is encoded as; "
    "A1111 multiplies its encoding and restores the mean. [words in brackets] are not weakened.",
    "`embedding:NAME` in a prompt is an embedding of that installation, if it has one of the name.",
    "The first noise is scaled to the first noise level, where diffusers starts from unit noise: a DDIM picture of the "
    "starter differs by about 10 of 255 levels at 25 steps and a guidance of 3, by up to 34 at 4 steps or unguided.",
    "Schedulers that add noise in each step add ComfyUI's: an ancestral or SDE picture is another one.",
    "Guidance rescale works on the velocity that follows from the predicted noise, not on the noise itself.",
    "Precision is the installation's own: half precision on most GPUs, whatever the model was trained in.",
    "Stable Diffusion XL: an empty negative prompt is encoded as an empty text, not replaced by zeros.",
    "Equal drawings make equal pictures on one installation alone: its version, device and start options matter.",
)
"""How pictures of this backend differ from the local engine's, beyond rounding."""
SAMPLER, SAVED = "sampler", "save"
"""The nodes that progress and pictures come from."""
LAST_STEP = 10_000
"""ComfyUI's greatest number of steps; as an end it means the end of the schedule."""

Graph = dict[str, dict[str, Any]]
Link = list[Any]
"""An output of another node: its name and the number of the output."""

_FIELD_OF_NODE: Mapping[str, str] = {
    "loader": "model",
    "adapter": "adapters",
    "clip": "clipSkip",
    "rescale": "guidanceRescale",
    "positive": "prompt",
    "negative": "negativePrompt",
    "source": "source",
    "scaled": "source",
    "encoded": "operation",
    "mask": "mask",
    "masked": "mask",
    "kept": "mask",
    SAMPLER: "scheduler",
}
_FIELD_OF_INPUT: Mapping[tuple[str, str], str] = {
    (SAMPLER, "steps"): "steps",
    (SAMPLER, "start_at_step"): "strength",
    (SAMPLER, "cfg"): "guidanceScale",
    (SAMPLER, "seed"): "seed",
    (SAMPLER, "noise_seed"): "seed",
    ("empty", "width"): "width",
    ("empty", "height"): "height",
    ("scaled", "width"): "width",
    ("scaled", "height"): "height",
}


class GraphParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a graph is made of at one installation, beside the drawing.

    `sampler` is ComfyUI's pair of names, sampler_name and scheduler. `adapters` are file names in the drawing's order.
    `source` and `mask` are pictures as they were uploaded, the mask in the drawing's size; `source_size` is width and
    height in pixels.
    """

    loader: ComfyLoader
    sampler: tuple[str, str]
    adapters: tuple[str, ...] = ()
    source: str = ""
    source_size: tuple[int, int] = (0, 0)
    mask: str = ""


def steps_drawn(drawing: Drawing) -> int:
    """How many of the schedule's steps are taken: all from nothing, the last `strength` of them from a source, none to
    make a picture larger."""
    if drawing.operation is Operation.UPSCALE:
        return 0
    if drawing.operation is Operation.TXT2IMG:
        return drawing.steps
    return max(1, min(int(drawing.steps * drawing.strength), drawing.steps))


def field_of(node: str, name: str = "") -> str:
    """The field of a request that a node, or one of its inputs, stands for."""
    part = re.sub(r"-\d+$", "", node)
    return _FIELD_OF_INPUT.get((part, name)) or _FIELD_OF_NODE.get(part, "backend")


def graph_of(drawing: Drawing, index: int, parts: GraphParts) -> Graph:
    """The graph of picture `index`. Its one output node is SAVED, which keeps the picture until ComfyUI restarts."""
    graph: Graph = {}
    if drawing.operation is Operation.UPSCALE:
        # Made larger without a model, as by the local engine; hires fix draws over it in a step of its own.
        _add(graph, SAVED, SAVED_BY, images=_pixels(graph, drawing, parts))
        return graph
    model, clip, vae = _loaded(graph, drawing, parts)
    texts = {"positive": drawing.images[index].prompt, "negative": drawing.negative_prompt}
    for name, text in texts.items():
        _add(graph, name, parts.loader.text_node, text=text, clip=clip)
    pixels: Link = []
    if drawing.operation is Operation.TXT2IMG:
        latents = _empty(graph, drawing, parts)
    else:
        pixels = _pixels(graph, drawing, parts)
        latents = _encoded(graph, drawing, parts, pixels, vae)
    sampled = _sampled(graph, drawing, index, parts, model, latents)
    picture = _add(graph, "decoded", "VAEDecode", samples=sampled, vae=vae)
    if drawing.operation is Operation.INPAINT:
        # Else what the mask keeps would have gone through the VAE, which changes it a little everywhere.
        picture = _add(
            graph,
            *("kept", "ImageCompositeMasked"),
            destination=pixels,
            source=picture,
            mask=["mask", 0],
            x=0,
            y=0,
            resize_source=False,
        )
    # Not SaveImage: people's prompts would stay in its output folder for ever. This one writes to `temp`.
    _add(graph, SAVED, SAVED_BY, images=picture)
    return graph


def _add(graph: Graph, name: str, node: str, **inputs: object) -> Link:
    """Add a node; returns the link to its first output."""
    graph[name] = {"class_type": node, "inputs": inputs}
    return [name, 0]


def _loaded(graph: Graph, drawing: Drawing, parts: GraphParts) -> tuple[Link, Link, Link]:
    """The nodes that load the model and change it; links to what is drawn with: model, text encoder, VAE."""
    loader = parts.loader
    _add(graph, "loader", loader.node, **loader.inputs)
    model, clip, vae = (["loader", output] for output in (loader.model, loader.clip, loader.vae))
    for number, (adapter, file) in enumerate(zip(drawing.adapters, parts.adapters, strict=True)):
        strengths = {"strength_model": adapter.strength, "strength_clip": adapter.strength}
        name = f"adapter-{number}"
        _add(graph, name, "LoraLoader", model=model, clip=clip, lora_name=file, **strengths)
        model, clip = [name, 0], [name, 1]
    if drawing.clip_skip:
        clip = _add(graph, "clip", "CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-drawing.clip_skip)
    if drawing.guidance_rescale and drawing.guidance_scale > 1:
        model = _add(graph, "rescale", "RescaleCFG", model=model, multiplier=drawing.guidance_rescale)
    return model, clip, vae


def _empty(graph: Graph, drawing: Drawing, parts: GraphParts) -> Link:
    """Latents of the drawing's size, in the pixels that ComfyUI counts a latent as."""
    factor = PIXELS_PER_LATENT / parts.loader.pixels_per_latent
    size = {"width": round(drawing.width * factor), "height": round(drawing.height * factor)}
    return _add(graph, "empty", "EmptyLatentImage", **size, batch_size=1)


def _pixels(graph: Graph, drawing: Drawing, parts: GraphParts) -> Link:
    """The source in the drawing's size."""
    pixels = _add(graph, "source", "LoadImage", image=parts.source)
    if parts.source_size == (drawing.width, drawing.height):
        return pixels
    size = {"width": drawing.width, "height": drawing.height}
    return _add(graph, "scaled", "ImageScale", image=pixels, upscale_method="lanczos", crop="disabled", **size)


def _encoded(graph: Graph, drawing: Drawing, parts: GraphParts, pixels: Link, vae: Link) -> Link:
    """The source as latents to draw over."""
    latents = _add(graph, "encoded", "VAEEncode", pixels=pixels, vae=vae)
    if drawing.operation is Operation.INPAINT:
        mask = _add(graph, "mask", "LoadImageMask", image=parts.mask, channel="red")
        latents = _add(graph, "masked", "SetLatentNoiseMask", samples=latents, mask=mask)
    return latents


def _sampled(graph: Graph, drawing: Drawing, index: int, parts: GraphParts, model: Link, latents: Link) -> Link:
    sampler_name, scheduler = parts.sampler
    shared: dict[str, Any] = {
        "model": model,
        "steps": drawing.steps,
        # At most 1 asks for no guidance, as the local engine reads it.
        "cfg": drawing.guidance_scale if drawing.guidance_scale > 1 else 1.0,
        "sampler_name": sampler_name,
        "scheduler": scheduler,
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "latent_image": latents,
    }
    seed = drawing.images[index].seed
    if drawing.operation is Operation.TXT2IMG:
        return _add(graph, SAMPLER, "KSampler", seed=seed, denoise=1.0, **shared)
    # KSampler's denoise would take all the steps, of a longer schedule; this one takes the schedule's last.
    return _add(
        graph,
        *(SAMPLER, "KSamplerAdvanced"),
        add_noise="enable",
        noise_seed=seed,
        start_at_step=drawing.steps - steps_drawn(drawing),
        end_at_step=LAST_STEP,
        return_with_leftover_noise="disable",
        **shared,
    )
