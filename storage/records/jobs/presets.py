"""Presets: what each sets of a training, by model family and method, and how one fills a request.

This table is the only place: requests, forms and the page in docs/ follow from it. A preset sets memory against time,
and never what is learned, but for rounding: where it makes a base's batch smaller, accumulation makes up for it.
A test holds each row against the estimate for its card, and what is missing too.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from storage.errors import InvalidRequest
from storage.records.jobs.choices import ModelFamily, TrainingMethod, TrainingPreset
from storage.records.jobs.training import TrainingDefaults, TrainingOptions

T = TypeVar("T", bound=TrainingOptions)
Fields = Mapping[str, Any]

FULL, LORA = TrainingMethod.FULL, TrainingMethod.LORA
SD1, SDXL = ModelFamily.SD1, ModelFamily.SDXL

_PLAIN = {"precision": "fp32", "batch_size": 1, "split_backward": True}
_SMALL = {"precision": "bf16", "gradient_checkpointing": True, "batch_size": 1, "split_backward": True}
_MIDDLE = {"precision": "bf16", "gradient_checkpointing": False, "batch_size": 1, "split_backward": True}
_LARGE = {"precision": "bf16", "gradient_checkpointing": False, "batch_size": 1, "split_backward": False}
_EIGHT_BIT = {"optimizer": "adamw_8bit", "ema_decay": 0.0}

PRESETS: Mapping[TrainingPreset, Mapping[tuple[str, str], Fields]] = MappingProxyType(
    {
        # Without bf16: most CPUs compute it more slowly than float32.
        TrainingPreset.CPU: {
            (SD1, LORA): _PLAIN,
            (SD1, FULL): _PLAIN,
            (SDXL, LORA): {**_PLAIN, "gradient_checkpointing": True},
            (SDXL, FULL): {**_PLAIN, "gradient_checkpointing": True, **_EIGHT_BIT},
        },
        TrainingPreset.GPU_8GB: {(SD1, LORA): _SMALL},
        TrainingPreset.GPU_12GB: {(SD1, LORA): _LARGE, (SD1, FULL): {**_SMALL, **_EIGHT_BIT}},
        TrainingPreset.GPU_16GB: {
            (SD1, LORA): _LARGE,
            (SD1, FULL): {**_MIDDLE, **_EIGHT_BIT},
            (SDXL, LORA): _SMALL,
        },
        TrainingPreset.GPU_24GB: {(SD1, LORA): _LARGE, (SD1, FULL): _LARGE, (SDXL, LORA): _SMALL},
    }
)
"""Fields by preset, family and method. What is missing does not fit, or is of a family that no preset knows."""


def with_preset(request: T, family: str, base: TrainingDefaults) -> T:
    """The request with its preset's fields where it says nothing itself; unchanged without a preset.

    `base` are the base model's own defaults. The method is the request's, else the base model's own, else the first
    that the preset has for the family. Raises InvalidRequest naming what would fit.
    """
    if request.preset is None:
        return request
    methods = {method: fields for (of, method), fields in PRESETS[request.preset].items() if of == family}
    own = base.method if base.method in methods else next(iter(methods), base.method)
    method = request.method or own
    if method not in methods:
        raise InvalidRequest({"preset": _nothing_for(request.preset, family, method)})
    filled = {name: value for name, value in methods[method].items() if getattr(request, name) is None}
    if "batch_size" in filled and request.accumulation is None:
        filled["accumulation"] = base.accumulation * max(1, base.batch_size // filled["batch_size"])
    return msgspec.structs.replace(request, method=TrainingMethod(method), **filled)


def _nothing_for(preset: str, family: str, method: str) -> str:
    others = [f"{one} with method {how}" for one, rows in PRESETS.items() for of, how in rows if of == family]
    if not others:
        return f"no preset knows the family '{family}'; leave it out, and set precision and gradientCheckpointing"
    return (
        f"'{preset}' has no settings for method {method} of family {family}, which does not fit; available are: "
        f"{', '.join(others)}. Or leave the preset out, and train fewer weights with trainOnly"
    )
