"""Base models: what a fine-tune can start from. Operators register them; clients name them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, get
from litestar.params import FromPath
from msgspec import Meta

from platform_api.access.dependencies import AppStores
from platform_api.access.guards import Requires
from platform_api.http.problems import can_return
from storage.errors import NotFound
from storage.postgres.connection import Script
from storage.postgres.jobs import base_models
from storage.postgres.jobs.paces import seconds_per_step
from storage.records.accounts.accounts import Scope
from storage.records.jobs.base_models import BaseModel
from storage.request_faults import has_control_characters


class IdentifiersView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Rare words: `free` ones mean nothing to the base yet, `used` ones name looks it was pretrained on."""

    free: list[str]
    used: list[str]


class SamplerView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How images are drawn unless a request says otherwise."""

    steps: int
    guidance_scale: float


# Written out, and compared with TrainingDefaults by a test: msgspec does not rename what a subclass inherits, and what
# its defstruct makes is a variable, which the type checker lets no annotation name.
class TrainingDefaultsView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a training request takes for each field that it leaves out."""

    steps: int
    batch_size: int
    learning_rate: float
    text_encoder_learning_rate: float
    token_learning_rate: float
    prior_loss_weight: float
    regularization_count: int
    checkpoint_every: int
    sample_every: int
    identifier: str
    method: str
    optimizer: str
    weight_decay: float
    max_gradient_norm: float
    learning_rate_schedule: str
    warm_up_steps: int
    schedule_cycles: int
    schedule_power: float
    schedule_rules: str
    ema_decay: float
    keep_checkpoints: int
    keep_every: int
    export_dtype: str
    precision: str
    frozen_precision: str
    gradient_checkpointing: bool
    compile: bool
    accumulation: int
    split_backward: bool
    snr_gamma: float
    noise_offset: float
    caption_dropout: float
    bucketing: bool
    bucket_step: int
    bucket_min_side: int
    bucket_max_side: int
    random_crop: bool
    cached_crops: int
    random_flip: bool
    validation_every: int
    validation_photos: int
    train_only: str
    text_encoder_steps: int
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    lora_dora: bool
    lora_conv: bool
    lora_targets: str


class BaseModelView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A registered base model."""

    name: Annotated[str, Meta(examples=["starter"])]
    family: Annotated[str, Meta(description="Its architecture, which the same code trains.", examples=["sd1"])]
    resolution: Annotated[int, Meta(description="Pixels of one side.", examples=[64])]
    licence: str
    folder_hash: str
    class_words: Annotated[list[str], Meta(description="The classes it knows; empty: any.", examples=[["mug"]])]
    identifiers: IdentifiersView
    training: TrainingDefaultsView
    sampler: SamplerView
    seconds_per_step: Annotated[
        float | None,
        Meta(description="From a step to the next in recent jobs, whatever their settings; null before the first."),
    ]


class BaseModelList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Every base model, by name."""

    items: list[BaseModelView]


def _view(base: BaseModel, pace: float | None) -> BaseModelView:
    card = base.facts
    return BaseModelView(
        name=base.name,
        family=card.family,
        resolution=card.resolution,
        licence=card.licence,
        folder_hash=base.folder_hash,
        class_words=list(card.class_words),
        identifiers=IdentifiersView(free=list(card.identifiers.free), used=list(card.identifiers.used)),
        training=msgspec.convert(card.training, TrainingDefaultsView, from_attributes=True),
        sampler=msgspec.convert(card.sampler, SamplerView, from_attributes=True),
        seconds_per_step=pace,
    )


class BaseModels(Controller):
    """What a fine-tune can start from."""

    path = "/base-models"
    tags = ("Base models",)

    @get("/", guards=[Requires(Scope.MODELS_READ)], responses=can_return(401, 403), summary="Every base model")
    async def list_all(self, stores: AppStores) -> BaseModelList:
        """The base models that a training request can name."""

        def script() -> Script[list[BaseModelView]]:
            bases = yield from base_models.list_all()
            paces: list[float | None] = []
            for base in bases:
                pace = yield from seconds_per_step(base.name)
                paces.append(pace)
            return [_view(base, pace) for base, pace in zip(bases, paces, strict=True)]

        return BaseModelList(items=await stores.database.run(script))

    @get(
        "/{name:str}", guards=[Requires(Scope.MODELS_READ)], responses=can_return(401, 403, 404), summary="One of them"
    )
    async def show(self, stores: AppStores, name: FromPath[str]) -> BaseModelView:
        """One base model: its classes, free identifiers and training defaults."""
        if has_control_characters(name):
            raise NotFound("No base model has a name with control characters.")

        def script() -> Script[BaseModelView]:
            base = yield from base_models.by_name(name)
            return _view(base, (yield from seconds_per_step(base.name)))

        return await stores.database.run(script)
