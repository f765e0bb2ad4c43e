"""What a step trains on, and how it is added up: its fields in a request, and what of them fits together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from storage.errors import InvalidRequest

Accumulation = Annotated[
    int,
    Meta(
        ge=1,
        le=256,
        description="Micro-batches of batchSize whose gradients make one optimizer step.",
        examples=[4],
        extra={"unit": "micro-batches"},
    ),
]
SplitBackward = Annotated[
    bool, Meta(description="A pass each for instance and prior loss: the same gradients from half the activations.")
]
SnrGamma = Annotated[
    float,
    Meta(
        ge=0.0,
        le=100.0,
        description="Gamma of min-SNR weights of the loss, 5 in the paper; 0 weights all timesteps alike.",
        examples=[5.0],
        extra={"unit": "signal-to-noise ratio"},
    ),
]
NoiseOffset = Annotated[
    float,
    Meta(
        ge=0.0,
        le=1.0,
        description="Noise of one value a channel that is added, 0.05 or so; 0 is off.",
        examples=[0.05],
        extra={"unit": "standard deviations"},
    ),
]
CaptionDropout = Annotated[
    float,
    Meta(
        ge=0.0,
        le=1.0,
        description="Share of samples that train without their prompt.",
        examples=[0.1],
        extra={"unit": "share of the samples, 0 to 1"},
    ),
]
Bucketing = Annotated[
    bool, Meta(description="Keep the photos' aspect ratios, each in the nearest shape; else their middle square.")
]
BucketStep = Annotated[
    int,
    Meta(
        ge=0,
        le=512,
        multiple_of=8,
        description="Pixels: sides of shapes are multiples of it; 0 is 64, for small bases less.",
        examples=[64],
        extra={"unit": "pixels"},
    ),
]
BucketMinSide = Annotated[
    int,
    Meta(
        ge=0,
        le=4096,
        description="Pixels of a shape's shortest side; 0 is half the base's resolution.",
        examples=[256],
        extra={"unit": "pixels"},
    ),
]
BucketMaxSide = Annotated[
    int,
    Meta(
        ge=0,
        le=8192,
        description="Pixels of a shape's longest side; 0 is twice the base's resolution.",
        examples=[1024],
        extra={"unit": "pixels"},
    ),
]
RandomCrop = Annotated[bool, Meta(description="Crop photos at random places instead of in the middle.")]
CachedCrops = Annotated[
    int,
    Meta(
        ge=1,
        le=64,
        description="Random crops of each photo, all encoded before the first step.",
        examples=[4],
        extra={"unit": "crops of a photo"},
    ),
]
RandomFlip = Annotated[
    bool, Meta(description="Mirror every other sample; not for writing or anything with a left side.")
]


def shape_step(asked: int, resolution: int) -> int:
    """Pixels that the sides of shapes are multiples of: an eighth of a base that draws less than 512 pixels."""
    return asked or max(8, min(64, resolution // 64 * 8))


def shape_sides(shortest: int, longest: int, resolution: int) -> tuple[int, int]:
    """Pixels of the shortest and of the longest side that a shape may have."""
    return shortest or resolution // 2, longest or resolution * 2


def fault_of_identifier(identifier: str, class_word: str) -> str:
    """Why a word cannot stand for the subject among things of its class; empty where it can."""
    if not re.fullmatch(r"[A-Za-z0-9]+", identifier):
        return "must be one rare word of letters and digits, for example: sks"
    if identifier.lower() in re.split(r"[ '\-]", class_word.lower()):
        return (
            f"'{identifier}' is a word of the class '{class_word}', and photos and class images would have one prompt; "
            "choose a rare word, for example: sks"
        )
    return ""


def prompt_of(caption: str, identifier: str, instance_prompt: str) -> str:
    """The prompt of a photo with a caption: the caption, behind the subject's sentence where it names no subject."""
    if not caption:
        return instance_prompt
    return caption if names_subject(caption, identifier) else f"{instance_prompt}, {caption}"


def names_subject(caption: str, identifier: str) -> bool:
    """Whether the identifier is a word of the caption."""
    return identifier.lower() in re.findall(r"[a-z0-9]+", caption.lower())


def refuse_shapes_that_do_not_fit(values: Mapping[str, Any], resolution: int) -> None:
    """Check the fields of a recipe for a base of `resolution` pixels. Raises InvalidRequest by field."""
    wrong: dict[str, str] = {}
    low, high = shape_sides(values["bucket_min_side"], values["bucket_max_side"], resolution)
    if values["bucketing"]:
        if shape_step(values["bucket_step"], resolution) > resolution:
            wrong["bucketStep"] = f"must be at most the base's resolution, which is {resolution} pixels"
        if low > resolution:
            wrong["bucketMinSide"] = f"must be at most the base's resolution, which is {resolution} pixels"
        if high < resolution:
            wrong["bucketMaxSide"] = f"must be at least the base's resolution, which is {resolution} pixels"
    if values["cached_crops"] > 1 and not values["random_crop"]:
        wrong["cachedCrops"] = "several crops in the middle would be the same one; ask for randomCrop too"
    if wrong:
        raise InvalidRequest(wrong)
