"""A model's file at an installation is named by its bytes, or by a setting."""

from __future__ import annotations

import re

import msgspec

from storage.records.generation.comfyui.comfy_capabilities import NodeFacts
from storage.records.generation.comfyui.comfy_models import (
    ComfyNames,
    InstalledModel,
    adapter_name,
    checkpoint_name,
    loader_node,
    loader_of,
)
from storage.records.generation.drawings import DrawnAdapter, DrawnModel
from tests.storage.records.generation.object_info import installed

FILES = {"unet/diffusion_pytorch_model.safetensors": "a" * 64, "vae/diffusion_pytorch_model.safetensors": "b" * 64}
MODEL = DrawnModel(version_id=1, family="sd1", files=FILES)


def test_a_name_follows_from_the_bytes_alone() -> None:
    name = checkpoint_name(FILES)

    assert re.fullmatch(r"darkroom-[0-9a-f]{16}\.safetensors", name)
    assert checkpoint_name(dict(reversed(FILES.items()))) == name
    assert checkpoint_name({**FILES, "vae/diffusion_pytorch_model.safetensors": "c" * 64}) != name
    # What was copied under the rule stays found: the rule does not change.
    assert name == "darkroom-d4db27870ac2f55b.safetensors"
    assert adapter_name("0123456789abcdef" * 4) == "darkroom-0123456789abcdef.safetensors"


def test_a_setting_says_what_a_version_is_called() -> None:
    names = ComfyNames(models={1: InstalledModel(name="mugs.safetensors")}, adapters={7: "mug-lora.safetensors"})

    assert names.model(MODEL).name == "mugs.safetensors"
    assert names.model(msgspec.structs.replace(MODEL, version_id=2)).name == checkpoint_name(FILES)
    assert names.adapter(DrawnAdapter(version_id=7, sha256="c" * 64)) == "mug-lora.safetensors"
    assert names.adapter(DrawnAdapter(version_id=8, sha256="c" * 64)) == adapter_name("c" * 64)


def test_a_checkpoint_is_loaded_by_the_node_for_checkpoints() -> None:
    loader = loader_of(InstalledModel(name="mugs.safetensors"))

    assert (loader.node, loader.inputs) == ("CheckpointLoaderSimple", {"ckpt_name": "mugs.safetensors"})
    assert (loader.model, loader.clip, loader.vae, loader.own_texts) == (0, 1, 2, False)


def test_a_loader_nodes_outputs_are_found_by_their_types() -> None:
    nodes = {"Own": NodeFacts(outputs=("MODEL", "VAE", "CLIP")), "Plain": NodeFacts(outputs=("CLIP", "MODEL", "VAE"))}
    there = msgspec.structs.replace(installed(), nodes={**nodes, "OwnText": NodeFacts(), "Half": NodeFacts()})

    own = loader_node(InstalledModel(name="node:Own", pixels_per_latent=4), there)
    assert own is not None
    assert (own.model, own.clip, own.vae, own.text_node, own.pixels_per_latent) == (0, 2, 1, "OwnText", 4)
    plain = loader_node(InstalledModel(name="node:Plain"), there)
    assert plain is not None
    assert (plain.model, plain.clip, plain.vae, plain.text_node) == (1, 0, 2, "CLIPTextEncode")
    for other in ("node:Half", "node:None"):
        assert loader_node(InstalledModel(name=other), there) is None
    asking = msgspec.structs.replace(
        there, nodes={"Own": NodeFacts(outputs=nodes["Own"].outputs, required=frozenset("a"))}
    )
    assert loader_node(InstalledModel(name="node:Own"), asking) is None
