"""Settings of the routes that clients of Civitai's orchestration speak to: DARKROOM_ORCHESTRATION__..."""

from __future__ import annotations

from pydantic import BaseModel, Field


class OrchestrationSettings(BaseModel):
    """Civitai's orchestration v2 in front of generations, for clients that were written for it."""

    enabled: bool = Field(default=False, description="Whether the routes below /v2 are served.")
    max_wait_seconds: float = Field(
        default=60.0, ge=0, le=60, description="How long a request may wait for its workflow to end (`wait`)."
    )
