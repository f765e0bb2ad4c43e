"""Stable Diffusion XL and what is made of it (Pony, Illustrious): two CLIP text encoders, a pooled vector, sizes.

Source: Podell et al. 2023; layout of diffusers model folders; names of Stability-AI/generative-models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from flows.diffusion.families.folders import load_folder
from flows.diffusion.families.layout import Component, FamilyLayout
from flows.diffusion.families.original_names import clip_tensors, open_clip_tensors, unet_tensors, vae_tensors
from flows.diffusion.families.protocol import HIDDEN_STATES, Components, Conditioning, Family, ImageSizes, device_of
from flows.diffusion.families.sd1 import Sd1
from flows.diffusion.families.text_tokens import TokenRows, check_clip_skip, emphasized
from storage.blobs import families as tensor_names

_TOKENIZER = Component(frozenset({"CLIPTokenizer", "CLIPTokenizerFast"}))
_LAYOUT = FamilyLayout(
    pipelines=frozenset({"StableDiffusionXLPipeline"}),
    components={
        "unet": Component(
            frozenset({"UNet2DConditionModel"}),
            "diffusion_pytorch_model.safetensors",
            re.compile(f"{tensor_names.UNET}|{tensor_names.ADDED}"),
        ),
        "vae": Component(
            frozenset({"AutoencoderKL"}), "diffusion_pytorch_model.safetensors", re.compile(tensor_names.VAE)
        ),
        "text_encoder": Component(frozenset({"CLIPTextModel"}), "model.safetensors", re.compile(tensor_names.CLIP)),
        "text_encoder_2": Component(
            frozenset({"CLIPTextModelWithProjection"}),
            "model.safetensors",
            re.compile(f"{tensor_names.CLIP}|{tensor_names.PROJECTION}"),
        ),
        "tokenizer": _TOKENIZER,
        "tokenizer_2": _TOKENIZER,
        "scheduler": Component(frozenset()),
    },
)
LAST_BUT_ONE = 2
"""The layer that SDXL was trained with, counted from the last one."""
_FIRST, _SECOND = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."


class Sdxl(Sd1):
    """The family `sdxl`. See families/protocol.py for what each method promises."""

    architecture: str = "stable-diffusion-xl-v1-base"
    kohya_version: str = "sdxl_base_v1-0"
    layout: FamilyLayout = _LAYOUT

    def load(self, folder: Path, deferred: Set[str] = frozenset(), dtype: str = "float32") -> Components:
        """Every part on the CPU, evaluation mode, gradients off.

        Raises WeightsRefused naming the files that are missing.
        """
        encoders = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
        return load_folder(folder, self.layout, encoders, deferred, dtype)

    def encode_tokens(self, components: Components, tokens: Sequence[TokenRows], clip_skip: int = 0) -> Conditioning:
        """Both encoders' last hidden state but one, side by side, and the second one's pooled vector.

        `encoder_hidden_states` (prompts, tokens, both widths); `text_embeds` (prompts, projected width), which no
        weight and no `clip_skip` changes. No hidden state passes the final layer norm.
        """
        encoders = components.text_encoders.values()
        check_clip_skip(encoders, clip_skip)
        states: list[Tensor] = []
        pooled: list[Tensor] = []
        for rows, encoder in zip(tokens, encoders, strict=True):
            encoded = encoder(rows.ids.to(device_of(encoder)), output_hidden_states=True)
            layer = encoded.hidden_states[-(clip_skip or LAST_BUT_ONE)]
            states.append(emphasized(layer, rows.weights).to(components.device))
            pooled.append(encoded[0].to(components.device))
        return Conditioning({HIDDEN_STATES: torch.cat(states, dim=-1), "text_embeds": pooled[-1]})

    def as_negative(self, components: Components, prompt: str, encoded: Conditioning) -> Conditioning:
        """Zeros for no words, where the model says that it learned them so; else the prompt as it is encoded."""
        if prompt or not components.zero_empty_prompt:
            return encoded
        return Conditioning({name: torch.zeros_like(tensor) for name, tensor in encoded.tensors.items()})

    def with_sizes(self, conditioning: Conditioning, sizes: Sequence[ImageSizes]) -> Conditioning:
        """With `time_ids` (rows, 6): height and width before cropping, the crop's top and left, height and width."""
        # float32 also beside a text in half precision, which has no room for every number of pixels.
        ids = torch.tensor([[*one.original, *one.crop, *one.target] for one in sizes], dtype=torch.float32)
        return Conditioning({**conditioning.tensors, "time_ids": ids.to(conditioning.tensors["text_embeds"].device)})

    def predict(self, components: Components, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """One UNet call; without `time_ids` every image is uncropped and of the size of `noisy`."""
        if "time_ids" not in conditioning.tensors:
            height, width = (side * components.vae_factor for side in noisy.shape[-2:])
            whole = ImageSizes(original=(height, width), crop=(0, 0), target=(height, width))
            conditioning = self.with_sizes(conditioning, [whole] * noisy.shape[0])
        tensors = conditioning.tensors
        return components.unet(
            noisy,
            timesteps,
            encoder_hidden_states=tensors[HIDDEN_STATES],
            added_cond_kwargs={"text_embeds": tensors["text_embeds"], "time_ids": tensors["time_ids"]},
            return_dict=False,
        )[0]

    def unused_weights(self, components: Components) -> tuple[str, ...]:
        """All behind the first encoder's last hidden state but one; the second one's pooled vector needs everything."""
        config: Any = components.text_encoder.config
        return f"text_encoder.*layers.{config.num_hidden_layers - 1}.*", "text_encoder.*final_layer_norm.*"

    def original_tensors(
        self, parts: Mapping[str, Mapping[str, Tensor]], schedule: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """The names of the published SDXL file, with the marks by which ComfyUI knows another prediction."""
        marks: dict[str, Tensor] = {}
        if schedule.get("prediction_type") == "v_prediction":
            marks["v_pred"] = torch.tensor([])
            if schedule.get("rescale_betas_zero_snr"):
                marks["ztsnr"] = torch.tensor([])
        return {
            **unet_tensors(parts["unet"]),
            **vae_tensors(parts["vae"]),
            **clip_tensors(parts["text_encoder"], _FIRST),
            **open_clip_tensors(parts["text_encoder_2"], _SECOND),
            **marks,
        }


FAMILY: Family = Sdxl()
