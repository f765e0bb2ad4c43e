"""The nodes that our graphs use, as ComfyUI 0.3.75 describes them (tests/flows/generation/comfyui/test_installation.py
compares them with a real one), in both forms that lists of values come in."""

from __future__ import annotations

from typing import Any

from storage.records.generation.comfyui.comfy_capabilities import ComfyCapabilities, read_nodes

SAMPLERS = ["euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "ddim", "uni_pc"]
SCHEDULERS = ["simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal"]
SAMPLING = ("steps", "cfg", "positive", "negative", "latent_image")
INPUTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "CheckpointLoaderSimple": (("ckpt_name",), ("MODEL", "CLIP", "VAE")),
    "LoraLoader": (("model", "clip", "lora_name", "strength_model", "strength_clip"), ("MODEL", "CLIP")),
    "CLIPSetLastLayer": (("clip", "stop_at_clip_layer"), ("CLIP",)),
    "RescaleCFG": (("model", "multiplier"), ("MODEL",)),
    "CLIPTextEncode": (("text", "clip"), ("CONDITIONING",)),
    "EmptyLatentImage": (("width", "height", "batch_size"), ("LATENT",)),
    "LoadImage": (("image",), ("IMAGE", "MASK")),
    "LoadImageMask": (("image", "channel"), ("MASK",)),
    "ImageScale": (("image", "upscale_method", "width", "height", "crop"), ("IMAGE",)),
    "VAEEncode": (("pixels", "vae"), ("LATENT",)),
    "SetLatentNoiseMask": (("samples", "mask"), ("LATENT",)),
    "KSampler": (("model", "seed", "sampler_name", "scheduler", "denoise", *SAMPLING), ("LATENT",)),
    "KSamplerAdvanced": (
        (
            *("model", "add_noise", "noise_seed", "sampler_name", "scheduler", *SAMPLING),
            *("start_at_step", "end_at_step", "return_with_leftover_noise"),
        ),
        ("LATENT",),
    ),
    "VAEDecode": (("samples", "vae"), ("IMAGE",)),
    "ImageCompositeMasked": (("destination", "source", "x", "y", "resize_source"), ("IMAGE",)),
    "PreviewImage": (("images",), ()),
}
OPTIONAL = {"ImageCompositeMasked": ("mask",)}
CHOICES: dict[str, list[str]] = {
    "ckpt_name": [],
    "lora_name": [],
    "sampler_name": SAMPLERS,
    "scheduler": SCHEDULERS,
    "channel": ["alpha", "red", "green", "blue"],
    "crop": ["disabled", "center"],
    "add_noise": ["enable", "disable"],
    "return_with_leftover_noise": ["disable", "enable"],
}
METHODS = {"ImageScale": ["bilinear", "lanczos"]}


def object_info() -> dict[str, Any]:
    """The JSON of `/api/object_info`."""
    return {node: described(node) for node in INPUTS}


def described(node: str) -> dict[str, Any]:
    """One node of it."""
    required, outputs = INPUTS[node]
    groups: dict[str, Any] = {"required": {name: [kind(node, name)] for name in required}}
    if node in OPTIONAL:
        groups["optional"] = {name: ["ANY", {}] for name in OPTIONAL[node]}
    if node == "KSamplerAdvanced":
        # The form of newer nodes.
        groups["required"]["sampler_name"] = ["COMBO", {"multiselect": False, "options": SAMPLERS}]
    return {"input": groups, "output": list(outputs), "name": node}


def kind(node: str, name: str) -> Any:
    """The type of an input: a list of values, or a word."""
    if name == "upscale_method":
        return METHODS[node]
    if name == "image" and node.startswith("Load"):
        return ["example.png"]
    return CHOICES.get(name, "ANY")


def installed(*checkpoints: str, loras: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> ComfyCapabilities:
    """An installation with these files, and without some of the nodes."""
    nodes = read_nodes({name: facts for name, facts in object_info().items() if name not in without})
    return ComfyCapabilities(version="0.3.75", nodes=nodes, checkpoints=checkpoints, loras=loras)
