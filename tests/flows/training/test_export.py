from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors.torch import load_file, save_file

from flows.diffusion.families.protocol import Components
from flows.diffusion.sampler import denoise, first_latents
from flows.training.export import SINGLE_FILE, Export, export_model, tensors_like
from flows.training.tensor_files import payload_sha256
from storage.blobs.weights import check_weights
from storage.errors import WeightsRefused
from storage.records.jobs.sampled_sets import SamplerSettings
from tests.flows.diffusion.reference import drawn_by
from tests.flows.training.tiny import FAMILY, recipe

CHANGED = frozenset({"unet", "text_encoder"})

RECIPE_HASH = "5" * 64


def nudged(components: Components) -> Components:
    """Components as a training would leave them: UNet and text encoder moved a little, the VAE as it was."""
    generator = torch.Generator().manual_seed(0)
    for name in sorted(CHANGED):
        for parameter in components.modules[name].parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.01)
    return components


@pytest.fixture
def exported(components: Components, tmp_path: Path) -> Export:
    """An export of nudged components."""
    return export_model(FAMILY, nudged(components), CHANGED, recipe(), RECIPE_HASH, tmp_path / "export")


def header_of(file: Path) -> dict[str, dict[str, str]]:
    with file.open("rb") as stream:
        return json.loads(stream.read(int.from_bytes(stream.read(8), "little")))


def test_an_exported_folder_draws_what_the_components_draw_in_half_precision(components: Components, exported: Export):
    for module in components.modules.values():
        for parameter in module.parameters():
            parameter.copy_(parameter.half().float())
    latents = first_latents(components, [1])
    with torch.no_grad():
        ours = denoise(FAMILY, components, ["a photo of a mug"], latents, SamplerSettings(steps=3, guidance_scale=3.0))
    pipeline = DiffusionPipeline.from_pretrained(exported.folder)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    theirs = drawn_by(
        pipeline, "a photo of a mug", latents=latents, num_inference_steps=3, guidance_scale=3.0, output_type="latent"
    )
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_what_training_did_not_touch_is_the_base_files_byte_for_byte(exported: Export, tiny_model: Path):
    same = [
        name for name in exported.members() if (tiny_model / name).read_bytes() == (exported.folder / name).read_bytes()
    ]
    assert set(exported.members()) - set(same) == {FAMILY.layout.weight_files[name] for name in CHANGED}
    assert "vae/diffusion_pytorch_model.safetensors" in same
    assert "tokenizer/vocab.json" in same
    assert not any(name.startswith("judge/") for name in exported.members())


def test_written_files_keep_the_base_files_names_and_dtypes(exported: Export, tiny_model: Path):
    for name in CHANGED:
        file = FAMILY.layout.weight_files[name]
        ours, base = check_weights(exported.folder / file).tensors, check_weights(tiny_model / file).tensors
        assert {key: (one.dtype, one.shape) for key, one in ours.items()} == {
            key: (one.dtype, one.shape) for key, one in base.items()
        }


def test_equal_weights_are_exported_as_equal_bytes(components: Components, exported: Export, tmp_path: Path):
    again = export_model(FAMILY, components, CHANGED, recipe(), RECIPE_HASH, tmp_path / "again")
    assert again.hashes == exported.hashes
    for name in again.members():
        assert (again.folder / name).read_bytes() == (exported.folder / name).read_bytes(), name


def test_the_single_file_holds_every_component_and_says_what_it_is(exported: Export, components: Components):
    tensors = load_file(exported.single_file)
    assert {name.split(".")[0] for name in tensors} == {"unet", "text_encoder", "vae"}
    assert isinstance(components.unet, UNet2DConditionModel)
    unet = UNet2DConditionModel.from_config(components.unet.config)
    assert isinstance(unet, UNet2DConditionModel)
    unet.load_state_dict({name.removeprefix("unet."): one for name, one in tensors.items() if name.startswith("unet.")})
    header = header_of(exported.single_file)
    metadata = header["__metadata__"]
    assert list(header) == sorted(header)
    assert list(metadata) == sorted(metadata)
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1"
    assert metadata["modelspec.trigger_phrase"] == "sks mug"
    assert metadata["darkroom.recipe"] == RECIPE_HASH
    assert metadata["sshs_model_hash"] == payload_sha256(exported.single_file)
    assert not any(word in key for key in metadata for word in ("date", "job", "host", "time"))


def test_the_exported_file_comes_with_every_hash_that_other_tools_know_it_by(exported: Export):
    body = exported.single_file.read_bytes()
    data = body[8 + int.from_bytes(body[:8], "little") :]

    assert exported.hashes.auto_v1 == hashlib.sha256(body[0x100000:0x110000]).hexdigest()[:8].upper()
    assert exported.hashes.auto_v3 == hashlib.sha256(data).hexdigest()[:12].upper()
    assert exported.hashes.crc32 == f"{zlib.crc32(body):08X}"
    assert exported.hashes.blake3 == blake3(body).hexdigest().upper()


@pytest.mark.parametrize("prefixed", [True, False])
def test_a_text_encoder_file_is_written_with_the_names_it_had(
    prefixed: bool, components: Components, tiny_model: Path, tmp_path: Path
):
    file = tmp_path / "model.safetensors"
    state = load_file(tiny_model / FAMILY.layout.weight_files["text_encoder"])
    plain = {name.removeprefix("text_model."): one for name, one in state.items()}
    wanted = {f"text_model.{name}" if prefixed else name: one for name, one in plain.items()}
    save_file(wanted, file)
    written = tensors_like(file, components.text_encoder)
    assert written.keys() == wanted.keys()
    assert all(torch.equal(written[name], wanted[name]) for name in wanted)


def test_a_model_that_does_not_fit_the_base_file_is_refused(components: Components, tiny_model: Path, tmp_path: Path):
    file = tmp_path / "unet.safetensors"
    state = load_file(tiny_model / FAMILY.layout.weight_files["unet"])
    lost = state.pop("conv_in.weight")
    save_file(state, file)
    with pytest.raises(WeightsRefused, match=r"no place for: \['conv_in\.weight'\]"):
        tensors_like(file, components.unet)
    save_file({**state, "conv_in.weight": lost, "extra": lost.clone()}, file)
    with pytest.raises(WeightsRefused, match="'extra' that the loaded model has not"):
        tensors_like(file, components.unet)


def test_an_export_that_was_cut_off_is_made_again_whole(components: Components, exported: Export, tmp_path: Path):
    target = tmp_path / "cut"
    shutil.copytree(exported.folder / "unet", target / "folder" / "unet")
    (target / "folder" / "stray.bin").write_bytes(b"x")
    again = export_model(FAMILY, components, CHANGED, recipe(), RECIPE_HASH, target)
    assert again.members() == exported.members()
    assert (target / SINGLE_FILE).read_bytes() == exported.single_file.read_bytes()
