"""A base model in one safetensors file, as CompVis and Stability published theirs: made into a diffusers folder.

diffusers converts it, with the configs and tokenizers of a folder on this machine, since the file holds neither. What
came out is compared with the file, tensor by tensor.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from safetensors import safe_open

from deployments.base_models.cards import read_json
from flows.diffusion.families.layout import FamilyLayout
from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.original_names import UNET_PREFIX, VAE_PREFIX
from flows.diffusion.families.protocol import Family
from flows.training.exports.single_files import SCHEDULE_FILE, read_schedule, tensors_of
from storage.blobs.weights import WeightsFacts, check_weights
from storage.errors import WeightsRefused

FIRST_CONV = f"{UNET_PREFIX}input_blocks.0.0.weight"

_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_CONFIGS = frozenset({".json", ".txt"})
# Of the UNet, of the VAE, and of a text encoder's layers. What else a file holds, such as averages, has no place in a
# folder.
_OF_LAYERS = re.compile(
    rf"{re.escape(UNET_PREFIX)}|{re.escape(VAE_PREFIX)}(encoder|decoder)\."
    r"|con.+\.transformer\.(text_model\.)?(encoder\.layers|resblocks)\."
)
# Checked in this order: SDXL's file has names of more than one of them.
_FAMILIES = {"conditioner.embedders.1.": "sdxl", "cond_stage_model.transformer.": "sd1"}
_OTHERS = {
    "conditioner.embedders.0.model.": "it is SDXL's refiner, which is not fine-tuned here",
    "cond_stage_model.model.": "it is Stable Diffusion 2, which is no family here",
    "lora_": "it is a LoRA, not a base model",
    "unet.": "it has diffusers' names; add the folder that it came with",
    UNET_PREFIX: "it has no text encoder; add a file that holds the whole model",
}


def convert_single_file(file: Path, config: Path | None, target: Path) -> Path:
    """Write the diffusers folder of a base model's single file to `target`; returns it.

    `config` is a diffusers folder of the same family and shape, of which configs and tokenizers are read.
    Raises WeightsRefused when the file is no base model of a known family, or `config` does not fit it.
    """
    facts = check_weights(file)
    name = family_of(file.name, facts.tensors)
    family = family_named(name)
    if config is None:
        raise WeightsRefused(
            "config",
            f"{file.name} is of the family {name}; it holds no configs and no tokenizer. Name a diffusers folder that "
            "does, of any model of this family and shape: --config FOLDER",
        )
    plain = _plain_config(config, family.layout, target.with_name(f"{target.name}-config"))
    _load_and_save(file, facts, family, plain, target)
    _forget_paths(target)
    _note_prediction(target, facts.tensors)
    _refuse_difference(file, facts, family, target)
    return target


def family_of(file: str, names: Iterable[str]) -> str:
    """The family whose single file has tensors of these names. Raises WeightsRefused saying what else it is."""
    known = tuple(names)
    for start, family in _FAMILIES.items():
        if _any_starts(known, start) and _any_starts(known, UNET_PREFIX):
            return family
    what = (said for start, said in _OTHERS.items() if _any_starts(known, start))
    reason = next(what, "its tensors have names of none of them")
    families = " or ".join(sorted(_FAMILIES.values()))
    raise WeightsRefused("family", f"{file} is no single file of the family {families}: {reason}.")


def _any_starts(names: Iterable[str], start: str) -> bool:
    return any(name.startswith(start) for name in names)


def _plain_config(config: Path, layout: FamilyLayout, target: Path) -> Path:
    """Configs and tokenizers of the family's own parts alone: weights, code and other parts are not even looked at."""
    index = read_json(config, "model_index.json")
    if str(index.get("_class_name")) not in layout.pipelines:
        known = ", ".join(sorted(layout.pipelines))
        raise WeightsRefused("config", f"--config {config} is a {index.get('_class_name')}; the file needs {known}.")
    kept = {key: value for key, value in index.items() if key in layout.components or not isinstance(value, list)}
    for part, value in kept.items():
        # diffusers imports what stands here by its name.
        if isinstance(value, list) and cast(list[Any], value)[:1] not in (["diffusers"], ["transformers"]):
            raise WeightsRefused("config", f"--config {config} wants {part} of another library than diffusers' own.")
    for part in layout.components:
        if not (config / part).is_dir():
            raise WeightsRefused("config", f"--config {config} lacks {part}/. Name a whole diffusers folder.")
        (target / part).mkdir(parents=True)
        for path in (config / part).iterdir():
            if path.is_file() and path.suffix in _CONFIGS and not path.name.endswith(".index.json"):
                shutil.copyfile(path, target / part / path.name)
    (target / "model_index.json").write_text(json.dumps(kept, indent=2) + "\n")
    return target


def _load_and_save(file: Path, facts: WeightsFacts, family: Family, config: Path, target: Path) -> None:
    [pipeline] = family.layout.pipelines
    kind: Any = getattr(diffusers, pipeline)
    try:
        loaded = kind.from_single_file(
            str(file), config=str(config), local_files_only=True, torch_dtype=_dtype(file, facts)
        )
        loaded.save_pretrained(target, safe_serialization=True)
    # What diffusers raises for shapes that differ is of many classes, also of plain ones.
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise WeightsRefused(
            "config", f"{file.name} does not fit the configs that --config names: {str(error)[:300]}"
        ) from error


def _dtype(file: Path, facts: WeightsFacts) -> torch.dtype:
    """What most bytes of the UNet are in."""
    sizes = Counter[str]()
    for name, tensor in facts.tensors.items():
        if name.startswith(UNET_PREFIX):
            sizes[tensor.dtype] += tensor.end - tensor.begin
    found = sizes.most_common(1)[0][0]
    if found not in _DTYPES:
        raise WeightsRefused("dtype", f"{file.name} is in {found}; known here are {', '.join(sorted(_DTYPES))}.")
    return _DTYPES[found]


def _forget_paths(folder: Path) -> None:
    """Take the temporary folder's name out of the configs, so that the same file makes the same folder again."""
    for path in folder.rglob("*.json"):
        content: object = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "_name_or_path" in content:
            del content["_name_or_path"]
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _note_prediction(folder: Path, names: Mapping[str, object]) -> None:
    """What the file's marks say of its prediction, into the schedule: the config may be of a model without them."""
    if "v_pred" in names:
        schedule = read_schedule(folder) | {"prediction_type": "v_prediction"}
        if "ztsnr" in names:
            schedule["rescale_betas_zero_snr"] = True
        (folder / SCHEDULE_FILE).write_text(json.dumps(schedule, indent=2) + "\n")


def _refuse_difference(file: Path, facts: WeightsFacts, family: Family, folder: Path) -> None:
    """Raises WeightsRefused unless the folder's weights are the file's, all layers of every part among them."""
    parts = {name: tensors_of(folder / path) for name, path in family.layout.weight_files.items()}
    made = family.original_tensors(parts, read_schedule(folder))
    left = sorted(name for name in facts.tensors if _OF_LAYERS.match(name) and name not in made)
    if left:
        raise WeightsRefused("config", f"the configs that --config names have no place for '{left[0][:80]}'.")
    with safe_open(file, framework="pt") as stored:
        for name, tensor in made.items():
            if name.endswith("position_ids") or tensor.numel() == 0:
                continue
            own = stored.get_tensor(name) if name in facts.tensors else None
            # Files differ in whether the VAE's attention is linear or a convolution of one pixel.
            if own is None or not torch.equal(own.to(tensor.dtype).reshape(-1), tensor.reshape(-1)):
                raise WeightsRefused(
                    "config", f"{file.name} has another '{name[:80]}' than the configs that --config names ask for."
                )
