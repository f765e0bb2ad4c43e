"""The fields of a step: each with its description, its limits, its unit and an example.

What a family or a model sets is not here: its size in pixels, its guidance, the length of its prompts in tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from storage.records.generation.drawings import Operation, PictureFormat
from storage.records.jobs.choices import GenerationBackend

MAX_SEED = 2**32 - 1
"""As Civitai and A1111 count."""
MAX_SIDE, GRID = 4096, 8
MAX_STEPS, MAX_COUNT, MAX_ADAPTERS = 150, 64, 12
MAX_LIST_NAME, MAX_LIST_VALUE, MAX_LIST_CHARACTERS = 64, 2000, 64 * 1024
"""Characters of a wildcard list's name, of each of its values, and of all lists of a step."""
PIXELS = {"unit": "pixels"}
PEER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "modelversionid": "a model version is named by `model`: its number, or its AIR",
        "checkpoint": "it is model here",
        "sampler": "it is scheduler here",
        "samplername": "it is scheduler here",
        "samplerindex": "it is scheduler here",
        "cfgscale": "it is guidanceScale here",
        "cfg": "it is guidanceScale here",
        "numinferencesteps": "it is steps here",
        "loras": "it is adapters here",
        "quantity": "it is count here",
        "numimages": "it is count here",
        "batchsize": "it is count here",
        "niter": "it is count here",
        "denoisingstrength": "it is strength here",
        "denoise": "it is strength here",
        "initimage": "it is image here",
        "outputformat": "it is format here",
    }
)
"""What others call a field, by the name without case and signs."""

# 2**53: up to there JavaScript reads whole numbers of JSON exactly.
VersionNumber = Annotated[int, Meta(ge=1, le=2**53, description="The number of a model version.", examples=[3])]
Air = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200,
        description="A model version by its AIR.",
        examples=["urn:air:sd1:checkpoint:civitai:2@3"],
    ),
]
StepName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_-]{1,64}\Z",
        description="What later steps call this one.",
        examples=["base"],
        extra={"default": "its number in the workflow"},
    ),
]
OperationName = Annotated[Operation, Meta(description="What the step does.", extra={"default": "txt2img"})]
Prompt = Annotated[
    str,
    Meta(
        max_length=10_000,
        description="What to draw: weights as in A1111, `(red:1.2)`; choices, `{a|b}` and `__list__`. It may be longer "
        "than the model's text encoder takes at once.",
        examples=["a photo of a sks mug on the beach"],
        extra={"lines": True},
    ),
]
NegativePrompt = Annotated[
    str,
    Meta(
        max_length=10_000,
        description="What to draw away from, in the same form.",
        examples=["blurred"],
        extra={"lines": True},
    ),
]
WildcardLists = Annotated[
    dict[Annotated[str, Meta(max_length=MAX_LIST_NAME)], list[Annotated[str, Meta(max_length=MAX_LIST_VALUE)]]],
    Meta(
        max_length=100, description="Lists that `__name__` in a prompt chooses from.", examples=[{"place": ["beach"]}]
    ),
]
SchedulerText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description="The scheduler, by diffusers' name or as A1111, ComfyUI or Civitai call it.",
        examples=["DPM++ 2M Karras"],
        extra={"default": "DDIM"},
    ),
]
SpacingText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=32,
        description="How the scheduler's noise levels are placed, where its name does not say it.",
        examples=["karras"],
    ),
]
Eta = Annotated[
    float,
    Meta(ge=0.0, le=1.0, description="New noise in each step, of schedulers that take it: 0 none.", examples=[0.0]),
]
DenoisingSteps = Annotated[
    int, Meta(ge=1, le=MAX_STEPS, description="Denoising steps.", examples=[25], extra={"unit": "steps"})
]
GuidanceScale = Annotated[
    float,
    Meta(ge=0.0, le=30.0, description="How closely to keep to the prompt; 1 or less: no guidance.", examples=[7.5]),
]
GuidanceRescale = Annotated[
    float,
    Meta(ge=0.0, le=1.0, description="How far guidance is brought back to natural contrast.", examples=[0.0]),
]
SeedNumber = Annotated[
    int,
    Meta(
        ge=0,
        le=MAX_SEED,
        description="Of the first picture; the next has the next.",
        examples=[42],
        extra={"default": "drawn"},
    ),
]
Width = Annotated[
    int,
    Meta(
        ge=64,
        le=MAX_SIDE,
        multiple_of=GRID,
        description="Of the picture; without one the source's, or what the model draws.",
        examples=[512],
        extra=PIXELS,
    ),
]
Height = Annotated[
    int,
    Meta(ge=64, le=MAX_SIDE, multiple_of=GRID, description="As the width.", examples=[768], extra=PIXELS),
]
Count = Annotated[
    int, Meta(ge=1, le=MAX_COUNT, description="Pictures to draw.", examples=[4], extra={"unit": "pictures"})
]
ClipSkip = Annotated[
    int,
    Meta(
        ge=0,
        le=12,
        description="Layer of the text encoder from its end, as A1111 counts: 1 the last; 0: the family's own.",
        examples=[0],
        extra={"unit": "layers"},
    ),
]
DenoisingStrength = Annotated[
    float,
    Meta(ge=0.0, le=1.0, description="How much of the source picture is replaced by noise: 1 all.", examples=[0.6]),
]
Format = Annotated[PictureFormat, Meta(description="How pictures are written.", extra={"default": "png"})]
Exact = Annotated[
    bool, Meta(description="Draw each picture alone, so that its bytes are those of any other exact request.")
]
BatchShape = Annotated[
    Literal[0, 1, 8],
    Meta(
        description="How many pictures are computed together, of one that is drawn again: 0 is whichever suits.",
        examples=[8],
        extra={"unit": "pictures"},
    ),
]
BackendName = Annotated[GenerationBackend, Meta(description="What draws; default: whichever can.")]


class AdapterRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """An adapter beside the model, and how strongly it is mixed in."""

    model: VersionNumber | Air
    strength: Annotated[float, Meta(ge=-4.0, le=4.0, description="0 leaves it out.", examples=[0.8])] = 1.0


Adapters = Annotated[tuple[AdapterRequest, ...], Meta(max_length=MAX_ADAPTERS, description="LoRAs and their kin.")]


class StepOutput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"step": "$ref"}):
    """A picture that an earlier step draws: the step's name, and which of its pictures, from 0."""

    step: Annotated[str, Meta(min_length=1, max_length=64, description="The name of an earlier step.")]
    image: Annotated[int, Meta(ge=0, lt=MAX_COUNT, description="Which of its pictures, from 0.")] = 0


Sha256 = Annotated[
    str,
    Meta(pattern=r"^[0-9a-f]{64}\Z", description="A picture that was uploaded, by the SHA-256 of its canonical bytes."),
]
PictureSource = Sha256 | StepOutput
