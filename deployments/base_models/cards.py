"""What a base model folder says of itself: its family, its resolution, its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from flows.diffusion.families.lookup import family_named
from storage.errors import WeightsRefused
from storage.records.jobs.base_models import BaseModelCard
from storage.records.jobs.choices import LoraTargets, ModelFamily, TrainingMethod, TrainingOptimizer

MAX_JSON_BYTES = 32 * 1024 * 1024
CARD = "darkroom.json"


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file of the folder. Raises WeightsRefused."""
    path = folder / name
    if not path.is_file():
        raise WeightsRefused("missing", f"{name} is missing in {folder}. Save the whole pipeline with save_pretrained.")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise WeightsRefused("json", f"{name} has {path.stat().st_size:,} bytes; at most {MAX_JSON_BYTES:,} are read.")
    try:
        value: object = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WeightsRefused("json", f"{name} is not JSON: {error}. Get the file again.") from error
    if not isinstance(value, dict):
        raise WeightsRefused("json", f"{name} holds a {type(value).__name__} where an object is expected.")
    return cast(dict[str, Any], value)


def read_card(folder: Path) -> BaseModelCard:
    """darkroom.json, or what the folder's own configs say. Raises WeightsRefused."""
    factor = _factor(read_json(folder, "vae/config.json"))
    card = _written_card(folder) if (folder / CARD).is_file() else BaseModelCard(family=_family_of(folder))
    if card.family not in set(ModelFamily):
        raise WeightsRefused(
            "family", f"{CARD}: family '{card.family}' is not supported; supported: {', '.join(ModelFamily)}."
        )
    if not (folder / CARD).is_file():
        # sample_size counts latents; the VAE's factor makes pixels of them.
        sample_size = read_json(folder, "unet/config.json").get("sample_size")
        side = sample_size if isinstance(sample_size, int) else 64
        card = msgspec.structs.replace(card, resolution=side * factor)
    if card.resolution <= 0 or card.resolution % factor:
        raise WeightsRefused(
            "resolution", f"resolution {card.resolution} is not a positive multiple of {factor}, the VAE's reduction."
        )
    for name, choices in (
        ("method", TrainingMethod),
        ("optimizer", TrainingOptimizer),
        ("lora_targets", LoraTargets),
    ):
        if getattr(card.training, name) not in set(choices):
            asked, known = getattr(card.training, name), ", ".join(choices)
            raise WeightsRefused("card", f"{CARD}: training.{name} '{asked}' is unknown; known are: {known}.")
    return card


def _written_card(folder: Path) -> BaseModelCard:
    fields = read_json(folder, CARD)
    unknown = sorted(set(fields) - set(BaseModelCard.__struct_fields__))
    if unknown:
        known = ", ".join(BaseModelCard.__struct_fields__)
        raise WeightsRefused("card", f"{CARD}: unknown field {unknown[0]!r}; known are {known}.")
    try:
        # Only where the card does not say it: with the families comes torch, 7 s of a core and 450 MB of `darkroom up`.
        return msgspec.convert(
            fields if "family" in fields else {**fields, "family": _family_of(folder)}, BaseModelCard
        )
    except msgspec.ValidationError as error:
        raise WeightsRefused("card", f"{CARD}: {error}.") from error


def _family_of(folder: Path) -> str:
    """The first family whose pipeline model_index.json names; else the card's default, whose check says what is wrong.

    What is checked names the pipelines that are known: a folder of none of them is refused there.
    """
    pipeline = str(read_json(folder, "model_index.json").get("_class_name"))
    found = (name for name in ModelFamily if pipeline in family_named(name).layout.pipelines)
    return str(next(found, BaseModelCard().family))


def _factor(vae: Mapping[str, Any]) -> int:
    """Pixels of an image side for one of its latents."""
    widths = vae.get("block_out_channels")
    return 2 ** (len(cast(list[Any], widths)) - 1) if isinstance(widths, list) and widths else 8
