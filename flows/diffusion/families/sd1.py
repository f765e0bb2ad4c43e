"""Stable Diffusion 1 and its kin: one CLIP text encoder, AutoencoderKL, UNet2DConditionModel.

The starter model is of this family too. Source: Rombach et al. 2022; layout of diffusers model folders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from flows.diffusion.families.layout import Component, FamilyLayout
from flows.diffusion.families.protocol import Components, Conditioning, Family
from storage.blobs import families as tensor_names
from storage.errors import WeightsRefused

_LAYOUT = FamilyLayout(
    pipelines=frozenset({"StableDiffusionPipeline"}),
    components={
        "unet": Component(
            frozenset({"UNet2DConditionModel"}), "diffusion_pytorch_model.safetensors", re.compile(tensor_names.UNET)
        ),
        "vae": Component(
            frozenset({"AutoencoderKL"}), "diffusion_pytorch_model.safetensors", re.compile(tensor_names.VAE)
        ),
        "text_encoder": Component(frozenset({"CLIPTextModel"}), "model.safetensors", re.compile(tensor_names.CLIP)),
        "tokenizer": Component(frozenset({"CLIPTokenizer", "CLIPTokenizerFast"})),
        "scheduler": Component(frozenset()),
    },
)


class Sd1:
    """The family `sd1`. See families/protocol.py for what each method promises."""

    architecture: str = "stable-diffusion-v1"
    layout: FamilyLayout = _LAYOUT

    def load(self, folder: Path) -> Components:
        """Every part in float32 on the CPU, evaluation mode, gradients off.

        Raises WeightsRefused naming the files that are missing.
        """
        missing = [name for name in self.layout.weight_files.values() if not (folder / name).is_file()]
        if missing:
            raise WeightsRefused(
                "incomplete_folder",
                f"the model folder lacks {', '.join(missing)}. Save the model with "
                "pipeline.save_pretrained(folder, safe_serialization=True), without a variant, and register it again.",
            )
        # Safetensors only, because the other format is a pickle, and reading one runs what is in it. Local files only:
        # a part that is missing must be refused here, not fetched from a hub that may have another version of it.
        options = {"torch_dtype": torch.float32, "use_safetensors": True, "local_files_only": True}
        components = Components(
            folder=folder,
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            # transformers 5 calls it dtype, diffusers still torch_dtype.
            text_encoder=CLIPTextModel.from_pretrained(
                folder / "text_encoder", dtype=torch.float32, use_safetensors=True, local_files_only=True
            ),
            vae=AutoencoderKL.from_pretrained(folder / "vae", **options),
            unet=UNet2DConditionModel.from_pretrained(folder / "unet", **options),
            noise_schedule=DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
        )
        for module in components.modules.values():
            module.requires_grad_(False).eval()
        return components

    def encode_prompts(self, components: Components, prompts: Sequence[str]) -> Conditioning:
        """The text encoder's last hidden state, (prompts, tokens, width)."""
        tokens = components.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=components.tokenizer.model_max_length,
            return_tensors="pt",
        )
        states = components.text_encoder(tokens.input_ids.to(components.device)).last_hidden_state
        return Conditioning({"encoder_hidden_states": states})

    def identifier_tokens(self, components: Components, identifier: str) -> list[int]:
        """Token numbers of the identifier, without start, end or padding."""
        # A word that is no token of its own is several, and may hold one twice; a row of the table is trained once.
        return sorted(set(components.tokenizer(identifier, add_special_tokens=False).input_ids))

    def token_embedding(self, components: Components) -> nn.Embedding:
        """The text encoder's token embedding table."""
        return components.text_encoder.get_input_embeddings()  # pyright: ignore[reportCallIssue]

    def predict(self, components: Components, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """One UNet call."""
        return components.unet(noisy, timesteps, return_dict=False, **conditioning.tensors)[0]

    def noise_target(self, components: Components, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noise (epsilon) or the velocity (v_prediction; Salimans and Ho 2022).

        Raises WeightsRefused for another prediction type.
        """
        kind = components.noise_schedule.config.prediction_type
        if kind == "epsilon":
            return noise
        if kind == "v_prediction":
            return components.noise_schedule.get_velocity(latents, noise, timesteps)
        raise WeightsRefused(
            "unknown_prediction_type",
            f"scheduler/scheduler_config.json says prediction_type '{kind}'; known are epsilon and v_prediction.",
        )

    def encode_images(self, components: Components, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior's mean and standard deviation, both times the VAE's scaling factor."""
        posterior = components.vae.encode(pixels).latent_dist  # pyright: ignore[reportCallIssue]
        scale = _scaling_factor(components)
        return posterior.mean * scale, posterior.std * scale

    def decode_latents(self, components: Components, latents: Tensor) -> Tensor:
        """Pixels; not clipped."""
        scale = _scaling_factor(components)
        return components.vae.decode(latents / scale, return_dict=False)[0]  # pyright: ignore[reportCallIssue]


FAMILY: Family = Sd1()


def _scaling_factor(components: Components) -> float:
    return float(components.vae.config.scaling_factor)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
