"""What the settings of a picture's `parameters` text say, as values: numbers, sizes, models and adapters."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, cast

import msgspec

_WHOLE = re.compile(r"\d{1,20}")
_SIZE = re.compile(r"(\d{1,6})\s?[xX×]\s?(\d{1,6})")
# ComfyUI counts layers from the end: its -2 is 2 of A1111's.
_LAYERS = re.compile(r"-?(\d{1,2})")
_CHECKPOINTS = frozenset({"checkpoint", "model"})


class DrawnResource(msgspec.Struct, frozen=True, kw_only=True):
    """A model or adapter that a text names; empty where it does not say."""

    kind: str = ""
    name: str = ""
    air: str = ""
    version_id: int | None = None
    weight: float | None = None
    hash: str = ""


class DrawnFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of how a picture was drawn; None and empty where the text does not say.

    `schedule_type` is empty where the text has it in the name of the `sampler`. `resources` are the adapters and
    whatever else is no checkpoint. `other` has the settings that are none of these, as they were written.
    """

    prompt: str = ""
    negative_prompt: str = ""
    steps: int | None = None
    sampler: str = ""
    schedule_type: str = ""
    eta: float | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    clip_skip: int | None = None
    strength: float | None = None
    operation: str = ""
    model: DrawnResource = DrawnResource()
    resources: tuple[DrawnResource, ...] = ()
    batch_shape: int | None = None
    backend: str = ""
    version: str = ""
    other: dict[str, str] = {}


def facts_of(settings: dict[str, Any], *, prompt: str, negative_prompt: str) -> DrawnFacts:
    """The facts of a settings line. What is not of its form stays in `other`."""
    rest = dict(settings)
    size, skipped = _taken(rest, "Size", _SIZE), _taken(rest, "Clip skip", _LAYERS)
    model, resources = _models(rest)
    return DrawnFacts(
        prompt=prompt,
        negative_prompt=negative_prompt,
        steps=_whole(rest, "Steps"),
        sampler=_text(rest, "Sampler"),
        # Savers of ComfyUI name its scheduler so.
        schedule_type=_text(rest, "Schedule type") or _text(rest, "Scheduler"),
        eta=_number(rest, "Eta DDIM", "Eta"),
        guidance_scale=_number(rest, "CFG scale"),
        guidance_rescale=_number(rest, "Guidance rescale"),
        seed=_whole(rest, "Seed"),
        width=int(size[1]) if size else None,
        height=int(size[2]) if size else None,
        clip_skip=int(skipped[1]) if skipped else None,
        strength=_number(rest, "Denoising strength"),
        operation=_text(rest, "Operation"),
        model=model,
        resources=resources,
        batch_shape=_whole(rest, "Batch shape"),
        backend=_text(rest, "Backend"),
        version=_text(rest, "Version"),
        other={key: _written(value) for key, value in rest.items()},
    )


def alias(name: str) -> str:
    """A name without what separates names and hashes, as lists of hashes have it."""
    return re.sub(r'[:,"\n]', "", name).strip()


def _taken(rest: dict[str, Any], key: str, form: re.Pattern[str]) -> re.Match[str] | None:
    """The value of a key that has this form, which is taken out."""
    value = rest.get(key)
    match = form.fullmatch(value) if isinstance(value, str) else None
    if match:
        del rest[key]
    return match


def _whole(rest: dict[str, Any], key: str) -> int | None:
    match = _taken(rest, key, _WHOLE)
    return int(match[0]) if match else None


def _number(rest: dict[str, Any], *keys: str) -> float | None:
    for key in keys:
        try:
            number = float(rest[key])
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(number):
            del rest[key]
            return number
    return None


def _text(rest: dict[str, Any], key: str) -> str:
    return rest.pop(key) if isinstance(rest.get(key), str) else ""


def _models(rest: dict[str, Any]) -> tuple[DrawnResource, tuple[DrawnResource, ...]]:
    """The checkpoint, and everything beside it, from four settings that each name a part of it."""
    listed = list(_listed(rest))
    checkpoint = next((one for one in listed if one.kind in _CHECKPOINTS), DrawnResource(kind="checkpoint"))
    beside = [one for one in listed if one.kind not in _CHECKPOINTS]
    hashes = dict(_hashes(rest))
    # Those of a lone checkpoint: A1111 writes neither a list nor other hashes where it draws without extensions.
    found = hashes.pop(("model", ""), "")
    model_hash, name = _text(rest, "Model hash") or found, _text(rest, "Model")
    checkpoint = msgspec.structs.replace(checkpoint, name=name or checkpoint.name, hash=model_hash)
    places = {alias(one.name): place for place, one in enumerate(beside)}
    for (kind, named), digest in hashes.items():
        place = places.get(alias(named)) if named else None
        if place is None:
            beside.append(DrawnResource(kind=kind, name=named, hash=digest))
        else:
            beside[place] = msgspec.structs.replace(beside[place], hash=digest)
    return checkpoint, tuple(beside)


def _listed(rest: dict[str, Any]) -> Iterator[DrawnResource]:
    """Civitai's list. Older entries have an AIR in place of a type and a number."""
    if not isinstance(rest.get("Civitai resources"), list):
        return
    for entry in cast(list[Any], rest.pop("Civitai resources")):
        if not isinstance(entry, dict):
            continue
        said = cast(dict[str, Any], entry)
        texts = {key: value for key, value in said.items() if isinstance(value, str)}
        version_id, weight = said.get("modelVersionId"), said.get("weight")
        typed = re.match(r"(?:urn:)?air:[\w/-]+:([\w/-]+):", texts.get("air", ""))
        yield DrawnResource(
            kind=(typed[1] if typed else texts.get("type", "")).lower(),
            name=texts.get("modelName", ""),
            air=texts.get("air", ""),
            version_id=version_id if type(version_id) is int and version_id > 0 else None,
            weight=float(weight) if isinstance(weight, int | float) and abs(weight) < 1e6 else None,
        )


def _hashes(rest: dict[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    """Hashes by kind and name: of `Hashes`, which extensions of Civitai write, then of A1111's own lists."""
    if isinstance(rest.get("Hashes"), dict):
        for key, digest in cast(dict[str, Any], rest.pop("Hashes")).items():
            kind, _, name = key.partition(":")
            if isinstance(digest, str):
                yield (kind.lower(), name), digest
    for key, kind in (("Lora hashes", "lora"), ("TI hashes", "embed")):
        for entry in _text(rest, key).split(","):
            name, separator, digest = entry.rpartition(":")
            if separator and name.strip():
                yield (kind, name.strip()), digest.strip()


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return ""
