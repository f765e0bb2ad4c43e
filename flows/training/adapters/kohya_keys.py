"""The tensors of an adapter as kohya's trainer names them, which A1111, Forge and ComfyUI read.

A layer is `lora_unet_` or `lora_te_` and its name with `_` for `.`; of Stable Diffusion XL the text encoders are
`lora_te1_` and `lora_te2_`, and the UNet's names are those of the original code (`input_blocks_4_1_...`), since kohya
trains that one in its own UNet. diffusers' converter is not used: it writes alpha = rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

_OUTER = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_IN_RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def kohya_tensors(tensors: Mapping[str, Tensor], alpha: float, unet: nn.Module, *, xl: bool) -> dict[str, Tensor]:
    """An adapter's tensors (by diffusers' names) under kohya's, with each layer's `alpha`.

    `xl`: of Stable Diffusion XL. A DoRA's lengths become `dora_scale`, of shape (out, 1) or (out, 1, 1, 1).
    """
    blocks = dict(_sgm_blocks(unet)) if xl else {}
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        component, _, inside = key.partition(".")
        layer, _, part = inside.rpartition(".lora_")
        name = _layer_name(component, layer, blocks, xl=xl)
        found[f"{name}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
        match part:
            case "A.weight":
                found[f"{name}.lora_down.weight"] = tensor
            case "B.weight":
                found[f"{name}.lora_up.weight"] = tensor
            case _:
                found[f"{name}.dora_scale"] = _dora_scale(tensor)
    return found


def sgm_name(layer: str, blocks: Mapping[str, str]) -> str:
    """A layer of diffusers' UNet as Stability's generative-models names it. `blocks`: of this very UNet."""
    if layer in _OUTER:
        return _OUTER[layer]
    for block, place in blocks.items():
        if layer.startswith(f"{block}."):
            rest = layer[len(block) + 1 :]
            return f"{place}.{_IN_RESNET.get(rest, rest)}" if ".resnets." in block else f"{place}.{rest}"
        if layer == block:
            return place
    raise ValueError(f"{layer} is no layer of this UNet")


def _sgm_blocks(unet: nn.Module) -> Iterator[tuple[str, str]]:
    """Blocks of diffusers' UNet to their place in the original one, which numbers them through all levels."""
    parts = {name for name, _ in unet.named_modules()}
    for side, original in (("down_blocks", "input_blocks"), ("up_blocks", "output_blocks")):
        # Number 0 of the way down is `conv_in`.
        number, level = (1 if side == "down_blocks" else 0), 0
        while f"{side}.{level}" in parts:
            row = 0
            while f"{side}.{level}.resnets.{row}" in parts:
                yield f"{side}.{level}.resnets.{row}", f"{original}.{number}.0"
                attends = f"{side}.{level}.attentions.{row}" in parts
                if attends:
                    yield f"{side}.{level}.attentions.{row}", f"{original}.{number}.1"
                number, row = number + 1, row + 1
                last = f"{side}.{level}.resnets.{row}" not in parts
                if last and f"{side}.{level}.upsamplers.0.conv" in parts:
                    yield f"{side}.{level}.upsamplers.0.conv", f"{original}.{number - 1}.{1 + attends}.conv"
            if f"{side}.{level}.downsamplers.0.conv" in parts:
                yield f"{side}.{level}.downsamplers.0.conv", f"{original}.{number}.0.op"
                number += 1
            level += 1
    yield "mid_block.resnets.0", "middle_block.0"
    yield "mid_block.attentions.0", "middle_block.1"
    yield "mid_block.resnets.1", "middle_block.2"


def _layer_name(component: str, layer: str, blocks: Mapping[str, str], *, xl: bool) -> str:
    if component == "unet":
        return "lora_unet_" + (sgm_name(layer, blocks) if xl else layer).replace(".", "_")
    # transformers 5.6 and later has no `text_model.` before the names of a plain text encoder.
    if not layer.startswith(("text_model.", "text_projection")):
        layer = f"text_model.{layer}"
    prefix = {"text_encoder": "lora_te1_" if xl else "lora_te_", "text_encoder_2": "lora_te2_"}[component]
    return prefix + layer.replace(".", "_")


def _dora_scale(lengths: Tensor) -> Tensor:
    # PEFT has (out,) of a linear layer and (1, out, 1, 1) of a convolution; readers broadcast over a weight's rows.
    return lengths.reshape(-1, 1) if lengths.dim() == 1 else lengths.transpose(0, 1)
