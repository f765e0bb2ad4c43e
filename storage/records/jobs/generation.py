"""A request for images from a published model version, and the recipe it resolves to."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from storage.records.jobs.choices import GenerationBackend
from storage.records.jobs.sampled_sets import SamplerSettings, fingerprint
from storage.records.jobs.training import Seed


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """What a client asks for: `count` images of one prompt from one model version."""

    # 2**53: up to there JavaScript reads whole numbers of JSON exactly.
    model_version_id: Annotated[int, Meta(ge=1, le=2**53, description="A published model version of yours.")]
    prompt: Annotated[str, Meta(min_length=1, max_length=300, examples=["a photo of a sks mug on the beach"])]
    negative_prompt: Annotated[str, Meta(max_length=300)] = ""
    count: Annotated[int, Meta(ge=1, le=64, description="Images to draw.")] = 4
    steps: Annotated[int, Meta(ge=1, le=200, description="Denoising steps.")] | None = None
    guidance_scale: Annotated[float, Meta(ge=0.0, le=30.0)] | None = None
    seed: Seed | None = None
    backend: Annotated[GenerationBackend, Meta(description="What draws them; default local.")] | None = None


class GenerationRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """A request with nothing left open: image i is drawn with seed `seed + i`, alone of its batch.

    The last three describe the machine that draws, as in a training recipe: open until a worker claims the job.
    """

    model_version_id: int
    prompt: str
    negative_prompt: str
    count: int
    seed: int
    sampler: SamplerSettings
    backend: str = GenerationBackend.LOCAL.value
    threads: int = 0
    libraries: dict[str, str] = {}
    device: str = ""

    def fingerprint(self) -> str:
        """SHA-256 of the recipe's canonical JSON."""
        return fingerprint(self)
