from __future__ import annotations

import hashlib
import shutil
import zlib
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors.torch import load_file, save_file

from flows.diffusion.families.protocol import Components
from flows.diffusion.sampler import denoise, first_latents, guiding
from flows.training.exports.export import Export, export_model, tensors_like
from storage.blobs.weights import check_weights
from storage.errors import WeightsRefused
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.records.jobs.training_basics import ExportDtype
from tests.flows.diffusion.families.shapes import split_weights
from tests.flows.diffusion.reference import drawn_by
from tests.flows.training.tiny import FAMILY, recipe

CHANGED = frozenset({"unet", "text_encoder"})
UNET = FAMILY.layout.weight_files["unet"]

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


def test_an_exported_folder_draws_what_the_components_draw_in_half_precision(components: Components, exported: Export):
    for module in components.modules.values():
        for parameter in module.parameters():
            parameter.copy_(parameter.half().float())
    latents, sampler = first_latents(components, [1]), SamplerSettings(steps=3, guidance_scale=3.0)
    with torch.no_grad():
        conditioning = guiding(FAMILY, components, ["a photo of a mug"], sampler, "")
        ours = denoise(FAMILY, components, conditioning, latents, sampler)
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
    assert "darkroom.json" in same
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


def test_the_single_file_opens_as_the_folder_does_with_equal_tensors(exported: Export):
    one = StableDiffusionPipeline.from_single_file(
        str(exported.single_file), config=str(exported.folder), local_files_only=True
    )
    whole = StableDiffusionPipeline.from_pretrained(exported.folder)
    for name in FAMILY.layout.weight_files:
        ours, theirs = (getattr(pipeline, name).state_dict() for pipeline in (one, whole))
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.parametrize(("name", "stored"), [("fp32", "F32"), ("fp16", "F16"), ("bf16", "BF16")])
def test_every_file_has_the_element_type_that_was_asked_for(
    name: ExportDtype, stored: str, components: Components, tmp_path: Path
):
    wanted = recipe(export_dtype=name)
    made = export_model(FAMILY, nudged(components), CHANGED, wanted, RECIPE_HASH, tmp_path / "export")

    files = [made.single_file, *(made.folder / file for file in FAMILY.layout.weight_files.values())]
    for file in files:
        dtypes = {key: one.dtype for key, one in check_weights(file).tensors.items() if "position_ids" not in key}
        assert set(dtypes.values()) == {stored}
    kept = load_file(made.folder / FAMILY.layout.weight_files["unet"])["conv_in.weight"]
    assert torch.equal(kept, components.unet.get_parameter("conv_in.weight").to(kept.dtype))


def test_numbers_that_fp16_cannot_hold_are_named(components: Components, tmp_path: Path):
    components.unet.get_parameter("conv_in.bias")[0] = 70_000.0

    with pytest.raises(WeightsRefused, match=r"'conv_in\.bias' has numbers too large .*bf16"):
        export_model(FAMILY, components, CHANGED, recipe(export_dtype="fp16"), RECIPE_HASH, tmp_path / "export")


def test_a_base_in_shards_is_exported_as_one_file_where_it_was_trained(tiny_model: Path, tmp_path: Path):
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    for part in ("unet", "vae"):
        split_weights(base / FAMILY.layout.weight_files[part])
    whole = export_model(FAMILY, FAMILY.load(tiny_model), CHANGED, recipe(), RECIPE_HASH, tmp_path / "whole")

    made = export_model(FAMILY, FAMILY.load(base), CHANGED, recipe(), RECIPE_HASH, tmp_path / "shards")

    assert [name for name in made.members() if name.startswith("unet/")] == ["unet/config.json", UNET]
    assert (made.folder / UNET).read_bytes() == (whole.folder / UNET).read_bytes()
    assert sum(name.startswith("vae/") for name in made.members()) == 4  # config, index and both shards
    assert made.hashes == whole.hashes


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
    # A counter that files of transformers 4 hold beside the weights, those of the published bases among them.
    plain["embeddings.position_ids"] = torch.arange(32).unsqueeze(0)
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


def test_nothing_is_exported_into_what_another_export_left(components: Components, exported: Export):
    with pytest.raises(FileExistsError):
        export_model(FAMILY, components, CHANGED, recipe(), RECIPE_HASH, exported.folder.parent)
