"""Which tensors the files of a model family hold: what an upload may be, beyond being sound safetensors.

A family whose files we know has a layout for each part of a model; a file must be one of the layouts as a whole. What
we have no layout for passes the generic rules: known element types, at most MAX_TENSORS tensors, plain names.

Sources of the names: CompVis/stable-diffusion (`model.diffusion_model`, ...), diffusers' model folders, kohya-ss
sd-scripts and LyCORIS (`lora_unet_...`), diffusers' and PEFT's LoRA files (`unet....lora_A.weight`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from storage.blobs.weights import WeightsFacts, check_weights
from storage.errors import WeightsRefused
from storage.records.catalog.catalog import Checked
from storage.records.catalog.vocabulary import FileType, ModelType

PLAIN_NAME = re.compile(r"(?!.*\.\.)[\w.\-/:<>*+ ]{1,256}")
"""Letters of any script, digits and a few marks: nothing that a shell, a path or a log line reads as more than text."""

FLOATS = frozenset({"F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2", "I64", "I32"})
"""Element types of weights; the whole numbers are for counters such as position_ids."""

_PRECISIONS = {"F16": "fp16", "BF16": "bf16", "F32": "fp32", "F8_E4M3": "fp8", "F8_E5M2": "fp8"}
# Keys and values of cross-attention read the text vectors, so their second length distinguishes families. Of a
# LoRA it is the lower half (down, A) that reads them.
TEXT_IN = re.compile(r"(?:attn2[._]to_[kv])(?:\.weight|\.lora_(?:down|A)(?:\.\w+)?\.weight|\.lora\.down\.weight)$")


@dataclass(frozen=True)
class Layout:
    """How one part of a family's model is written, its names as a pattern. `needs` is a tensor without which it is not
    that part."""

    what: str
    pattern: str
    needs: str | None = None

    @cached_property
    def names(self) -> re.Pattern[str]:
        """The pattern, compiled when a file is first compared: all of them take 28 ms of a start."""
        return re.compile(self.pattern)


@dataclass(frozen=True)
class FamilyFiles:
    """What a family's files may be, by the part of the model. `text_width` is the length of its text vectors."""

    text_width: int
    parts: Mapping[str, Sequence[Layout]]


@dataclass(frozen=True)
class ModelFile:
    """A file that passed. `size_kind` says of a checkpoint whether it also holds averages that only training needs."""

    facts: WeightsFacts
    checked: Checked
    fp: str | None
    size_kind: str | None


UNET = r"(conv_in|conv_out|conv_norm_out|time_embedding|down_blocks|mid_block|up_blocks)\..+"
VAE = r"(encoder|decoder|quant_conv|post_quant_conv)\..+"
CLIP = r"(text_model\.)?(embeddings|encoder|final_layer_norm)\..+"
ADDED = r"add_embedding\..+"
PROJECTION = r"text_projection\.weight"

_LDM_UNET = r"model\.diffusion_model\.(time_embed|label_emb|input_blocks|middle_block|output_blocks|out)\.[\w.]+"
_LDM_VAE = r"first_stage_model\.(encoder|decoder|quant_conv|post_quant_conv|loss|model_ema)\.[\w.]+"
# What training scripts leave in a checkpoint beside the weights: averages, schedules, embedding managers.
_LDM_REST = (
    r"model_ema\.\w+|betas|logvar|lvlb_weights|scale_factor|denoiser\.sigmas|posterior_\w+"
    r"|(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?|embedding_manager\.[\w.]+"
)
_LDM_CLIP = r"cond_stage_model\.(transformer\.(text_model\.)?(embeddings|encoder|final_layer_norm)\.[\w.]+|logit_scale)"
# SDXL has two text encoders: the first in the names of transformers, the second in those of OpenCLIP.
_LDM_CLIPS = (
    r"conditioner\.embedders\.(0\.transformer\.(text_model\.)?(embeddings|encoder|final_layer_norm)\.[\w.]+"
    r"|1\.model\.(transformer\.resblocks\.[\w.]+|(token_embedding|ln_final)\.\w+|positional_embedding"
    r"|text_projection|logit_scale)|\d\.logit_scale)"
    # Empty tensors by which ComfyUI knows a model that predicts the velocity, or learned on pure noise too.
    r"|v_pred|ztsnr"
)
# Endings of kohya and LyCORIS: LoRA and DoRA, LoHa (hada), LoKr, IA3 (on_input), OFT, and plain differences.
_LORA_LEAF = (
    r"(alpha|dora_scale|scalar|rescale|diff|diff_b|[wb]_norm|on_input|oft_(blocks|diag)"
    r"|lora_(down|up|mid)\.weight|hada_(w[12](_[ab])?|t[12])|lokr_(w[12](_[ab])?|t2)|[ab][12]\.weight)"
)
# diffusers has written LoRA in several ways: as PEFT does (lora_A), as `lora.down`, and in its first attention
# processors (`to_q_lora.down`).
_PEFT_LEAF = (
    r"(lora_(A|B|magnitude_vector)(\.\w+)?(\.weight)?|lora\.(down|up)\.weight|lora_linear_layer\.(down|up)\.weight"
    r"|\w+_lora\.(down|up)\.weight|alpha)"
)
_LORA_UNET = r"(down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding)\w*"


def _layout(what: str, *names: str, needs: str | None = None) -> Layout:
    return Layout(what, "|".join(f"(?:{name})" for name in names), needs)


def _parts(ldm_clip: str, kohya: str, encoders: str) -> Mapping[str, Sequence[Layout]]:
    """The parts of a Stable Diffusion model; `encoders` is how many text encoders are called in a diffusers folder."""
    unet = _layout("a diffusers UNet", UNET, ADDED, needs="conv_in.weight")
    checkpoint = _layout(
        "a full checkpoint in the original layout",
        *(_LDM_UNET, _LDM_VAE, _LDM_REST, ldm_clip),
        needs="model.diffusion_model.input_blocks.0.0.weight",
    )
    pipeline = _layout(
        "a diffusers pipeline in one file",
        *(rf"unet\.({UNET}|{ADDED})", rf"vae\.{VAE}", rf"{encoders}\.({CLIP}|{PROJECTION})"),
        needs="unet.conv_in.weight",
    )
    kohya_lora = _layout("a LoRA as kohya writes it", rf"{kohya}\.{_LORA_LEAF}")
    peft_lora = _layout(
        "a LoRA as diffusers writes it",
        rf"((unet|{encoders})\.)?(base_model\.model\.)?[\w.]+?\.{_PEFT_LEAF}",
    )
    return MappingProxyType(
        {
            "checkpoint": (checkpoint, pipeline, unet),
            "unet": (unet,),
            "vae": (_layout("a VAE", VAE, r"(loss|model_ema)\.[\w.]+", needs="decoder.conv_in.weight"),),
            "text_encoder": (_layout("a CLIP text encoder", CLIP, PROJECTION),),
            "lora": (kohya_lora, peft_lora),
        }
    )


FAMILIES: Mapping[str, FamilyFiles] = MappingProxyType(
    {
        "sd1": FamilyFiles(768, _parts(_LDM_CLIP, rf"lora_(unet_{_LORA_UNET}|te_text_model_\w+)", "text_encoder")),
        "sdxl": FamilyFiles(
            2048,
            _parts(
                _LDM_CLIPS,
                rf"lora_(unet_({_LORA_UNET}|(input_blocks|middle_block|output_blocks|add_embedding|label_emb"
                r"|time_embed|out)_\w+)|te[12]_text_(model|projection)\w*)",
                "text_encoder(_2)?",
            ),
        ),
    }
)
"""Families by their name in storage.records.catalog.vocabulary.BASE_MODELS."""

_PART_OF_FILE = {
    FileType.VAE: "vae",
    FileType.TEXT_ENCODER: "text_encoder",
    FileType.UNET: "unet",
    FileType.DIFFUSION_MODEL: "unet",
}
_PART_OF_MODEL = {
    ModelType.CHECKPOINT: "checkpoint",
    ModelType.LORA: "lora",
    ModelType.LOCON: "lora",
    ModelType.DORA: "lora",
    ModelType.VAE: "vae",
    ModelType.UNET: "unet",
    ModelType.TEXT_ENCODER: "text_encoder",
}
_WHOLE = frozenset({FileType.MODEL, FileType.PRUNED_MODEL})


def check_model_file(
    path: Path, family: str, model: ModelType, file: FileType, *, called: str | None = None
) -> ModelFile:
    """What a model's weights file holds, when it is sound and, for a family that we know, of that family.

    `family` is a name of BASE_MODELS' values; refusals name the file as `called`, or by its own name.
    Raises WeightsRefused, and OSError when the file cannot be read.
    """
    facts, own = check_weights(path, called=called), called or path.name
    if not facts.tensors:
        raise WeightsRefused("no_tensors", f"{own} holds no tensor. Make it again with its weights.")
    for name in facts.tensors:
        if not PLAIN_NAME.fullmatch(name):
            shown = name[:80].encode("unicode_escape").decode()
            raise WeightsRefused("name", f"{own} holds a tensor with a name that is not plain: '{shown}'.")
    known = FAMILIES.get(family)
    part = _PART_OF_MODEL.get(model) if file in _WHOLE else _PART_OF_FILE.get(file)
    # A family or a part without a layout is taken on the generic rules, and the catalogue says that no more was
    # checked.
    checked = Checked.STRUCTURE
    if known is not None and part is not None:
        _check_family(own, facts, family, known, known.parts[part])
        checked = Checked.FAMILY
    return ModelFile(facts, checked, _precision(facts), _size_kind(facts))


def _check_family(name: str, facts: WeightsFacts, family: str, known: FamilyFiles, layouts: Sequence[Layout]) -> None:
    strangers = {layout: _stranger(facts, layout) for layout in layouts}
    fitting = [layout for layout, stranger in strangers.items() if stranger is None]
    if not fitting:
        wanted = " or ".join(layout.what for layout in layouts)
        # Of the first layout alone: one reason is enough to look at the file.
        reason = next(iter(strangers.values()))
        raise WeightsRefused(
            "family",
            f"{name} is not {wanted} of the family {family}: {reason}. Check the version's base model and type.",
        )
    for key, tensor in facts.tensors.items():
        if tensor.dtype not in FLOATS:
            raise WeightsRefused(
                "dtype", f"{name}: tensor '{key[:80]}' is {tensor.dtype}; known here are {', '.join(sorted(FLOATS))}."
            )
        if TEXT_IN.search(key) and tensor.shape[1:2] != (known.text_width,):
            raise WeightsRefused(
                "family",
                f"{name}: tensor '{key[:80]}' of shape {list(tensor.shape)} does not take the {known.text_width:,} "
                f"numbers of a text vector of the family {family}. Check the version's base model.",
            )


def _stranger(facts: WeightsFacts, layout: Layout) -> str | None:
    """Why the file is not of this layout, or None when it is."""
    for name in facts.tensors:
        if not layout.names.fullmatch(name):
            return f"it holds '{name[:80]}'"
    if layout.needs is not None and layout.needs not in facts.tensors:
        return f"it lacks '{layout.needs}'"
    return None


def _precision(facts: WeightsFacts) -> str | None:
    """What most bytes of the file are in, as the catalogue says it."""
    sizes = Counter[str]()
    for tensor in facts.tensors.values():
        sizes[tensor.dtype] += tensor.end - tensor.begin
    return _PRECISIONS.get(sizes.most_common(1)[0][0])


def _size_kind(facts: WeightsFacts) -> str | None:
    if "model.diffusion_model.input_blocks.0.0.weight" not in facts.tensors:
        return None
    return "full" if any(name.startswith("model_ema.") for name in facts.tensors) else "pruned"
