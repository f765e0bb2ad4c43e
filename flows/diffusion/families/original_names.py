"""Weights of diffusers' classes under the names that the models were first published with.

Everything follows from the tensors' own names, so that any width, depth and place of attention maps. A part that the
original code has no place for is refused.

Sources of the names: CompVis/stable-diffusion (UNet and VAE), Stability-AI/generative-models (`label_emb`, the two
encoders of SDXL), mlfoundations/open_clip (the second encoder).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from storage.errors import WeightsRefused

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "text_model."
"""What some files of text encoders have before each name, by the release of transformers that wrote them."""

_UNET_PLACES = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    # The names of 2022, which diffusers reads as well.
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
}
_OPEN_CLIP_PLACES = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_VAE_BLOCK = re.compile(r"(encoder|decoder)\.(?:down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)")
_VAE_MIDDLE = re.compile(r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_VAE_SAME = re.compile(r"(quant_conv|post_quant_conv|(encoder|decoder)\.(conv_in|conv_out))\.(weight|bias)")
_FUSED = re.compile(r"(encoder\.layers\.\d+\.)self_attn\.[qkv]_proj\.(weight|bias)")


def unet_tensors(unet: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A UNet2DConditionModel's weights as `model.diffusion_model.`. Raises WeightsRefused."""
    names = unet_names(unet)
    return {names[name]: tensor for name, tensor in unet.items()}


def vae_tensors(vae: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An AutoencoderKL's weights as `first_stage_model.`; its attention becomes convolutions (C, C, 1, 1).

    Raises WeightsRefused.
    """
    names = vae_names(vae)
    linear = {name for name, tensor in vae.items() if ".attentions." in name and tensor.dim() == 2}
    return {names[name]: tensor[:, :, None, None] if name in linear else tensor for name, tensor in vae.items()}


def clip_tensors(encoder: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A CLIPTextModel's weights behind `prefix`, with the counter of positions that strict readers look for."""
    plain = {name.removeprefix(TEXT_PREFIX): tensor for name, tensor in encoder.items()}
    length = plain["embeddings.position_embedding.weight"].shape[0]
    plain["embeddings.position_ids"] = torch.arange(length).unsqueeze(0)
    return {f"{prefix}{TEXT_PREFIX}{name}": tensor for name, tensor in plain.items()}


def open_clip_tensors(encoder: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A CLIPTextModelWithProjection's weights as OpenCLIP has them, behind `prefix`.

    Queries, keys and values of a layer become one tensor (3D, D); the projection is stored transposed.
    Raises WeightsRefused.
    """
    plain = {name.removeprefix(TEXT_PREFIX): tensor for name, tensor in encoder.items()}
    made: dict[str, Tensor] = {}
    for name, tensor in plain.items():
        fused = _FUSED.fullmatch(name)
        if fused:
            layer, kind = fused.groups()
            parts = [plain[f"{layer}self_attn.{one}_proj.{kind}"] for one in "qkv"]
            made[_open_clip_layer(layer) + f"attn.in_proj_{kind}"] = torch.cat(parts)
        elif name == "text_projection.weight":
            made["text_projection"] = tensor.T.contiguous()
        elif not name.endswith("position_ids"):
            made[_open_clip_name(name)] = tensor
    return {prefix + name: tensor for name, tensor in made.items()}


def unet_names(names: Iterable[str]) -> dict[str, str]:
    """Each name of a UNet's tensors with its original one. Raises WeightsRefused for what had no place there."""
    known = sorted(names)
    layers = _layers_per_block(known)
    attended = {match[1] for name in known if (match := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}
    return {name: UNET_PREFIX + _unet_name(name, layers, attended) for name in known}


def vae_names(names: Iterable[str]) -> dict[str, str]:
    """Each name of a VAE's tensors with its original one. Raises WeightsRefused for what had no place there."""
    known = sorted(names)
    levels = 1 + max((int(m[1]) for name in known if (m := re.match(r"decoder\.up_blocks\.(\d+)\.", name))), default=0)
    return {name: VAE_PREFIX + _vae_name(name, levels) for name in known}


def _layers_per_block(names: list[str]) -> int:
    """Residual layers of each block on the way down, which must be equal; on the way up there is one more."""
    found = {match[0] for name in names if (match := re.match(r"(down|up)_blocks\.\d+\.resnets\.\d+\.", name))}
    counts: dict[tuple[str, str], int] = {}
    for place in found:
        side, block = place.split(".")[:2]
        counts[side, block] = counts.get((side, block), 0) + 1
    down = {count for (side, _), count in counts.items() if side == "down_blocks"}
    up = {count - 1 for (side, _), count in counts.items() if side == "up_blocks"}
    if len(down) != 1 or down != up:
        raise WeightsRefused(
            "names", f"the UNet has blocks of {sorted(down | up)} layers; the original layout needs one number for all."
        )
    return down.pop()


def _unet_name(name: str, layers: int, attended: set[str]) -> str:
    place, _, leaf = name.rpartition(".")
    if place in _UNET_PLACES:
        return f"{_UNET_PLACES[place]}.{leaf}"
    for start in ("mid_block.resnets.0", "mid_block.resnets.1", "mid_block.attentions.0"):
        if name.startswith(start + "."):
            rest = name.removeprefix(start + ".")
            return f"{_UNET_PLACES[start]}.{rest if 'attentions' in start else _inside(rest, _UNET_RESNET, name)}"
    match = _BLOCK.fullmatch(name)
    if match is None:
        raise _no_place(name)
    side, block, kind, number, rest = match.groups()
    # Every layer is a block of its own there; a reduction is one more, an enlargement the end of the last.
    at = int(block) * (layers + 1) + int(number)
    if kind == "downsamplers":
        return f"input_blocks.{at + layers + 1}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{at + layers}.{2 if block in attended else 1}.{rest}"
    row = f"input_blocks.{at + 1}" if side == "down" else f"output_blocks.{at}"
    return f"{row}.1.{rest}" if kind == "attentions" else f"{row}.0.{_inside(rest, _UNET_RESNET, name)}"


def _vae_name(name: str, levels: int) -> str:
    if _VAE_SAME.fullmatch(name):
        return name
    if ".conv_norm_out." in name:
        return name.replace(".conv_norm_out.", ".norm_out.")
    middle = _VAE_MIDDLE.fullmatch(name)
    if middle:
        side, kind, number, rest = middle.groups()
        if kind == "resnets":
            return f"{side}.mid.block_{int(number) + 1}.{rest.replace('conv_shortcut.', 'nin_shortcut.')}"
        return f"{side}.mid.attn_{int(number) + 1}.{_inside(rest, _VAE_ATTENTION, name)}"
    match = _VAE_BLOCK.fullmatch(name)
    if match is None:
        raise _no_place(name)
    side, block, kind, number, rest = match.groups()
    # The decoder's levels are counted from the largest image there, here from the smallest.
    level = f"encoder.down.{block}" if side == "encoder" else f"decoder.up.{levels - 1 - int(block)}"
    if kind == "resnets":
        return f"{level}.block.{number}.{rest.replace('conv_shortcut.', 'nin_shortcut.')}"
    return f"{level}.{kind.removesuffix('rs')}.{rest}"


def _open_clip_name(name: str) -> str:
    if name in _OPEN_CLIP_PLACES:
        return _OPEN_CLIP_PLACES[name]
    match = re.fullmatch(r"(encoder\.layers\.\d+\.)(.+)", name)
    if match is None:
        raise _no_place(name)
    return _open_clip_layer(match[1]) + _inside(match[2], _OPEN_CLIP_LAYER, name)


def _open_clip_layer(layer: str) -> str:
    return layer.replace("encoder.layers.", "transformer.resblocks.")


def _inside(rest: str, places: Mapping[str, str], name: str) -> str:
    place, _, leaf = rest.rpartition(".")
    if place not in places:
        raise _no_place(name)
    return f"{places[place]}.{leaf}"


def _no_place(name: str) -> WeightsRefused:
    return WeightsRefused("names", f"'{name}' has no place in the original layout of this model family.")
