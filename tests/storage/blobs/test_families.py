"""Files of the families that we know pass as their own part, and as no other; what we do not know passes as sound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.numpy import save_file

from storage.blobs.families import check_model_file
from storage.blobs.weights import check_weights
from storage.errors import WeightsRefused
from storage.records.catalog.catalog import Checked
from storage.records.catalog.vocabulary import FileType, ModelType

STARTER = Path(__file__).parents[3] / "deployments/local/starter"
RESNET = ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3")
BLOCK = ("attn1.to_out.0", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3")
ATTENTION = (
    *("norm", "proj_in", "proj_out"),
    *(f"transformer_blocks.0.{name}" for name in BLOCK),
    *(f"transformer_blocks.0.attn{n}.to_{x}~" for n in (1, 2) for x in "qkv"),
)
"""What stands in each place of Stable Diffusion 1's UNet; `~`: without a bias."""


def sd1_unet() -> set[str]:
    """Every name in the UNet of a Stable Diffusion 1 checkpoint, as CompVis wrote it."""
    places = ["time_embed.0", "time_embed.2", "out.0", "out.2", "input_blocks.0.0"]
    for block in range(1, 12):
        if block % 3 == 0:
            places.append(f"input_blocks.{block}.0.op")
            continue
        places += [f"input_blocks.{block}.0.{name}" for name in RESNET]
        places += [f"input_blocks.{block}.0.skip_connection"] if block in (4, 7) else []
        places += [f"input_blocks.{block}.1.{name}" for name in ATTENTION] if block < 9 else []
    places += [f"middle_block.{n}.{name}" for n in (0, 2) for name in RESNET]
    places += [f"middle_block.1.{name}" for name in ATTENTION]
    for block in range(12):
        places += [f"output_blocks.{block}.0.{name}" for name in (*RESNET, "skip_connection")]
        places += [f"output_blocks.{block}.1.{name}" for name in ATTENTION] if block > 2 else []
        if block in (2, 5, 8):
            places.append(f"output_blocks.{block}.{1 if block == 2 else 2}.conv")
    names = {f"model.diffusion_model.{place.rstrip('~')}.weight" for place in places}
    return names | {f"model.diffusion_model.{place}.bias" for place in places if not place.endswith("~")}


LDM_REST = {
    "first_stage_model.encoder.down.0.block.0.conv1.weight",
    "first_stage_model.quant_conv.bias",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.k_proj.weight",
    "cond_stage_model.transformer.text_model.final_layer_norm.weight",
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
}
SDXL_REST = {
    "model.diffusion_model.label_emb.0.0.weight",
    "conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
    "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
    "conditioner.embedders.1.model.positional_embedding",
    "conditioner.embedders.1.model.text_projection",
    "denoiser.sigmas",
}
KOHYA = {
    f"lora_unet_{place}.{leaf}"
    for place in ("down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v", "up_blocks_3_resnets_2_conv1")
    for leaf in ("alpha", "lora_down.weight", "lora_up.weight")
} | {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "lora_unet_mid_block_resnets_0_conv1.hada_w1_a"}
DIFFUSERS_LORA = {
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight",
    "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight",
}


def written(folder: Path, names: Iterable[str], width: int = 768, more: Mapping[str, np.ndarray] | None = None) -> Path:
    """A file with tensors of these names, as small as each may be."""
    text_in = ("attn2.to_k.weight", "attn2.to_v.weight", "attn2_to_v.lora_down.weight")
    tensors = {name: np.zeros((1, width) if name.endswith(text_in) else 1, np.float16) for name in names}
    path = folder / "model.safetensors"
    save_file({**tensors, **(more or {})}, path)
    return path


def test_our_list_of_a_checkpoints_names_is_what_diffusers_reads():
    small = UNet2DConditionModel(block_out_channels=(32, 64, 96, 96), cross_attention_dim=8, attention_head_dim=8)
    config = {"layers_per_block": 2, **dict.fromkeys(("class_embed_type", "addition_embed_type"))}

    read = convert_ldm_unet_checkpoint(dict.fromkeys(sd1_unet(), np.zeros(1)), config)

    assert set(read) == set(small.state_dict())


SOUND = {
    "original": (sd1_unet() | LDM_REST, "sd1", ModelType.CHECKPOINT, FileType.MODEL),
    "with averages": (sd1_unet() | LDM_REST | {"model_ema.decay"}, "sd1", ModelType.CHECKPOINT, FileType.PRUNED_MODEL),
    "SDXL": (sd1_unet() | SDXL_REST, "sdxl", ModelType.CHECKPOINT, FileType.MODEL),
    "kohya": (KOHYA, "sd1", ModelType.LORA, FileType.MODEL),
    "kohya SDXL": (
        {"lora_unet_input_blocks_4_1_proj_in.alpha", "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha"},
        "sdxl",
        ModelType.LORA,
        FileType.MODEL,
    ),
    "diffusers LoRA": (DIFFUSERS_LORA, "sd1", ModelType.DORA, FileType.MODEL),
    "VAE": ({"decoder.conv_in.weight", "quant_conv.bias"}, "sd1", ModelType.CHECKPOINT, FileType.VAE),
}


@pytest.mark.parametrize("what", SOUND)
def test_what_a_family_has_passes_as_that_family(what: str, tmp_path: Path):
    names, family, model, file = SOUND[what]

    found = check_model_file(written(tmp_path, names, 2048 if family == "sdxl" else 768), family, model, file)

    assert (found.checked, found.fp) == (Checked.FAMILY, "fp16")
    assert found.size_kind == {"original": "pruned", "with averages": "full", "SDXL": "pruned"}.get(what)


def test_the_parts_of_a_diffusers_folder_pass_and_so_does_all_in_one_file(tmp_path: Path):
    parts = {"unet": FileType.UNET, "vae": FileType.VAE, "text_encoder": FileType.TEXT_ENCODER}
    everything: set[str] = set()
    for part, kind in parts.items():
        path = next((STARTER / part).glob("*.safetensors"))
        names = set(check_weights(path).tensors)
        everything |= {f"{part}.{name.removeprefix('text_model.')}" for name in names}
        found = check_model_file(written(tmp_path, names), "sd1", ModelType.CHECKPOINT, kind)
        assert found.checked is Checked.FAMILY
    whole = check_model_file(written(tmp_path, everything), "sd1", ModelType.CHECKPOINT, FileType.MODEL)
    assert whole.checked is Checked.FAMILY


WRONG = {
    "a LoRA as a checkpoint": (KOHYA, "sd1", ModelType.CHECKPOINT, "family", "it holds 'lora_"),
    "a checkpoint as a LoRA": (sd1_unet(), "sd1", ModelType.LORA, "family", "not a LoRA as kohya writes it or a LoRA"),
    "an SDXL LoRA": ({"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight"}, "sd1", ModelType.LORA, "family",
                     "lora_te1"),
    "SDXL's encoders": (sd1_unet() | SDXL_REST, "sd1", ModelType.CHECKPOINT, "family", "of the family sd1"),
    "one tensor too many": (sd1_unet() | {"optimizer.state"}, "sd1", ModelType.CHECKPOINT, "family", "optimizer.state"),
    "no UNet": (LDM_REST, "sd1", ModelType.CHECKPOINT, "family", "it lacks 'model.diffusion_model.input"),
    "a line break in a name": ({"a\nb"}, "other", ModelType.OTHER, "name", r"not plain: .a.+nb."),
    "a path in a name": ({"../../etc/passwd"}, "other", ModelType.OTHER, "name", "not plain"),
    "a quote in a name": ({"a'; drop table models"}, "flux1", ModelType.LORA, "name", "not plain"),
    "no tensor": ((), "other", ModelType.OTHER, "no_tensors", "holds no tensor"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_a_family_has_not_is_refused_by_name(what: str, tmp_path: Path):
    names, family, model, reason, said = WRONG[what]

    with pytest.raises(WeightsRefused, match=said) as refused:
        check_model_file(written(tmp_path, names), family, model, FileType.MODEL)

    assert refused.value.reason == reason


def test_text_vectors_of_another_length_are_another_family(tmp_path: Path):
    with pytest.raises(WeightsRefused, match="does not take the 768 numbers"):
        check_model_file(written(tmp_path, sd1_unet(), width=1024), "sd1", ModelType.CHECKPOINT, FileType.MODEL)
    with pytest.raises(WeightsRefused, match="does not take the 768 numbers"):
        check_model_file(written(tmp_path, KOHYA, width=2048), "sd1", ModelType.LORA, FileType.MODEL)


def test_element_types_that_weights_do_not_have_are_refused(tmp_path: Path):
    path = written(tmp_path, sd1_unet(), more={"model.diffusion_model.out.9.weight": np.zeros(1, np.bool_)})

    with pytest.raises(WeightsRefused, match="is BOOL; known here are"):
        check_model_file(path, "sd1", ModelType.CHECKPOINT, FileType.MODEL)


@pytest.mark.parametrize(
    ("family", "model"), [("flux1", ModelType.LORA), ("other", ModelType.OTHER), ("sd1", ModelType.TEXTUAL_INVERSION)]
)
def test_what_we_have_no_list_for_passes_as_sound(family: str, model: ModelType, tmp_path: Path):
    path = written(tmp_path, {"<猫>", "transformer.single_blocks.0.lora_A.weight"})

    assert check_model_file(path, family, model, FileType.MODEL).checked is Checked.STRUCTURE
