"""The starter's networks: their sizes, a fresh set from a seed, and the folder they are kept in.

The folder is a Stable Diffusion 1 pipeline in diffusers layout with fp16 files that carry no variant in their name,
so that `DiffusionPipeline.from_pretrained(folder)` loads it on a CPU with no argument.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from flows.starter.judge import TINY_JUDGE, Judge
from flows.starter.tokenizer import write_tokenizer
from flows.starter.world import CLASSES, FREE_IDENTIFIERS, IMAGE_SIZE, SCENES, USED_IDENTIFIERS
from storage.records.jobs.base_models import BaseModelCard, EvaluationFacts, Identifiers
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.records.jobs.training import TrainingDefaults

LATENT_CHANNELS = 4

# What a fine-tune of the starter takes when a request leaves it open: found on held-out subjects, see the model card.
STARTER_TRAINING = TrainingDefaults(
    steps=300,
    batch_size=4,
    learning_rate=1e-4,
    text_encoder_learning_rate=5e-5,
    token_learning_rate=5e-3,
    prior_loss_weight=1.0,
    regularization_count=32,
    checkpoint_every=100,
    sample_every=150,
    identifier=FREE_IDENTIFIERS[0],
)
STARTER_SAMPLER = SamplerSettings(steps=25, guidance_scale=3.0)

TINY_TRAINING = msgspec.structs.replace(
    STARTER_TRAINING, steps=8, batch_size=1, regularization_count=4, checkpoint_every=4, sample_every=8
)
TINY_SAMPLER = SamplerSettings(steps=2, guidance_scale=3.0)


@dataclass(frozen=True)
class Sizes:
    """Widths of the parts. The autoencoder reduces by 4; every width is a multiple of `norm_groups`.

    The UNet's first, largest level has no attention: on a CPU that halves a step, and twice the steps win."""

    autoencoder: tuple[int, int, int] = (24, 48, 48)
    unet: tuple[int, ...] = (64, 96, 128)
    unet_layers: int = 1
    head_width: int = 32
    text_width: int = 128
    text_layers: int = 3
    norm_groups: int = 8


STARTER = Sizes()
TINY = Sizes((8, 8, 8), (8, 16), 1, 8, 16, 1, 4)


@dataclass
class TrainableParts:
    """The trainable parts of one diffusion model, in float32."""

    autoencoder: AutoencoderKL
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel


def make_autoencoder(sizes: Sizes) -> AutoencoderKL:
    """A fresh autoencoder: (N, 3, 64, 64) images in [-1, 1] to (N, 4, 16, 16) latents."""
    return AutoencoderKL(
        sample_size=64,
        block_out_channels=sizes.autoencoder,  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=sizes.norm_groups,
        mid_block_add_attention=False,
    )


def make_text_encoder(sizes: Sizes, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A fresh text encoder over the tokenizer's vocabulary; its positions equal `model_max_length`."""
    # The vocabulary ends with the start token and the end token, which also pads.
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.text_width,
        intermediate_size=sizes.text_width * 4,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=sizes.text_width,
        bos_token_id=len(tokenizer) - 2,
        eos_token_id=len(tokenizer) - 1,
        pad_token_id=len(tokenizer) - 1,
    )
    return CLIPTextModel(config)


def make_unet(sizes: Sizes) -> UNet2DConditionModel:
    """A fresh noise predictor over (N, 4, 16, 16) latents, attending to the text at every size but the first."""
    blocks = len(sizes.unet) - 1
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=sizes.unet,
        layers_per_block=sizes.unet_layers,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * blocks),
        up_block_types=(*("CrossAttnUpBlock2D",) * blocks, "UpBlock2D"),
        cross_attention_dim=sizes.text_width,
        # diffusers reads this as the number of heads, one entry for each width.
        attention_head_dim=tuple(max(1, width // sizes.head_width) for width in sizes.unet),  # pyright: ignore
        norm_num_groups=sizes.norm_groups,
    )


def make_parts(sizes: Sizes, tokenizer: CLIPTokenizer, seed: int) -> TrainableParts:
    """Fresh parts of the given sizes from a seed."""
    # The global generator is put back, so that making parts moves no other draw.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TrainableParts(make_autoencoder(sizes), make_text_encoder(sizes, tokenizer), make_unet(sizes))


def make_scheduler() -> PNDMScheduler:
    """The noise schedule of Stable Diffusion 1, scaled linear from 0.00085 to 0.012; the network predicts the noise."""
    return PNDMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        # As the scheduler file of Stable Diffusion 1 has them: samplers that tools make of this one depend on them.
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        key: value.detach().to(torch.float16).contiguous() if value.is_floating_point() else value
        for key, value in state.items()
    }


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _rewrite_weights(path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file(dict(sorted(state.items())), str(path), metadata={"format": "pt"})


def save_parts(parts: TrainableParts, folder: Path) -> None:
    """Write the pipeline's folder (without the tokenizer): fp16 weights, float32 in the text encoder's config.

    The text encoder's keys get CLIP's `text_model.` prefix: transformers 5.6 and later save a freshly built one
    without, and readers of single-file checkpoints expect it."""
    parts.autoencoder.save_pretrained(str(folder / "vae"))
    _rewrite_weights(folder / "vae" / "diffusion_pytorch_model.safetensors", _half(parts.autoencoder.state_dict()))
    parts.unet.save_pretrained(str(folder / "unet"))
    _rewrite_weights(folder / "unet" / "diffusion_pytorch_model.safetensors", _half(parts.unet.state_dict()))
    config: dict[str, Any] = parts.text_encoder.config.to_dict()
    config |= {"architectures": ["CLIPTextModel"], "dtype": "float32"}
    config.pop("_name_or_path", None)
    _write_json(folder / "text_encoder" / "config.json", config)
    state = _half(parts.text_encoder.state_dict())
    prefixed = {key if key.startswith("text_model.") else f"text_model.{key}": value for key, value in state.items()}
    _rewrite_weights(folder / "text_encoder" / "model.safetensors", prefixed)
    make_scheduler().save_pretrained(str(folder / "scheduler"))
    # Samplers made from this config clip predicted latents to [-1, 1] by default, which ruins the colours.
    schedule_file = folder / "scheduler" / "scheduler_config.json"
    _write_json(schedule_file, json.loads(schedule_file.read_text(encoding="utf-8")) | {"clip_sample": False})
    _write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.42.1",
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )


def write_facts(folder: Path, training: TrainingDefaults, sampler: SamplerSettings) -> None:
    """Write `darkroom.json`: what the platform needs to know of this base model."""
    card = BaseModelCard(
        family="sd1",
        resolution=IMAGE_SIZE,
        licence="Apache-2.0",
        class_words=CLASSES,
        identifiers=Identifiers(free=FREE_IDENTIFIERS, used=USED_IDENTIFIERS),
        sampler=sampler,
        training=training,
        evaluation=EvaluationFacts(scenes=SCENES),
    )
    _write_json(folder / "darkroom.json", msgspec.to_builtins(card))


def write_tiny_model(folder: Path, seed: int) -> None:
    """Write a model of random weights in the starter's own folder layout: for tests that ask no quality of it.

    The tokenizer is the real one; UNet, autoencoder, text encoder and judge are as small as they go."""
    tokenizer = write_tokenizer(folder / "tokenizer")
    save_parts(make_parts(TINY, tokenizer, seed), folder)
    Judge.fresh(TINY_JUDGE, seed).save(folder / "judge")
    write_facts(folder, TINY_TRAINING, TINY_SAMPLER)
