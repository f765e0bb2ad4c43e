"""Stable Diffusion 1 and its kin: one CLIP text encoder, AutoencoderKL, UNet2DConditionModel.

The starter model is of this family too. Source: Rombach et al. 2022; layout of diffusers model folders.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import CLIPTextModel

from flows.diffusion.families.folders import load_folder
from flows.diffusion.families.layout import Component, FamilyLayout
from flows.diffusion.families.original_names import clip_tensors, unet_names, unet_tensors, vae_names, vae_tensors
from flows.diffusion.families.protocol import HIDDEN_STATES, Components, Conditioning, Family, ImageSizes, device_of
from flows.diffusion.families.text_tokens import TokenRows, check_clip_skip, cut_rows, emphasized
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
    kohya_version: str = "sd_v1"
    layout: FamilyLayout = _LAYOUT

    def load(self, folder: Path, deferred: Set[str] = frozenset(), dtype: str = "float32") -> Components:
        """Every part on the CPU, evaluation mode, gradients off.

        Raises WeightsRefused naming the files that are missing.
        """
        return load_folder(folder, self.layout, {"text_encoder": CLIPTextModel}, deferred, dtype)

    def encode_prompts(self, components: Components, prompts: Sequence[str]) -> Conditioning:
        """The text encoder's last hidden state, (prompts, tokens, width)."""
        return self.encode_tokens(components, [cut_rows(tokenizer, prompts) for tokenizer in components.tokenizers])

    def encode_tokens(self, components: Components, tokens: Sequence[TokenRows], clip_skip: int = 0) -> Conditioning:
        """As `encode_prompts`; an earlier layer's hidden state passes the final layer norm too."""
        encoder: Any = components.text_encoder
        check_clip_skip([encoder], clip_skip)
        [rows] = tokens
        ids = rows.ids.to(device_of(encoder))
        if clip_skip > 1:
            states = encoder.final_layer_norm(encoder(ids, output_hidden_states=True).hidden_states[-clip_skip])
        else:
            states = encoder(ids).last_hidden_state
        return Conditioning({HIDDEN_STATES: emphasized(states, rows.weights).to(components.device)})

    def as_negative(self, components: Components, prompt: str, encoded: Conditioning) -> Conditioning:
        """The prompt as it is encoded."""
        return encoded

    def with_sizes(self, conditioning: Conditioning, sizes: Sequence[ImageSizes]) -> Conditioning:
        """The same: this UNet reads no sizes."""
        return conditioning

    def identifier_tokens(self, components: Components, identifier: str, encoder: str = "text_encoder") -> list[int]:
        """Token numbers of the identifier, without start, end or padding."""
        tokenizer = components.tokenizers[list(components.text_encoders).index(encoder)]
        # A word that is no token of its own is several, and may hold one twice; a row of the table is trained once.
        return sorted(set(tokenizer(identifier, add_special_tokens=False).input_ids))

    def token_embedding(self, components: Components, encoder: str = "text_encoder") -> nn.Embedding:
        """The token embedding table of a text encoder."""
        return components.text_encoders[encoder].get_input_embeddings()  # pyright: ignore[reportCallIssue]

    def predict(self, components: Components, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """One UNet call."""
        return components.unet(noisy, timesteps, return_dict=False, **conditioning.tensors)[0]

    def unused_weights(self, components: Components) -> tuple[str, ...]:
        """None: every weight has a part in the prediction."""
        return ()

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

    def check_names(self, parts: Mapping[str, Iterable[str]]) -> None:
        """Raises WeightsRefused for a UNet or VAE that CompVis' code could not hold."""
        unet_names(parts["unet"])
        vae_names(parts["vae"])

    def original_tensors(
        self, parts: Mapping[str, Mapping[str, Tensor]], schedule: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """The names of CompVis' checkpoints."""
        return {
            **unet_tensors(parts["unet"]),
            **vae_tensors(parts["vae"]),
            **clip_tensors(parts["text_encoder"], "cond_stage_model.transformer."),
        }


FAMILY: Family = Sd1()


def _scaling_factor(components: Components) -> float:
    return float(components.vae.config.scaling_factor)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
