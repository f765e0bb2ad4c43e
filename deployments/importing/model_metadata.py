"""What a model file says of itself: in its metadata (kohya's `ss_*`, modelspec), else in the names of its tensors.

Sources of the keys: kohya-ss sd-scripts' train_network.py; Stability-AI ModelSpec 1.0.1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from storage.blobs.families import TEXT_IN
from storage.blobs.weights import WeightsFacts
from storage.records.catalog.vocabulary import ModelType
from storage.records.jobs.choices import ModelFamily, catalogue_name

MAX_TAGS = 10
MAX_WORDS = 10
OTHER = "Other"

_ARCHITECTURES = (
    (r"stable-diffusion-v1", "SD 1.5"),
    (r"stable-diffusion-v2", "SD 2.1"),
    (r"stable-diffusion-xl", "SDXL 1.0"),
    (r"stable-diffusion-v?3", "SD 3"),
    (r"flux-1-schnell", "Flux.1 S"),
    (r"flux", "Flux.1 D"),
)
_KOHYA = (
    (r"sd_?v?1", "SD 1.5"),
    (r"sd_?v?2", "SD 2.1"),
    (r"sdxl", "SDXL 1.0"),
    (r"sd_?v?3", "SD 3"),
    (r"flux", "Flux.1 D"),
)
# Lengths of the text vectors, which distinguish the bases.
_WIDTHS = {768: "SD 1.5", 1024: "SD 2.1", 2048: "SDXL 1.0"}
# The first that matches: a DoRA also holds a LoRA's tensors, a checkpoint a VAE's.
_TYPES = (
    (ModelType.DORA, r".*\.dora_scale|.*lora_magnitude_vector.*"),
    (ModelType.LOCON, r".*\.(hada_|lokr_|oft_).*"),
    (ModelType.LORA, r".*(lora_(up|down|A|B)|lora\.(up|down)|_lora\.(up|down)|lora_linear_layer).*"),
    (ModelType.CONTROLNET, r"(control_model|controlnet_\w+|input_hint_block)\..*"),
    (ModelType.CHECKPOINT, r"model\.diffusion_model\..*|unet\.conv_in\..*"),
    (ModelType.UNET, r"(down_blocks|double_blocks|transformer_blocks|joint_blocks)\..*"),
    (ModelType.VAE, r"(first_stage_model\.)?decoder\.conv_in\..*"),
    (ModelType.TEXT_ENCODER, r"(text_model\.)?encoder\.layers?\..*"),
)
_PLAIN_TAG = re.compile(r"[\w\-.+&' ]{1,100}")
_CONCEPT = re.compile(r"\d+_(.+)")


@dataclass(frozen=True)
class Described:
    """What a file says of itself. `steps`, `epochs` and `clip_skip` are None when it does not."""

    title: str | None
    type: ModelType
    base_model: str
    trained_words: tuple[str, ...]
    tags: tuple[str, ...]
    description: str
    steps: int | None
    epochs: int | None
    clip_skip: int | None


def describe(facts: WeightsFacts) -> Described:
    """What the metadata and the tensors of a sound file say of it."""
    metadata = facts.metadata
    kind = _type(facts)
    frequencies = _tag_frequencies(metadata)
    return Described(
        title=_first(metadata, "modelspec.title", "ss_output_name"),
        type=kind,
        base_model=_base_model(facts),
        trained_words=_trained_words(metadata, frequencies),
        tags=_tags(metadata, frequencies),
        description=_description(metadata),
        steps=_count(metadata, "ss_steps") or _count(metadata, "ss_max_train_steps"),
        epochs=_count(metadata, "ss_epoch") or _count(metadata, "ss_num_epochs"),
        clip_skip=_count(metadata, "ss_clip_skip", maximum=12),
    )


def _first(metadata: Mapping[str, str], *keys: str) -> str | None:
    """The first of these that says something; kohya writes None for what it was not given."""
    values = (_clean(metadata.get(key, "")) for key in keys)
    return next((value for value in values if value and value != "None"), None)


def _clean(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _count(metadata: Mapping[str, str], key: str, maximum: int = 100_000_000) -> int | None:
    text = metadata.get(key, "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= maximum else None


def _type(facts: WeightsFacts) -> ModelType:
    for kind, pattern in _TYPES:
        looks = re.compile(pattern)
        if any(looks.fullmatch(name) for name in facts.tensors):
            return kind
    shapes = [tensor.shape for tensor in facts.tensors.values()]
    widths = {768, 1024, 1280, 2048}
    if 0 < len(shapes) <= 3 and all(len(shape) == 2 and shape[1] in widths for shape in shapes):
        return ModelType.TEXTUAL_INVERSION
    return ModelType.OTHER


def _base_model(facts: WeightsFacts) -> str:
    metadata = facts.metadata
    family = _first(metadata, "ss_base_model_version")
    if family in set(ModelFamily):  # a fine-tune of this platform
        side = _first(metadata, "ss_resolution") or ""
        return catalogue_name(str(family), int(re.sub(r"\D.*", "", side) or 0))
    for key, known in (("modelspec.architecture", _ARCHITECTURES), ("ss_base_model_version", _KOHYA)):
        text = (_first(metadata, key) or "").lower()
        for pattern, name in known:
            if text and re.match(pattern, text):
                return name
    return _base_by_tensors(facts)


def _base_by_tensors(facts: WeightsFacts) -> str:
    for name, tensor in facts.tensors.items():
        if name.startswith("lora_te2_"):
            return "SDXL 1.0"
        if "double_blocks" in name:
            return "Flux.1 D"
        if TEXT_IN.search(name) and len(tensor.shape) == 2:
            return _WIDTHS.get(tensor.shape[1], OTHER)
    return OTHER


def _tag_frequencies(metadata: Mapping[str, str]) -> Mapping[str, Mapping[str, int]]:
    """kohya's `ss_tag_frequency`: folder to tag to how many images have it. Empty when it is anything else."""
    try:
        found = msgspec.json.decode(metadata.get("ss_tag_frequency", "{}"), type=dict[str, dict[str, int]])
    except (msgspec.DecodeError, RecursionError):
        return {}
    return {folder: {_clean(tag): count for tag, count in tags.items()} for folder, tags in found.items()}


def _concepts(metadata: Mapping[str, str], frequencies: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """What the folders of the training images are named for: kohya's `10_sks dog` repeats `sks dog` ten times."""
    folders = [*frequencies, *_keys(metadata.get("ss_dataset_dirs", "{}"))]
    for folder in folders:
        match = _CONCEPT.fullmatch(folder)
        if match:
            yield _clean(match.group(1))


def _keys(text: str) -> list[str]:
    try:
        found: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return []
    return list(cast(dict[str, Any], found)) if isinstance(found, dict) else []


def _trained_words(metadata: Mapping[str, str], frequencies: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """The trigger phrase, else what the image folders are named for with the tags that all of their images have."""
    phrase = _first(metadata, "modelspec.trigger_phrase")
    if phrase:
        return (phrase[:300],)
    everywhere = [tag for tags in frequencies.values() for tag in _most_frequent(tags)]
    words = [word for word in dict.fromkeys((*_concepts(metadata, frequencies), *everywhere)) if 0 < len(word) <= 300]
    return tuple(words[:MAX_WORDS])


def _most_frequent(tags: Mapping[str, int]) -> list[str]:
    """Those that most images have; captions that each stand with one image alone are no words to trigger by."""
    maximum = max(tags.values(), default=0)
    return [tag for tag, count in tags.items() if count == maximum > 1]


def _tags(metadata: Mapping[str, str], frequencies: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    counts = Counter[str]()
    for tags in frequencies.values():
        counts.update(tags)
    own = (_first(metadata, "modelspec.tags") or "").split(",")
    return plain_tags([*own, *(tag for tag, _ in counts.most_common(MAX_TAGS))])


def plain_tags(names: list[str]) -> tuple[str, ...]:
    """Those of the names that the catalogue takes as tags, in its form."""
    lower = (_clean(name).lower() for name in names)
    return tuple(dict.fromkeys(name for name in lower if _PLAIN_TAG.fullmatch(name)))[: 2 * MAX_TAGS]


_FACTS = (
    ("ss_network_module", "network"),
    ("ss_network_dim", "rank"),
    ("ss_network_alpha", "alpha"),
    ("ss_sd_model_name", "trained on"),
    ("ss_num_train_images", "images"),
    ("ss_learning_rate", "learning rate"),
    ("modelspec.author", "by"),
    ("modelspec.license", "licence"),
)


def _description(metadata: Mapping[str, str]) -> str:
    facts = [f"{label} {value}" for key, label in _FACTS if (value := _first(metadata, key))]
    own = _first(metadata, "modelspec.description") or ""
    return "\n".join(filter(None, [own, ", ".join(facts)]))[:15_000]
