"""What of a model a training changes: its fields in a request, and what of them fits together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from storage.errors import InvalidRequest
from storage.records.jobs.choices import LoraTargets, TrainingMethod

MAX_PATTERNS = 50
"""Of trainOnly: each is tried with every name of a model."""

TrainOnly = Annotated[
    str,
    Meta(
        max_length=1_000,
        description="Patterns of parameter names, separated by commas (at most 50), such as unet.*attn2*: what none of "
        "them matches stays frozen.",
        examples=["unet.*attn2*"],
        extra={"default": "all that the method trains"},
    ),
]
TextEncoderSteps = Annotated[
    int,
    Meta(
        ge=0,
        le=20_000,
        description="Steps after which the text encoder is frozen; 0: never.",
        examples=[400],
        extra={"unit": "optimizer steps"},
    ),
]
FrozenFormat = Literal["fp32", "bf16", "fp16"]
FrozenPrecision = Annotated[
    FrozenFormat,
    Meta(
        description="Number format of the frozen UNet and text encoders beside an adapter (method lora only; the VAE "
        "stays fp32). bf16 and fp16 halve their memory and round the base, also for class images, samples and "
        "evaluation."
    ),
]
LoraRank = Annotated[
    int,
    Meta(
        ge=1,
        le=512,
        description="Rank of an adapter's two matrices.",
        examples=[16],
        extra={"unit": "dimensions"},
    ),
]
LoraAlpha = Annotated[
    float,
    Meta(
        ge=0.0,
        le=4_096.0,
        description="An adapter is scaled by alpha / rank; 0 is alpha = rank, a scale of 1.",
        examples=[16.0],
        extra={"unit": "dimensions", "default": "the rank"},
    ),
]
LoraDropout = Annotated[
    float,
    Meta(
        ge=0.0,
        le=0.95,
        description="Part of an adapter's inputs that a step leaves out.",
        examples=[0.1],
        extra={"unit": "share of the inputs, 0 to 1"},
    ),
]
LoraDora = Annotated[bool, Meta(description="Also learn the magnitude of each weight's output rows (DoRA); slower.")]
LoraConv = Annotated[bool, Meta(description="Adapters also on the convolutions of the UNet's residual blocks.")]
TargetLayers = Annotated[LoraTargets, Meta(description="Which layers get an adapter.")]


class PartSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What of a model trains, as a base model's defaults and a recipe say it.

    Names are matched from their component on: `unet.down_blocks.0...`, `text_encoder.encoder.layers.0...`.
    """

    train_only: str = ""
    text_encoder_steps: int = 0
    lora_rank: int = 16
    lora_alpha: float = 0.0
    lora_dropout: float = 0.0
    lora_dora: bool = False
    lora_conv: bool = False
    lora_targets: str = LoraTargets.ATTENTION.value


def defaults_of_method(method: str, training: Any) -> Any:
    """A base model's defaults for a method; its rates are of its own method, and an adapter's are others.

    `training` has the fields of TrainingDefaults.
    """
    if training.method == method:
        return training
    facts = TrainingMethod.known(method)
    if facts.adapter:
        return msgspec.structs.replace(training, learning_rate=facts.learning_rate, token_learning_rate=0.0)
    return msgspec.structs.replace(
        training,
        learning_rate=facts.learning_rate,
        text_encoder_learning_rate=0.0,
        token_learning_rate=0.0,
        frozen_precision="fp32",
    )


def refuse_options_of_another_method(request: msgspec.Struct, values: Mapping[str, Any]) -> None:
    """Refuse what the method would not do, and patterns without measure. `values` are a recipe's, by field.

    Raises InvalidRequest naming every field that does not fit.
    """
    wrong: dict[str, str] = {}
    adapter = TrainingMethod.known(values["method"]).adapter
    if adapter and values["token_learning_rate"] > 0:
        wrong["tokenLearningRate"] = (
            f"must be 0 with the method {values['method']}: an adapter's file has no place for rows of the embedding "
            "table. To train the identifier's embedding, use the method full"
        )
    if not adapter and values["frozen_precision"] != "fp32":
        wrong["frozenPrecision"] = (
            f"must be fp32 with the method {values['method']}: updates that small would be lost to 16-bit rounding. "
            "For less memory use the method lora, or optimizer: adamw_8bit"
        )
    trains_text = values["text_encoder_learning_rate"] > 0 or values["token_learning_rate"] > 0
    if getattr(request, "text_encoder_steps", None) and not trains_text:
        with_token = "" if adapter else " or tokenLearningRate"
        wrong["textEncoderSteps"] = (
            f"ends the training of a text encoder, and none trains: set textEncoderLearningRate{with_token} above 0, "
            "or leave it out"
        )
    if (patterns := len(patterns_of(values["train_only"]))) > MAX_PATTERNS:
        wrong["trainOnly"] = f"has {patterns} patterns, and {MAX_PATTERNS} are the most; let some match more (*)"
    if not adapter:
        for field in msgspec.structs.fields(request):
            if field.name.startswith("lora_") and getattr(request, field.name) is not None:
                wrong[field.encode_name] = "is of the method lora alone; leave it out, or ask for that method"
    if wrong:
        raise InvalidRequest(wrong)


def patterns_of(train_only: str) -> tuple[str, ...]:
    """The patterns that a request separates by commas."""
    return tuple(pattern.strip() for pattern in train_only.split(",") if pattern.strip())


def matches(train_only: str, name: str) -> bool:
    """Whether a name, such as `unet.conv_in.weight`, is of one of the patterns; none at all match every name.

    Patterns are those of a shell (`*`, `?`, `[...]`), separated by commas.
    """
    patterns = _compiled(train_only)
    return not patterns or any(pattern.match(name) for pattern in patterns)


# A model has thousands of names, and fnmatch itself keeps no more than some patterns in compiled form.
@lru_cache(maxsize=16)
def _compiled(train_only: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(translate(pattern)) for pattern in patterns_of(train_only))
