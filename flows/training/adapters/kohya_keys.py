"""The tensors of an adapter as kohya's trainer names them, which A1111, Forge and ComfyUI read.

A layer is `lora_unet_` or `lora_te_` and its name with `_` for `.`; of Stable Diffusion XL the text encoders are
`lora_te1_` and `lora_te2_`, and the UNet's names are those of the original code (`input_blocks_4_1_...`), since kohya
trains that one in its own UNet. diffusers' converter is not used: it writes alpha = rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from flows.diffusion.families.original_names import UNET_PREFIX, unet_names


def kohya_tensors(tensors: Mapping[str, Tensor], alpha: float, unet: nn.Module, *, xl: bool) -> dict[str, Tensor]:
    """An adapter's tensors (by diffusers' names) under kohya's, with each layer's `alpha`.

    `xl`: of Stable Diffusion XL. A DoRA's lengths become `dora_scale`, of shape (out, 1) or (out, 1, 1, 1).
    """
    originals = _original_layers(unet) if xl else {}
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        component, _, inside = key.partition(".")
        layer, _, part = inside.rpartition(".lora_")
        name = _layer_name(component, layer, originals, xl=xl)
        found[f"{name}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
        match part:
            case "A.weight":
                found[f"{name}.lora_down.weight"] = tensor
            case "B.weight":
                found[f"{name}.lora_up.weight"] = tensor
            case _:
                found[f"{name}.dora_scale"] = _dora_scale(tensor)
    return found


def _original_layers(unet: nn.Module) -> dict[str, str]:
    """Layers of diffusers' UNet, the adapters beside them aside, with their names in the original one."""
    own = (name.replace(".base_layer.", ".") for name, _ in unet.named_parameters() if ".lora_" not in name)
    names = {name: original.removeprefix(UNET_PREFIX) for name, original in unet_names(own).items()}
    return {name.rpartition(".")[0]: original.rpartition(".")[0] for name, original in names.items()}


def _layer_name(component: str, layer: str, originals: Mapping[str, str], *, xl: bool) -> str:
    if component == "unet":
        return "lora_unet_" + (originals[layer] if xl else layer).replace(".", "_")
    # transformers 5.6 and later has no `text_model.` before the names of a plain text encoder.
    if not layer.startswith(("text_model.", "text_projection")):
        layer = f"text_model.{layer}"
    prefix = {"text_encoder": "lora_te1_" if xl else "lora_te_", "text_encoder_2": "lora_te2_"}[component]
    return prefix + layer.replace(".", "_")


def _dora_scale(lengths: Tensor) -> Tensor:
    # PEFT has (out,) of a linear layer and (1, out, 1, 1) of a convolution; readers broadcast over a weight's rows.
    return lengths.reshape(-1, 1) if lengths.dim() == 1 else lengths.transpose(0, 1)
