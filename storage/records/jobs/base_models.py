"""Base models: the pretrained weights a fine-tune starts from, registered by the operator."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from storage.records.jobs.resolved_requests import BaseModelFacts
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.records.jobs.training import TrainingDefaults


class Identifiers(msgspec.Struct, frozen=True, kw_only=True):
    """Rare words of a base: `free` ones mean nothing to it yet, `used` ones name looks it was pretrained on."""

    free: tuple[str, ...] = ()
    used: tuple[str, ...] = ()


class EvaluationFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What fine-tunes of a base are measured on: scene phrases such as "on the beach"."""

    scenes: tuple[str, ...] = ()


class BaseModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """`darkroom.json` of a base model folder. Without one, family and resolution are what its configs say."""

    family: str = "sd1"
    resolution: int = 512
    licence: str = "unknown"
    class_words: tuple[str, ...] = ()
    identifiers: Identifiers = Identifiers()
    sampler: SamplerSettings = SamplerSettings(steps=30, guidance_scale=7.5)
    training: TrainingDefaults = TrainingDefaults()
    evaluation: EvaluationFacts = EvaluationFacts()


class BaseModel(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `base_models`."""

    id: UUID
    name: str
    folder_hash: str
    facts: BaseModelCard
    created_at: datetime
    retired_at: datetime | None

    def resolving_facts(self) -> BaseModelFacts:
        """What resolving a training request needs to know of it."""
        card = self.facts
        return BaseModelFacts(
            name=self.name,
            folder_hash=self.folder_hash,
            family=card.family,
            resolution=card.resolution,
            class_words=card.class_words,
            training=card.training,
            sampler=card.sampler,
            evaluation_scenes=card.evaluation.scenes,
        )


class BaseModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a base model folder, by its path inside it."""

    path: str
    sha256: str
    size: int
