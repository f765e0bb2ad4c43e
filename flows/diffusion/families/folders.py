"""A model folder in diffusers layout as components in memory: what the families' loading has in common."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import msgspec
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import nn
from transformers import CLIPTokenizer

from flows.diffusion.families.deferred import DeferredModule
from flows.diffusion.families.layout import FamilyLayout
from flows.diffusion.families.protocol import Components
from flows.diffusion.half_weights import DTYPES, hold
from storage.errors import WeightsRefused
from storage.records.jobs.costs.sizes import vae_factor_of

CARD = "darkroom.json"


def load_folder(
    folder: Path,
    layout: FamilyLayout,
    encoders: Mapping[str, type[Any]],
    deferred: Set[str] = frozenset(),
    dtype: str = "float32",
) -> Components:
    """The parts of a folder with `encoders`, each a folder and its class. See Family.load in protocol.py.

    Raises WeightsRefused naming the files that are missing, or the part with numbers too large for `dtype`.
    """
    missing = layout.missing_weights(folder)
    if missing:
        raise WeightsRefused(
            "incomplete_folder",
            f"the model folder lacks {', '.join(missing)}. Save the model with "
            "pipeline.save_pretrained(folder, safe_serialization=True), without a variant, and register it again.",
        )
    # Safetensors only, because the other format is a pickle, and reading one runs what is in it. Local files only:
    # a part that is missing must be refused here, not fetched from a hub that may have another version of it.
    local = {"use_safetensors": True, "local_files_only": True}

    held = DTYPES[dtype]

    def part(name: str, kind: type[Any], **options: Any) -> Any:
        def read() -> nn.Module:
            module = kind.from_pretrained(folder / name, **options, **local).requires_grad_(False).eval()
            return module if name == "vae" or held is torch.float32 else hold(module, held, name)

        return DeferredModule(read) if name in deferred else read()

    return Components(
        folder=folder,
        tokenizers=tuple(
            CLIPTokenizer.from_pretrained(folder / name.replace("text_encoder", "tokenizer"), local_files_only=True)
            for name in encoders
        ),
        # transformers 5 calls it dtype, diffusers still torch_dtype.
        text_encoders={name: part(name, kind, dtype=held) for name, kind in encoders.items()},
        # Of what it makes of photos a training learns, and that of Stable Diffusion XL overflows in fp16.
        vae=part("vae", AutoencoderKL, torch_dtype=torch.float32),
        unet=part("unet", UNet2DConditionModel, torch_dtype=held),
        noise_schedule=DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
        resolution=_resolution(folder),
        zero_empty_prompt=_json(folder / "model_index.json").get("force_zeros_for_empty_prompt") is True,
    )


def _resolution(folder: Path) -> int:
    """The card's, which a training learns at; without a card the UNet's `sample_size` in pixels."""
    card = _json(folder / CARD).get("resolution")
    if isinstance(card, int):
        return card
    size = _json(folder / "unet" / "config.json").get("sample_size") or 64
    # Some configs have a pair; what is drawn here is square.
    blocks = _json(folder / "vae" / "config.json").get("block_out_channels", (64,))  # diffusers' default
    return int(size if isinstance(size, int) else max(size)) * vae_factor_of(len(blocks))


def _json(path: Path) -> dict[str, Any]:
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.is_file() else {}
