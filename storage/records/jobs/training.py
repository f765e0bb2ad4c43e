"""A training request as a client writes it, and the recipe that the flow carries out; resolved_requests.py resolves it.

Two jobs with one recipe on one machine make the same bytes: everything that changes a number is in the recipe, and
nothing that does not (no job id, date or host).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar
from uuid import UUID

import msgspec
from msgspec import Meta

from storage.records.catalog.vocabulary import Availability
from storage.records.jobs import optimization as learning
from storage.records.jobs import trained_parts as parts
from storage.records.jobs import training_basics as basics
from storage.records.jobs.choices import LearningRateSchedule, TrainingMethod, TrainingOptimizer
from storage.records.jobs.peer_names import PEER_NAMES
from storage.records.jobs.sampled_sets import SamplerSettings, SamplingRecipe, class_images_recipe, fingerprint
from storage.records.jobs.training_samples import (
    Accumulation,
    Bucketing,
    BucketMaxSide,
    BucketMinSide,
    BucketStep,
    CachedCrops,
    CaptionDropout,
    NoiseOffset,
    RandomCrop,
    RandomFlip,
    SnrGamma,
    SplitBackward,
)
from storage.records.jobs.validation import ValidationEvery, ValidationPhotos

Seed = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class TrainingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """All of a training request but its photos. A field left out takes the preset's, or the base model's own default.

    Each field's type has its description, its limits, its unit and an example: training_fields.py.
    """

    peer_names: ClassVar[Mapping[str, str]] = PEER_NAMES

    class_word: basics.ClassWord
    base_model: basics.BaseModelName = "starter"
    preset: basics.Preset | None = None
    name: basics.ModelName | None = None
    identifier: basics.Identifier | None = None
    steps: basics.Steps | None = None
    batch_size: basics.BatchSize | None = None
    learning_rate: basics.LearningRate | None = None
    text_encoder_learning_rate: basics.TextEncoderLearningRate | None = None
    token_learning_rate: basics.TokenLearningRate | None = None
    prior_loss_weight: basics.PriorLossWeight | None = None
    regularization_count: basics.RegularizationCount | None = None
    checkpoint_every: basics.CheckpointEvery | None = None
    sample_every: basics.SampleEvery | None = None
    evaluation_scenes: basics.Scenes | None = None
    sampler: basics.SamplerRequest | None = None
    method: basics.Method | None = None
    optimizer: basics.Optimizer | None = None
    weight_decay: learning.WeightDecay | None = None
    max_gradient_norm: learning.MaxGradientNorm | None = None
    learning_rate_schedule: learning.Schedule | None = None
    warm_up_steps: learning.WarmUpSteps | None = None
    schedule_cycles: learning.ScheduleCycles | None = None
    schedule_power: learning.SchedulePower | None = None
    schedule_rules: learning.ScheduleRules | None = None
    ema_decay: learning.EmaDecay | None = None
    keep_checkpoints: learning.KeptCheckpoints | None = None
    keep_every: learning.KeepEvery | None = None
    keep_every_epochs: learning.KeepEveryEpochs | None = None
    precision: learning.Precision | None = None
    frozen_precision: parts.FrozenPrecision | None = None
    gradient_checkpointing: learning.GradientCheckpointing | None = None
    compile: learning.Compile | None = None
    export_dtype: basics.ExportType | None = None
    accumulation: Accumulation | None = None
    split_backward: SplitBackward | None = None
    snr_gamma: SnrGamma | None = None
    noise_offset: NoiseOffset | None = None
    caption_dropout: CaptionDropout | None = None
    bucketing: Bucketing | None = None
    bucket_step: BucketStep | None = None
    bucket_min_side: BucketMinSide | None = None
    bucket_max_side: BucketMaxSide | None = None
    random_crop: RandomCrop | None = None
    cached_crops: CachedCrops | None = None
    random_flip: RandomFlip | None = None
    validation_every: ValidationEvery | None = None
    validation_photos: ValidationPhotos | None = None
    train_only: parts.TrainOnly | None = None
    text_encoder_steps: parts.TextEncoderSteps | None = None
    lora_rank: parts.LoraRank | None = None
    lora_alpha: parts.LoraAlpha | None = None
    lora_dropout: parts.LoraDropout | None = None
    lora_dora: parts.LoraDora | None = None
    lora_conv: parts.LoraConv | None = None
    lora_targets: parts.TargetLayers | None = None
    seed: basics.SeedNumber | None = None
    availability: basics.Visibility | None = None


class TrainingRequest(TrainingOptions, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """What a client asks for: photos, and how to learn them."""

    data_set_id: basics.DataSetId


class TrainingSettings(parts.PartSettings, frozen=True, kw_only=True):
    """How a training learns, as a base model's defaults and a recipe say it: with what holds where nothing is said."""

    method: str = TrainingMethod.FULL.value
    optimizer: str = TrainingOptimizer.ADAMW.value
    # torch's default for AdamW, which DreamBooth's original code and diffusers' example train with.
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    learning_rate_schedule: str = LearningRateSchedule.RAMP.value
    warm_up_steps: int = 10
    schedule_cycles: int = 1
    schedule_power: float = 1.0
    schedule_rules: str = ""
    ema_decay: float = 0.0
    # One more than is needed: where the newest turns out to be damaged, the one before is used.
    keep_checkpoints: int = 2
    keep_every: int = 0
    export_dtype: basics.ExportDtype = "base"
    precision: str = "fp32"
    frozen_precision: parts.FrozenFormat = "fp32"
    gradient_checkpointing: bool = False
    compile: bool = False
    accumulation: int = 1
    split_backward: bool = False
    snr_gamma: float = 0.0
    noise_offset: float = 0.0
    caption_dropout: float = 0.0
    bucketing: bool = False
    bucket_step: int = 0
    bucket_min_side: int = 0
    bucket_max_side: int = 0
    random_crop: bool = False
    cached_crops: int = 1
    random_flip: bool = False
    validation_every: int = 0
    validation_photos: int = 0

    @property
    def trains_adapter(self) -> bool:
        """Whether the method trains layers of its own beside the base's, which stay frozen."""
        return TrainingMethod.known(self.method).adapter

    @property
    def held_in(self) -> str:
        """The element type in which the base's UNet and text encoders are held, as recipes of sets name it."""
        return {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[self.frozen_precision]


class TrainingDefaults(TrainingSettings, frozen=True, kw_only=True):
    """A base model's own defaults (the `training` part of its darkroom.json)."""

    steps: int = 800
    batch_size: int = 1
    # This and the weight of the prior loss are the DreamBooth paper's for Stable Diffusion (arXiv 2208.12242).
    learning_rate: float = 5e-6
    text_encoder_learning_rate: float = 0.0
    token_learning_rate: float = 0.0
    prior_loss_weight: float = 1.0
    regularization_count: int = 100
    checkpoint_every: int = 100
    sample_every: int = 200
    identifier: str = "sks"


class TrainingRecipe(TrainingSettings, frozen=True, kw_only=True):
    """A request with nothing left open. Equal recipes on one machine produce equal weights, byte by byte.

    `threads`, `libraries` and `device` describe that machine: they are open (no thread) until a worker claims the job,
    which resolves them. `chosen_step` is the step whose checkpoint is published as it is; 0: the last of `steps`.
    """

    data_set_hash: str
    base_model_hash: str
    family: str
    resolution: int
    class_word: str
    identifier: str
    steps: int
    batch_size: int
    learning_rate: float
    text_encoder_learning_rate: float
    token_learning_rate: float
    prior_loss_weight: float
    regularization_count: int
    checkpoint_every: int
    sample_every: int
    seed: int
    sampler: SamplerSettings
    evaluation_scenes: tuple[str, ...]
    # How what is random follows from the seed (flows/training/data.py): another way is another number, so that no
    # release goes on with, or repeats, what another one drew differently.
    draw_scheme: int = 1
    # Of activations between passes; what weights are held in is `held_in`.
    dtype: str = "float32"
    threads: int = 0
    libraries: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    device: str = ""
    chosen_step: int = 0

    @property
    def last_step(self) -> int:
        """The step after which the training ends: the chosen one, else the last of `steps`, which schedules count."""
        return self.chosen_step or self.steps

    @property
    def trains_text(self) -> bool:
        """Whether gradients pass through the text encoders, so that what they make of a prompt changes."""
        return self.text_encoder_learning_rate > 0 or self.token_learning_rate > 0

    @property
    def instance_prompt(self) -> str:
        """The subject's sentence."""
        return f"a photo of a {self.identifier} {self.class_word}"

    @property
    def class_prompt(self) -> str:
        """The class's sentence."""
        return f"a photo of a {self.class_word}"

    def fingerprint(self) -> str:
        """SHA-256 of the recipe's canonical JSON."""
        return fingerprint(self)


class TrainingJobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `jobs.request` holds for a training job: the recipe, and the names that do not change a number.

    Rows of before there was a choice have no `availability`: those who asked were promised that everybody would see the
    result. `resolve` writes it always. `warnings` says what was accepted and is rarely meant, `preset` which one filled
    what the request left out. `needs` names the fields of the recipe that a worker has to know (requirements.py)."""

    data_set_id: UUID
    base_model: str
    model_name: str
    recipe: TrainingRecipe
    availability: Availability = Availability.PUBLIC
    warnings: tuple[str, ...] = ()
    preset: str = ""
    needs: tuple[str, ...] = ()


def published_recipe(request: Mapping[str, object]) -> dict[str, object]:
    """A job's request, as plain JSON, as a version of a model keeps it and its readers see it.

    Without `warnings`, which name the owner's photos, and `needs`, which is for workers.
    """
    return {name: value for name, value in request.items() if name not in {"warnings", "needs"}}


def regularization_recipe(recipe: TrainingRecipe) -> SamplingRecipe:
    """The regularization set that a training recipe needs."""
    return class_images_recipe(
        base_model_hash=recipe.base_model_hash,
        family=recipe.family,
        resolution=recipe.resolution,
        class_prompt=recipe.class_prompt,
        count=recipe.regularization_count,
        sampler=recipe.sampler,
        threads=recipe.threads,
        libraries=recipe.libraries,
        device=recipe.device,
        dtype=recipe.held_in,
    )
