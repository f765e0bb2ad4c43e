"""Settings of a ComfyUI that draws: DARKROOM_COMFYUI__..."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr


class ComfyuiSettings(BaseModel):
    """A ComfyUI in the network that draws pictures."""

    url: str = Field(default="", description="http(s) URL of a ComfyUI, without a secret in it; empty: there is none.")
    header: str = Field(
        default="Authorization",
        pattern=r"^[A-Za-z0-9-]+$",
        description="Header that a proxy in front of it looks for the secret in.",
    )
    secret: SecretStr = Field(
        default=SecretStr(""), description="Value of that header, such as `Bearer ...`; empty: none is sent."
    )
    models: dict[int, str] = Field(
        default={},
        description="JSON: numbers of model versions, and their files in its models/checkpoints; others by the rule.",
    )
    adapters: dict[int, str] = Field(
        default={},
        description="JSON: numbers of adapters' versions, and their files in its models/loras; others by the rule.",
    )
