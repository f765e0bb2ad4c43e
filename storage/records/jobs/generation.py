"""A request for images from a published model version, and the recipe it resolves to."""

from __future__ import annotations

import msgspec

from storage.records.jobs.choices import GenerationBackend
from storage.records.jobs.sampled_sets import SamplerSettings, fingerprint


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
