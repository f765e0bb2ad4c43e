"""How a model of ours gets into a ComfyUI: by the name of a file that was copied there, or by a loader node of its own.

The name follows from the bytes, so that a new version is never drawn with an older file: our single file of a version
is copied to `models/checkpoints/darkroom-HASH.safetensors`, an adapter in kohya's keys (ComfyUI reads diffusers' keys
only in part) to `models/loras/darkroom-HASH.safetensors`. A setting may map a version to another name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from storage.records.generation.comfyui.comfy_capabilities import CLIP, MODEL, VAE, ComfyCapabilities
from storage.records.generation.drawings import DrawnAdapter, DrawnModel

HASH_DIGITS = 16
"""Hexadecimal digits of a SHA-256 in a file's name: 64 bits tell all versions of a catalogue apart."""
NODE = "node:"
"""What a name begins with that is a loader node and no file: `node:Starter`."""
CHECKPOINT_NODE, TEXT_NODE = "CheckpointLoaderSimple", "CLIPTextEncode"
PIXELS_PER_LATENT = 8
"""Pixels of a side for one latent, as ComfyUI counts an empty latent image."""


class InstalledModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as an installation has it: a file in models/checkpoints, or `node:` and a loader node without inputs.

    `pixels_per_latent` is that of its VAE: 8 of Stable Diffusion 1 and XL.
    """

    name: str
    pixels_per_latent: int = PIXELS_PER_LATENT


class ComfyNames(msgspec.Struct, frozen=True, kw_only=True):
    """What versions are called at one installation where the rule does not say it, by their version's number."""

    models: Mapping[int, InstalledModel] = {}
    adapters: Mapping[int, str] = {}

    def model(self, model: DrawnModel) -> InstalledModel:
        """What a model is called there."""
        return self.models.get(model.version_id) or InstalledModel(name=checkpoint_name(model.files))

    def adapter(self, adapter: DrawnAdapter) -> str:
        """The file of an adapter there."""
        return self.adapters.get(adapter.version_id) or adapter_name(adapter.sha256)


class ComfyLoader(msgspec.Struct, frozen=True, kw_only=True):
    """A node that loads a model: the numbers of its outputs, and the node that encodes texts for it.

    Where the texts have a node of their own, what it loads as CLIP is no text encoder of ComfyUI's: then nothing else
    can change it, neither an adapter nor clip skip.
    """

    node: str = CHECKPOINT_NODE
    inputs: dict[str, str]
    model: int = 0
    clip: int = 1
    vae: int = 2
    text_node: str = TEXT_NODE
    pixels_per_latent: int = PIXELS_PER_LATENT

    @property
    def own_texts(self) -> bool:
        """Whether texts are encoded by a node that goes with the loader."""
        return self.text_node != TEXT_NODE


def checkpoint_name(files: Mapping[str, str]) -> str:
    """The name of a version's single file, by the paths and SHA-256 of its diffusers folder."""
    return _named(hashlib.sha256(msgspec.json.encode(dict(files), order="sorted")).hexdigest())


def adapter_name(sha256: str) -> str:
    """The name of an adapter's file in kohya's keys, by the SHA-256 of the one in diffusers' keys."""
    return _named(sha256)


def _named(sha256: str) -> str:
    return f"darkroom-{sha256[:HASH_DIGITS]}.safetensors"


def loader_of(model: InstalledModel) -> ComfyLoader:
    """The loader of a checkpoint file; see `loader_node` for nodes."""
    return ComfyLoader(inputs={"ckpt_name": model.name}, pixels_per_latent=model.pixels_per_latent)


def loader_node(model: InstalledModel, capabilities: ComfyCapabilities) -> ComfyLoader | None:
    """The loader node that a model is called by, its outputs found by their types; None if it is no such node there.

    A node of the same name with `Text` behind it encodes its texts, where there is one.
    """
    name = model.name.removeprefix(NODE)
    facts = capabilities.nodes.get(name)
    if facts is None or facts.required or not {MODEL, CLIP, VAE} <= set(facts.outputs):
        return None
    return ComfyLoader(
        node=name,
        inputs={},
        model=facts.outputs.index(MODEL),
        clip=facts.outputs.index(CLIP),
        vae=facts.outputs.index(VAE),
        text_node=f"{name}Text" if f"{name}Text" in capabilities.nodes else TEXT_NODE,
        pixels_per_latent=model.pixels_per_latent,
    )
