"""Whether the parts of a base model folder are of one model, and all there: by its configs and the headers of its
weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from deployments.base_models.cards import read_json
from flows.diffusion.families.layout import Component, FamilyLayout, index_of, read_index, weight_files_of
from flows.diffusion.families.lookup import family_named
from storage.blobs.weights import check_weights
from storage.errors import WeightsRefused
from storage.records.jobs.base_models import BaseModelCard
from storage.records.jobs.choices import ModelFamily

if TYPE_CHECKING:  # it imports torch
    from flows.diffusion.families.protocol import Family

# I64 is for position_ids, which CLIP's files hold beside their weights.
FLOATS = frozenset({"F16", "BF16", "F32", "F64", "I64"})
PARTS = "the parts are of different models."


def refuse_wrong_pipeline(index: Mapping[str, Any], card: BaseModelCard, layout: FamilyLayout) -> None:
    """Raises WeightsRefused when model_index.json names a pipeline of another family, or of none."""
    pipeline = str(index.get("_class_name"))
    if pipeline in layout.pipelines:
        return
    families = {name: family_named(name).layout.pipelines for name in ModelFamily}
    every = ", ".join(f"{one} ({name})" for name, pipelines in families.items() for one in sorted(pipelines))
    known = ", ".join(sorted(layout.pipelines))
    raise WeightsRefused(
        "pipeline", f"model_index.json names {pipeline}; family {card.family} needs {known}. Known here are: {every}."
    )


def refuse_wrong_components(folder: Path, index: Mapping[str, Any], layout: FamilyLayout) -> None:
    """Raises WeightsRefused when a part is missing, of another class, or does not fit the others."""
    for name, component in layout.components.items():
        entry: object = index.get(name)
        # model_index.json names a part as [library, class].
        found = cast(list[object], entry)[-1] if isinstance(entry, list) and entry else None
        if found is None or not (folder / name).is_dir():
            raise WeightsRefused("missing", f"{name}/ is missing in {folder}. Save the whole pipeline.")
        if component.classes and found not in component.classes:
            known = " or ".join(sorted(component.classes))
            raise WeightsRefused("component", f"model_index.json: {name} is {found}; this family needs {known}.")
    unet, vae = read_json(folder, "unet/config.json"), read_json(folder, "vae/config.json")
    texts = [read_json(folder, f"{name}/config.json") for name in layout.text_encoders]
    if unet.get("in_channels", 4) != vae.get("latent_channels", 4):
        raise WeightsRefused(
            "component",
            f"the UNet takes {unet.get('in_channels')} channels but the VAE makes {vae.get('latent_channels')}: "
            "an inpainting or depth model cannot be fine-tuned here.",
        )
    for name in ("latents_mean", "latents_std", "shift_factor"):
        if vae.get(name) is not None:
            raise WeightsRefused("component", f"vae/config.json has {name}, by which latents are not scaled here.")
    widths = [text.get("hidden_size") for text in texts]
    if unet.get("cross_attention_dim") != sum(width for width in widths if isinstance(width, int)):
        made = " and ".join(map(str, widths))
        raise WeightsRefused(
            "component",
            f"the UNet attends to vectors of {unet.get('cross_attention_dim')} but the text encoder makes {made}: "
            + PARTS,
        )
    _refuse_wrong_added_vector(unet, texts[-1])


def _refuse_wrong_added_vector(unet: Mapping[str, Any], text: Mapping[str, Any]) -> None:
    """The vector that SDXL's UNet takes beside the words: six sizes and the last encoder's pooled vector."""
    if unet.get("addition_embed_type") is None:
        return
    takes = unet.get("projection_class_embeddings_input_dim")
    sizes, pooled = unet.get("addition_time_embed_dim"), text.get("projection_dim")
    if not isinstance(sizes, int) or not isinstance(pooled, int) or takes != 6 * sizes + pooled:
        raise WeightsRefused(
            "component",
            f"the UNet takes an added vector of {takes}, not of 6 times {sizes} for sizes and {pooled} for words: "
            + PARTS,
        )


def weights_of(folder: Path, layout: FamilyLayout) -> frozenset[str]:
    """Paths inside the folder of every weights file that is taken, and of the indexes of shards.

    Raises WeightsRefused naming one that is missing.
    """
    taken: set[str] = set()
    for name, component in layout.components.items():
        if component.weights:
            whole = folder / name / component.weights
            files = weight_files_of(whole)
            missing = [file for file in files if not file.is_file()]
            if missing:
                raise _missing(folder, missing[0], sharded=missing[0] != whole)
            taken |= {str(file.relative_to(folder)) for file in files}
            if files != (whole,):
                taken.add(str(index_of(whole).relative_to(folder)))
    return frozenset(taken)


def check_weight_files(folder: Path, family: Family) -> None:
    """Every weights file by its header. Raises WeightsRefused for one that is not sound, or not of this family."""
    held: dict[str, list[str]] = {}
    for name, component in family.layout.components.items():
        if component.weights:
            held[name] = _names_in(folder / name / component.weights, component)
    # Here, not after the training: its result is also written as one file of the family's own names.
    family.check_names(held)


def _names_in(whole: Path, component: Component) -> list[str]:
    """The names of a part's tensors. A shard holds what the index says, no more and no less."""
    files = weight_files_of(whole)
    where = read_index(index_of(whole)).weight_map if files != (whole,) else {}
    names: list[str] = []
    for file in files:
        called = f"{file.parent.name}/{file.name}"
        found = check_weights(file, names=component.tensors, dtypes=FLOATS, called=called).tensors
        wanted = {name for name, shard in where.items() if shard == file.name}
        if where and wanted != set(found):
            odd = sorted(wanted ^ set(found))[0]
            raise WeightsRefused("shard", f"{called} and its index disagree on '{odd[:80]}'. Get both files again.")
        names += found
    return names


def _missing(folder: Path, file: Path, *, sharded: bool) -> WeightsRefused:
    name = file.relative_to(folder)
    if sharded:
        return WeightsRefused("missing", f"{name} is missing; the index beside it names it as a shard. Get it too.")
    return WeightsRefused(
        "missing",
        f"{name} is missing. Variants (.fp16.) are not read: save the pipeline with "
        "save_pretrained(FOLDER, safe_serialization=True).",
    )
