"""What an installation lacks for a drawing is named, all of it at once."""

from __future__ import annotations

from typing import Any

import msgspec

from storage.records.generation.comfyui.comfy_capabilities import NodeFacts
from storage.records.generation.comfyui.comfy_models import ComfyNames, InstalledModel, adapter_name, checkpoint_name
from storage.records.generation.comfyui.comfy_requirements import missing_for
from storage.records.generation.drawings import Drawing, DrawnAdapter, DrawnImage, DrawnModel, Operation
from tests.storage.records.generation.object_info import installed

FILES = {"unet/diffusion_pytorch_model.safetensors": "a" * 64}
CHECKPOINT, LORA = checkpoint_name(FILES), adapter_name("c" * 64)
PLAIN = Drawing(
    model=DrawnModel(version_id=4, family="sd1", files=FILES, name="Mugs"),
    images=(DrawnImage(prompt="a mug", seed=5),),
    width=64,
    height=64,
)


def drawing(**changes: Any) -> Drawing:
    return msgspec.structs.replace(PLAIN, **changes)


def test_nothing_is_missing_where_everything_is_installed() -> None:
    adapters = (DrawnAdapter(version_id=2, sha256="c" * 64),)
    there = installed(CHECKPOINT, loras=(LORA,))

    for operation in Operation:
        assert (
            missing_for(drawing(operation=operation, adapters=adapters, clip_skip=2, guidance_rescale=0.5), there) == []
        )


def test_a_model_and_an_adapter_that_are_not_there_are_both_named() -> None:
    adapters = (DrawnAdapter(version_id=2, sha256="c" * 64, name="red"),)

    assert missing_for(drawing(adapters=adapters), installed("other.safetensors")) == [
        f"model: no file {CHECKPOINT} in its models/checkpoints for version 4 (Mugs)",
        f"adapters: no file {LORA} in its models/loras for version 2 (red)",
    ]


def test_a_node_is_missing_only_for_what_needs_it() -> None:
    there = installed(CHECKPOINT, without=("RescaleCFG", "ImageScale", "SetLatentNoiseMask"))

    assert missing_for(drawing(), there) == []
    assert missing_for(drawing(guidance_rescale=0.7), there) == ["guidanceRescale: no node RescaleCFG"]
    assert missing_for(drawing(operation=Operation.UPSCALE), there) == ["source: no node ImageScale"]
    assert missing_for(drawing(operation=Operation.INPAINT), there) == [
        "source: no node ImageScale",
        "mask: no node SetLatentNoiseMask",
    ]


def test_an_upscale_needs_no_model() -> None:
    assert missing_for(drawing(operation=Operation.UPSCALE), installed()) == []


def test_a_sampler_that_is_not_there_is_named_with_the_nearest() -> None:
    there = installed(CHECKPOINT)

    assert missing_for(drawing(), there, sampler=("dpmpp_2m_sde_gpu", "karras")) == [
        "scheduler: no sampler_name 'dpmpp_2m_sde_gpu'; the nearest are: dpmpp_2m_sde, dpmpp_2m"
    ]
    assert missing_for(drawing(), there, sampler=("ddim", "zzz")) == ["scheduler: no scheduler 'zzz'"]


def test_a_feature_beyond_the_drawing_is_named() -> None:
    there = installed(CHECKPOINT)

    assert missing_for(drawing(), there, features=("model upscaling", "Canny", "face repair")) == [
        "operation: no model upscaling: it lacks the nodes UpscaleModelLoader, ImageUpscaleWithModel",
        "operation: no Canny: it lacks the nodes Canny",
        "operation: 'face repair' is nothing that ComfyUI is asked for",
    ]
    assert missing_for(drawing(), there, features=("inpaint",)) == []


def test_a_node_of_another_version_is_named_with_what_differs() -> None:
    there = installed(CHECKPOINT)
    nodes = {**there.nodes, "VAEDecode": NodeFacts(inputs=frozenset({"samples", "tile"}), required=frozenset({"tile"}))}

    assert missing_for(drawing(), msgspec.structs.replace(there, nodes=nodes)) == [
        "backend: its node VAEDecode is of another version: tile, vae"
    ]


def test_a_loader_with_texts_of_its_own_takes_no_adapter_and_no_clip_skip() -> None:
    own = {"Own": NodeFacts(outputs=("MODEL", "CLIP", "VAE")), "OwnText": NodeFacts(inputs=frozenset({"text", "clip"}))}
    there = installed(loras=(LORA,))
    there = msgspec.structs.replace(there, nodes={**there.nodes, **own})
    names = ComfyNames(models={4: InstalledModel(name="node:Own")})
    adapters = (DrawnAdapter(version_id=2, sha256="c" * 64),)

    assert missing_for(drawing(), there, names) == []
    assert missing_for(drawing(adapters=adapters, clip_skip=2), there, names) == [
        "adapters: the loader Own takes none",
        "clipSkip: the loader Own takes none",
    ]
    assert missing_for(drawing(), installed(), names) == ["model: no node Own that loads version 4 (Mugs)"]
