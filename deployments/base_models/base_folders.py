"""A base model folder in diffusers layout: which of its files the platform takes, and why a folder is refused.

Nothing in it is run or loaded: JSON is parsed, weights are read by their headers. Only safetensors pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from flows.diffusion.families.layout import FamilyLayout
from flows.diffusion.families.lookup import family_named
from storage.blobs.other_formats import CONVERT_FOLDER, PICKLE_SUFFIXES
from storage.blobs.weights import check_weights
from storage.errors import WeightsRefused
from storage.records.jobs.base_models import BaseModelCard
from storage.records.jobs.choices import ModelFamily, TrainingMethod, TrainingOptimizer

MAX_FILES = 500
MAX_JSON_BYTES = 32 * 1024 * 1024
CODE = frozenset({".py", ".pyc", ".so", ".dll", ".sh", ".exe"})
TEXTS = frozenset({".json", ".txt", ".md"})
# I64 is for position_ids, which CLIP's files hold beside their weights.
FLOATS = frozenset({"F16", "BF16", "F32", "F64", "I64"})
JUDGE = "judge"

_PLAIN_PATH = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*(/[A-Za-z0-9_+-][A-Za-z0-9._+-]*)*")


@dataclass(frozen=True)
class BaseFolder:
    """A folder that passed: the paths inside it that are taken, and those that the platform does not need."""

    path: Path
    card: BaseModelCard
    files: tuple[str, ...]
    left_out: tuple[str, ...]


def check_base_folder(folder: Path) -> BaseFolder:
    """What a base model folder holds. Raises WeightsRefused with what to do about it."""
    if not folder.is_dir():
        raise WeightsRefused("no_folder", f"{folder} is not a folder. Give a model folder in diffusers layout.")
    if not (folder / "model_index.json").is_file():
        raise WeightsRefused(
            "no_index",
            f"{folder} has no model_index.json, so it is not in diffusers layout. A single .safetensors or .ckpt file "
            "becomes such a folder with StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER).",
        )
    paths = tuple(sorted(_walk(folder)))
    index = read_json(folder, "model_index.json")
    named = {part for part, kind in index.items() if isinstance(kind, list) and kind and kind[0] is not None}
    card = read_card(folder)
    layout = family_named(card.family).layout
    _refuse_wrong_pipeline(index, card, layout)
    _refuse_wrong_components(folder, index, layout)
    taken = tuple(path for path in paths if _is_taken(path, named | {JUDGE}, layout, paths))
    _check_files(folder, taken, layout)
    return BaseFolder(folder, card, taken, tuple(path for path in paths if path not in taken))


def shipped_folder(folder: Path) -> BaseFolder:
    """A folder that comes with the project, whose tests have checked it. Nothing heavy is imported: it is the family
    that knows what its folders look like, and with it comes torch. Raises WeightsRefused."""
    taken, paths = TEXTS | {".safetensors"}, sorted(_walk(folder))
    files = tuple(path for path in paths if Path(path).suffix in taken or path.startswith("LICENSE"))
    return BaseFolder(folder, read_card(folder), files, tuple(path for path in paths if path not in files))


def _walk(folder: Path) -> Iterator[str]:
    """Every file's path inside the folder; hidden ones (.git, .gitattributes) are passed over."""
    count = 0
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts):
            continue
        name = inside.as_posix()
        # A link may lead anywhere on this machine. Folders of the Hugging Face cache consist of links, so cp -L is
        # named.
        if path.is_symlink():
            raise WeightsRefused(
                "link", f"{name} is a link. Copy the folder with its files and give the copy: cp -rL {folder} COPY"
            )
        if path.is_dir():
            continue
        if not path.is_file() or not _PLAIN_PATH.fullmatch(name):
            raise WeightsRefused("file_name", f"{name!r} is not a plain file with a plain name. Take it out.")
        if path.suffix.lower() in CODE:
            raise WeightsRefused("code", f"{name} is code; a base model folder holds none. Take it out.")
        count += 1
        if count > MAX_FILES:
            raise WeightsRefused("too_many_files", f"{folder} holds more than {MAX_FILES} files. Is it a model folder?")
        yield name


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
    if (folder / "darkroom.json").is_file():
        fields = read_json(folder, "darkroom.json")
        unknown = sorted(set(fields) - set(BaseModelCard.__struct_fields__))
        if unknown:
            known = ", ".join(BaseModelCard.__struct_fields__)
            raise WeightsRefused("card", f"darkroom.json: unknown field {unknown[0]!r}; known are {known}.")
        try:
            card = msgspec.convert(fields, BaseModelCard)
        except msgspec.ValidationError as error:
            raise WeightsRefused("card", f"darkroom.json: {error}.") from error
    else:
        sample_size = read_json(folder, "unet/config.json").get("sample_size")
        # sample_size counts latents; the VAE's factor makes pixels of them.
        card = BaseModelCard(resolution=(sample_size if isinstance(sample_size, int) else 64) * factor)
    if card.family not in set(ModelFamily):
        raise WeightsRefused(
            "family", f"darkroom.json: family '{card.family}' is not supported; supported: {', '.join(ModelFamily)}."
        )
    if card.resolution <= 0 or card.resolution % factor:
        raise WeightsRefused(
            "resolution", f"resolution {card.resolution} is not a positive multiple of {factor}, the VAE's reduction."
        )
    for name, choices in (("method", TrainingMethod), ("optimizer", TrainingOptimizer)):
        if getattr(card.training, name) not in set(choices):
            asked, known = getattr(card.training, name), ", ".join(choices)
            raise WeightsRefused("card", f"darkroom.json: training.{name} '{asked}' is unknown; known are: {known}.")
    return card


def _refuse_wrong_pipeline(index: Mapping[str, Any], card: BaseModelCard, layout: FamilyLayout) -> None:
    pipeline = index.get("_class_name")
    if pipeline not in layout.pipelines:
        known = ", ".join(sorted(layout.pipelines))
        raise WeightsRefused("pipeline", f"model_index.json names {pipeline}; family {card.family} needs {known}.")


def _factor(vae: Mapping[str, Any]) -> int:
    """Pixels of an image side for one of its latents."""
    widths = vae.get("block_out_channels")
    return 2 ** (len(cast(list[Any], widths)) - 1) if isinstance(widths, list) and widths else 8


def _refuse_wrong_components(folder: Path, index: Mapping[str, Any], layout: FamilyLayout) -> None:
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
    text = read_json(folder, "text_encoder/config.json")
    if unet.get("in_channels", 4) != vae.get("latent_channels", 4):
        raise WeightsRefused(
            "component",
            f"the UNet takes {unet.get('in_channels')} channels but the VAE makes {vae.get('latent_channels')}: "
            "an inpainting or depth model cannot be fine-tuned here.",
        )
    if unet.get("cross_attention_dim") != text.get("hidden_size"):
        raise WeightsRefused(
            "component",
            f"the UNet attends to vectors of {unet.get('cross_attention_dim')} but the text encoder makes "
            f"{text.get('hidden_size')}: the parts are of different models.",
        )


def _is_taken(path: str, parts: set[str], layout: FamilyLayout, paths: tuple[str, ...]) -> bool:
    """Whether the platform needs the file. Raises WeightsRefused for pickles without a safetensors twin."""
    part, _, name = path.rpartition("/")
    suffix = Path(name).suffix.lower()
    weights = _weights_name(part, layout)
    if suffix in PICKLE_SUFFIXES:
        twins = {str(Path(path).with_suffix(".safetensors")), f"{part}/{weights}"}
        if twins.isdisjoint(paths):
            raise WeightsRefused("pickle", f"{path} is a pickle, which can run code. {CONVERT_FOLDER}")
        return False
    if not part:
        return name in ("model_index.json", "darkroom.json", "README.md") or name.startswith("LICENSE")
    if part.split("/")[0] not in parts:
        return False
    if suffix == ".safetensors":
        return part == JUDGE or name == weights
    # An index lists the shards of weights, and shards are not read.
    return suffix in TEXTS and not name.endswith(".index.json")


def _weights_name(part: str, layout: FamilyLayout) -> str:
    known = layout.components.get(part)
    return (known.weights if known else None) or "model.safetensors"


def _check_files(folder: Path, taken: tuple[str, ...], layout: FamilyLayout) -> None:
    for name, component in layout.components.items():
        if component.weights and f"{name}/{component.weights}" not in taken:
            raise WeightsRefused(
                "missing",
                f"{name}/{component.weights} is missing. Variants (.fp16.) and shards are not read: save the pipeline "
                "with save_pretrained(FOLDER, safe_serialization=True, max_shard_size='50GB').",
            )
    for path in taken:
        if path.endswith(".safetensors"):
            component = layout.components.get(path.split("/")[0])
            try:
                check_weights(folder / path, names=component.tensors if component else None, dtypes=FLOATS)
            except WeightsRefused as refusal:
                raise WeightsRefused(refusal.reason, f"{path.rpartition('/')[0]}/{refusal}") from refusal
        elif path.endswith(".json"):
            read_json(folder, path)
