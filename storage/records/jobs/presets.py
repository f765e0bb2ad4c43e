"""Presets: what each sets of a training, by model family and method, and how one fills a request.

This table is the only place: requests, forms and the page in docs/ follow from it. A preset sets memory against time,
and never what is learned, but for rounding: where it makes a base's batch smaller, accumulation makes up for it, and an
8-bit optimizer stands for the same one in 32 bits only; beside an adapter the base's weights may be rounded to 16 bits,
by which class images and samples are drawn too. Method and moving average stay the base's, or it is refused.
A test holds each row against the estimate for its card with the estimate's margin, and what is missing too.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from storage.errors import InvalidRequest
from storage.records.jobs.choices import ModelFamily, TrainingMethod, TrainingOptimizer, TrainingPreset
from storage.records.jobs.training import TrainingDefaults, TrainingOptions

T = TypeVar("T", bound=TrainingOptions)
Fields = Mapping[str, Any]

FULL, LORA = TrainingMethod.FULL, TrainingMethod.LORA
SD1, SDXL = ModelFamily.SD1, ModelFamily.SDXL

_PLAIN = {"precision": "fp32", "batch_size": 1, "split_backward": True}
# All weights in 16 bits beside those in 32 take more than the activations of one checkpointed image save.
_LEAST = {"precision": "fp32", "gradient_checkpointing": True, "batch_size": 1, "split_backward": True}
_SMALL = {"precision": "bf16", "gradient_checkpointing": True, "batch_size": 1, "split_backward": True}
_MIDDLE = {"precision": "bf16", "gradient_checkpointing": False, "batch_size": 1, "split_backward": True}
_LARGE = {"precision": "bf16", "gradient_checkpointing": False, "batch_size": 1, "split_backward": False}
_EIGHT_BIT = {"optimizer": "adamw_8bit"}
# An adapter beside a base in 16 bits.
_HALF_BASE = {**_SMALL, "frozen_precision": "bf16"}
_STANDS_FOR = {TrainingOptimizer.ADAMW_8BIT.value: TrainingOptimizer.ADAMW.value}

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
        TrainingPreset.GPU_12GB: {
            (SD1, LORA): _LARGE,
            (SD1, FULL): {**_LEAST, **_EIGHT_BIT},
            (SDXL, LORA): {**_HALF_BASE, **_EIGHT_BIT},
        },
        TrainingPreset.GPU_16GB: {
            (SD1, LORA): _LARGE,
            (SD1, FULL): {**_MIDDLE, **_EIGHT_BIT},
            (SDXL, LORA): _HALF_BASE,
        },
        TrainingPreset.GPU_24GB: {(SD1, LORA): _LARGE, (SD1, FULL): _LARGE, (SDXL, LORA): _SMALL},
    }
)
"""Fields by preset, family and method. What is missing does not fit, or is of a family that no preset knows."""


def with_preset(request: T, family: str, base: TrainingDefaults) -> T:
    """The request with its preset's fields where it says nothing itself; unchanged without a preset.

    `base` are the base model's own defaults. Raises InvalidRequest naming what would fit.
    """
    if request.preset is None:
        return request
    method = request.method or base.method
    row = PRESETS[request.preset].get((family, method))
    if row is None:
        raise InvalidRequest({"preset": _nothing_for(request.preset, family, method, asked=request.method is not None)})
    if fault := _what_the_base_has(request, row, base):
        raise InvalidRequest({"preset": fault})
    filled = {name: value for name, value in row.items() if getattr(request, name) is None}
    if "batch_size" in filled and request.accumulation is None:
        filled["accumulation"] = base.accumulation * max(1, base.batch_size // filled["batch_size"])
    return msgspec.structs.replace(request, method=TrainingMethod(method), **filled)


def _what_the_base_has(request: TrainingOptions, row: Fields, base: TrainingDefaults) -> str:
    """Why the row cannot be filled in beside what the base model says of itself, or nothing."""
    optimizer = row.get("optimizer")
    if optimizer is None or request.preset is None:
        return ""
    if request.optimizer is None and base.optimizer not in (optimizer, _STANDS_FOR[optimizer]):
        return (
            f"'{request.preset}' has room for optimizer {optimizer} only, and this base model's own is "
            f"{base.optimizer}; a preset changes no optimizer for another: set optimizer and learningRate yourself"
        )
    if request.preset.card_gib and request.ema_decay is None and base.ema_decay > 0:
        return (
            f"'{request.preset}' has no room for this base model's moving average (emaDecay {base.ema_decay:g}); "
            "set emaDecay: 0 to train without one"
        )
    return ""


def _nothing_for(preset: str, family: str, method: str, *, asked: bool) -> str:
    rows = [(one.value, str(how)) for one, places in PRESETS.items() for of, how in places if of == family]
    if not rows:
        return f"no preset knows the family '{family}'; leave it out, and set precision and gradientCheckpointing"
    whose = "method" if asked else "this base model's own method"
    here = [how for one, how in rows if one == preset]
    instead = f" Set method: {here[0]} to train that on it." if here else ""
    fewer = ", and train fewer weights with trainOnly" if method == FULL.value else ""
    return (
        f"'{preset}' has no settings for {whose} {method} of family {family}, which does not fit.{instead} "
        f"Available are: {', '.join(f'{one} with method {how}' for one, how in rows)}. Or leave the preset out{fewer}"
    )
