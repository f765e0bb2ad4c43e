"""What a training is of and for: the subject, the base, the length, the rates. Fields of a request, each with its unit.

Every field of a request is described here or in a module beside this one, once: `description` says what it does, the
extra `unit` in what a number is counted, `default` what holds where nothing is said (for settings that a base model
has, the default is its own), and `examples` has a value that can be used as it is. training_fields.py reads them.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from storage.records.jobs.choices import TrainingMethod, TrainingOptimizer, TrainingPreset

ExportDtype = Literal["base", "fp32", "fp16", "bf16"]
STEPS, RATE, PIXELS = {"unit": "optimizer steps"}, {"unit": "rate of one step"}, {"unit": "pixels"}

DataSetId = Annotated[UUID, Meta(description="The uploaded photos; POST /api/v1/data-sets returns it.")]
ClassWord = Annotated[str, Meta(min_length=1, max_length=64, description="The noun of the subject.", examples=["mug"])]
Preset = Annotated[
    TrainingPreset,
    Meta(
        description="Fills what is left out so that it fits a card; see the table of presets.",
        extra={"default": "none"},
    ),
]
BaseModelName = Annotated[
    str, Meta(min_length=1, max_length=64, description="Name of a registered base model.", examples=["starter"])
]
ModelName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=120,
        description="Name of the catalogue model; the same again adds a version.",
        examples=["sks mug"],
        extra={"default": "identifier and class word, such as `sks mug`"},
    ),
]
Identifier = Annotated[
    str, Meta(min_length=1, max_length=32, description="The rare word for the subject.", examples=["sks"])
]
Steps = Annotated[int, Meta(ge=1, le=20_000, description="Optimizer steps.", examples=[800], extra=STEPS)]
BatchSize = Annotated[
    int,
    Meta(
        ge=1,
        le=64,
        description="Instance images a step; as many regularization images join.",
        examples=[1],
        extra={"unit": "photos"},
    ),
]
LearningRate = Annotated[
    float, Meta(gt=0.0, le=1.0, description="Learning rate of the UNet.", examples=[5e-6], extra=RATE)
]
TextEncoderLearningRate = Annotated[
    float,
    Meta(ge=0.0, le=1.0, description="Learning rate of the text encoder; 0 keeps it.", examples=[1e-6], extra=RATE),
]
TokenLearningRate = Annotated[
    float,
    Meta(
        ge=0.0,
        le=1.0,
        description="Learning rate of the identifier's embedding; 0 keeps it.",
        examples=[1e-3],
        extra=RATE,
    ),
]
PriorLossWeight = Annotated[
    float,
    Meta(
        ge=0.0,
        le=10.0,
        description="Weight of the class images' loss beside the photos'; 0 trains without prior preservation.",
        examples=[1.0],
        extra={"unit": "factor"},
    ),
]
RegularizationCount = Annotated[
    int,
    Meta(ge=1, le=2_000, description="Regularization images of the class.", examples=[100], extra={"unit": "images"}),
]
CheckpointEvery = Annotated[
    int, Meta(ge=1, le=20_000, description="Optimizer steps between checkpoints.", examples=[100], extra=STEPS)
]
SampleEvery = Annotated[
    int, Meta(ge=1, le=20_000, description="Optimizer steps between sample images.", examples=[200], extra=STEPS)
]
Method = Annotated[TrainingMethod, Meta(description="Which weights are trained.")]
Optimizer = Annotated[TrainingOptimizer, Meta(description="How gradients become steps.")]
ExportType = Annotated[
    ExportDtype, Meta(description="Element type of the exported weights; base: of each file as the base model has it.")
]
SeedNumber = Annotated[
    int,
    Meta(
        ge=0,
        le=2**31 - 1,
        description="Repeats a job exactly.",
        examples=[7],
        extra={"default": "random"},
    ),
]
Visibility = Annotated[
    Literal["Public", "Private"],
    Meta(
        description="Who sees the result: everybody, or you until you publish it.",
        extra={"default": "Private"},
    ),
]
Scenes = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...],
    Meta(
        max_length=24,
        description="Where samples and evaluation show the subject: phrases that follow its name in a prompt.",
        examples=[["on the beach", "in the snow"]],
        extra={"default": "the base's"},
    ),
]


class SamplerRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """How a job draws: class images, samples, evaluation. What is left out is the base model's own."""

    steps: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=200,
                description="Denoising steps of every image that the job draws.",
                examples=[30],
                extra={"unit": "denoising steps", "default": "the base's"},
            ),
        ]
        | None
    ) = None
    guidance_scale: (
        Annotated[
            float,
            Meta(
                ge=0.0,
                le=30.0,
                description="Classifier-free guidance of every image that the job draws.",
                examples=[7.5],
                extra={"unit": "factor", "default": "the base's"},
            ),
        ]
        | None
    ) = None
