"""The family `sdxl` beside diffusers' own pipeline on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.protocol import Components, Conditioning, ImageSizes
from flows.diffusion.sampler import denoise, draw_images, first_latents, guiding
from flows.training.exports.single_files import read_schedule, tensors_of, write_single_file
from storage.blobs.families import FAMILIES
from storage.blobs.weights import check_weights
from storage.records.jobs.sampled_sets import SamplerSettings
from tests.flows.diffusion.families.tiny_sdxl import PROJECTED, WIDTHS, write_tiny_sdxl
from tests.flows.training.tiny import recipe

SDXL = family_named("sdxl")
PROMPTS = ["a photo of a mug", "a car in the snow"]
SAMPLER = SamplerSettings(steps=4, guidance_scale=3.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SDXL; tests only read it."""
    made = tmp_path_factory.mktemp("sdxl") / "tiny"
    write_tiny_sdxl(made)
    return made


@pytest.fixture
def parts(folder: Path) -> Components:
    """The same, freshly loaded: a test may train it."""
    torch.set_num_threads(1)
    return SDXL.load(folder)


@pytest.fixture
def pipeline(folder: Path) -> StableDiffusionXLPipeline:
    """What diffusers makes of the folder, drawing with DDIM as we do."""
    loaded = StableDiffusionXLPipeline.from_pretrained(folder)
    loaded.scheduler = DDIMScheduler.from_config(loaded.scheduler.config, clip_sample=False)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def drawn_by(pipeline: StableDiffusionXLPipeline, prompts: list[str], latents: Tensor, **options: Any) -> Tensor:
    made: Any = pipeline(
        prompts,
        latents=latents,
        num_inference_steps=SAMPLER.steps,
        height=64,
        width=64,
        output_type="latent",
        **options,
    )
    return made.images


def encoded_by(pipeline: StableDiffusionXLPipeline, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Hidden states and pooled vectors as diffusers encodes the prompts."""
    encode: Any = pipeline.encode_prompt  # its types leave out that a list may be given
    made = encode(prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    return made[0], made[2]


def gradients_of(module: nn.Module) -> dict[str, Tensor]:
    """Gradients by name; nothing reads the first encoder's last layer, which has none."""
    return {name: one.grad for name, one in module.named_parameters() if one.grad is not None}


def test_a_folder_loads_with_both_encoders_and_its_own_resolution(parts: Components):
    assert list(parts.modules) == ["text_encoder", "text_encoder_2", "unet", "vae"]
    assert (parts.resolution, parts.vae_factor, parts.zero_empty_prompt) == (64, 4, True)
    assert [tokenizer.pad_token for tokenizer in parts.tokenizers] == ["<|endoftext|>", "!"]
    assert not any(parameter.requires_grad for module in parts.modules.values() for parameter in module.parameters())


def test_prompts_are_encoded_bit_for_bit_as_the_diffusers_pipeline_does(
    parts: Components, pipeline: StableDiffusionXLPipeline
):
    states, pooled = encoded_by(pipeline, PROMPTS)

    ours = SDXL.encode_prompts(parts, PROMPTS).tensors

    assert ours["encoder_hidden_states"].shape[-1] == sum(WIDTHS)
    assert ours["text_embeds"].shape == (2, PROJECTED)
    assert torch.equal(ours["encoder_hidden_states"], states)
    assert torch.equal(ours["text_embeds"], pooled)


def test_one_step_has_the_loss_and_the_gradients_of_diffusers_own_modules(
    parts: Components, pipeline: StableDiffusionXLPipeline
):
    latents, noise = (torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    times = torch.tensor([3, 700])
    noisy = parts.noise_schedule.add_noise(latents, noise, times)
    theirs = {"text_encoder": pipeline.text_encoder, "text_encoder_2": pipeline.text_encoder_2, "unet": pipeline.unet}
    for module in [*theirs.values(), *parts.modules.values()]:
        module.requires_grad_(True)
    sizes = [ImageSizes((90, 120), (3, 5), (64, 64)), ImageSizes((64, 64), (0, 0), (64, 64))]
    ids = torch.tensor([[90, 120, 3, 5, 64, 64], [64, 64, 0, 0, 64, 64]], dtype=torch.float32)

    states, pooled = encoded_by(pipeline, PROMPTS)
    added = {"text_embeds": pooled, "time_ids": ids}
    expected = torch.nn.functional.mse_loss(pipeline.unet(noisy, times, states, added_cond_kwargs=added).sample, noise)
    expected.backward()
    conditioning = SDXL.with_sizes(SDXL.encode_prompts(parts, PROMPTS), sizes)
    target = SDXL.noise_target(parts, latents, noise, times)
    loss = torch.nn.functional.mse_loss(SDXL.predict(parts, noisy, times, conditioning), target)
    loss.backward()

    assert torch.equal(loss, expected)
    for name, module in theirs.items():
        ours, expected_gradients = gradients_of(parts.modules[name]), gradients_of(module)
        assert ours.keys() == expected_gradients.keys()
        assert [key for key in ours if not torch.equal(ours[key], expected_gradients[key])] == []


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("negative", ["", "in the rain"])
def test_images_are_those_of_the_diffusers_pipeline(
    guidance: float, negative: str, parts: Components, pipeline: StableDiffusionXLPipeline
):
    latents = first_latents(parts, [1, 2])
    words = {"negative_prompt": [negative] * 2} if negative else {}
    theirs = drawn_by(pipeline, PROMPTS, latents, guidance_scale=guidance, **words)

    sampler = SamplerSettings(steps=4, guidance_scale=guidance)
    with torch.no_grad():
        ours = denoise(SDXL, parts, guiding(SDXL, parts, PROMPTS, sampler, negative), latents, sampler)

    assert torch.allclose(ours, theirs, atol=2e-5)


def test_no_words_are_zeros_only_where_the_model_says_so(parts: Components):
    encoded = SDXL.encode_prompts(parts, [""])

    assert all(not tensor.any() for tensor in SDXL.as_negative(parts, "", encoded).tensors.values())
    assert SDXL.as_negative(parts, "rain", encoded) is encoded
    object.__setattr__(parts, "zero_empty_prompt", False)
    assert SDXL.as_negative(parts, "", encoded) is encoded


def test_a_prompt_longer_than_the_encoders_is_cut_where_they_end(parts: Components):
    long = "a photo of a mug " * 20
    whole, cut = SDXL.encode_prompts(parts, [long]), SDXL.encode_prompts(parts, [long + "in the snow"])

    assert whole.tensors["encoder_hidden_states"].shape == (1, 32, sum(WIDTHS))
    assert all(torch.equal(cut.tensors[name], tensor) for name, tensor in whole.tensors.items())


def test_sizes_stand_in_their_order_exact_also_beside_a_text_in_half_precision():
    text = Conditioning({"text_embeds": torch.zeros(1, PROJECTED, dtype=torch.bfloat16)})

    sized = SDXL.with_sizes(text, [ImageSizes(original=(1023, 1537), crop=(3, 255), target=(832, 1216))])

    assert sized.tensors["time_ids"].tolist() == [[1023, 1537, 3, 255, 832, 1216]]


def test_without_sizes_an_image_is_uncropped_and_of_the_size_that_is_drawn(parts: Components):
    seen: list[Tensor] = []
    parts.unet.register_forward_pre_hook(
        lambda unet, arguments, named: seen.append(named["added_cond_kwargs"]["time_ids"]), with_kwargs=True
    )

    with torch.no_grad():
        SDXL.predict(parts, torch.zeros(2, 4, 16, 24), torch.tensor([5, 6]), SDXL.encode_prompts(parts, PROMPTS))

    assert seen[0].tolist() == [[64, 96, 0, 0, 64, 96]] * 2


def test_added_conditions_follow_their_rows(parts: Components):
    whole = SDXL.with_sizes(SDXL.encode_prompts(parts, PROMPTS), [ImageSizes((n, n), (0, 0), (n, n)) for n in (8, 9)])

    picked = whole.take([1, 1]).then(whole.take([0])).detach()

    assert picked.tensors.keys() == {"encoder_hidden_states", "text_embeds", "time_ids"}
    assert picked.tensors["time_ids"][:, 0].tolist() == [9, 9, 8]
    assert isinstance(picked, Conditioning)


def test_pictures_have_the_side_that_was_asked_for(parts: Components):
    assert draw_images(SDXL, parts, PROMPTS[:1], [1], SAMPLER)[0].size == (64, 64)
    assert draw_images(SDXL, parts, PROMPTS[:1], [1], SAMPLER, resolution=96)[0].size == (96, 96)


@pytest.mark.parametrize("zero_snr", [True, False])
def test_a_model_that_predicts_velocity_says_so_in_its_single_file(zero_snr: bool, tmp_path: Path):
    folder = tmp_path / "velocity"
    write_tiny_sdxl(folder, prediction_type="v_prediction", rescale_betas_zero_snr=zero_snr)
    parts = SDXL.load(folder)
    latents, noise, times = torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), torch.tensor([500])

    write_single_file(SDXL, folder, recipe(family="sdxl"), "5" * 64, tmp_path / "model.safetensors")

    kept = parts.noise_schedule.alphas_cumprod[500]
    assert torch.allclose(SDXL.noise_target(parts, latents, noise, times), -(1 - kept).sqrt() * latents)
    facts = check_weights(tmp_path / "model.safetensors")
    assert {"v_pred", "ztsnr"} & set(facts.tensors) == ({"v_pred", "ztsnr"} if zero_snr else {"v_pred"})
    assert facts.metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base"
    assert facts.metadata["modelspec.prediction_type"] == "v"
    original = FAMILIES["sdxl"].parts["checkpoint"][0].names
    assert [name for name in facts.tensors if not original.fullmatch(name)] == []


def test_the_single_file_has_the_second_encoder_as_open_clip_writes_it(folder: Path):
    parts = {name: tensors_of(folder / file) for name, file in SDXL.layout.weight_files.items()}
    # Published folders hold this counter in both encoders; OpenCLIP has no place for it.
    for name in ("text_encoder", "text_encoder_2"):
        parts[name]["text_model.embeddings.position_ids"] = torch.arange(32).unsqueeze(0)
    tensors = SDXL.original_tensors(parts, read_schedule(folder))

    assert [name for name in tensors if name.endswith("position_ids")] == [
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids"
    ]
    second = {name.removeprefix("conditioner.embedders.1.model."): one for name, one in tensors.items()}
    layer = parts["text_encoder_2"]
    attention = "text_model.encoder.layers.1.self_attn."
    fused = second["transformer.resblocks.1.attn.in_proj_weight"]
    assert torch.equal(fused, torch.cat([layer[f"{attention}{one}_proj.weight"] for one in "qkv"]))
    assert torch.equal(second["text_projection"], layer["text_projection.weight"].T)
    assert torch.equal(second["positional_embedding"], layer["text_model.embeddings.position_embedding.weight"])
