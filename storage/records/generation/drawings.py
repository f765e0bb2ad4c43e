"""A drawing: one step of a generation with nothing left open, as every backend takes it.

Two drawings that are equal make the same pictures, byte for byte, on one machine and in one batch shape. It names
model, adapters and source pictures by the hashes of their bytes, so that what a name stands for later changes nothing.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from storage.records.generation.schedulers import SchedulerSettings
from storage.records.jobs.sampled_sets import fingerprint


class Operation(StrEnum):
    """What a step makes of what it is given."""

    TXT2IMG = "txt2img"
    IMG2IMG = "img2img"
    INPAINT = "inpaint"
    UPSCALE = "upscale"


class PictureFormat(StrEnum):
    """How the bytes of a picture are written."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


class DrawnModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model version by its bytes.

    `files` are its diffusers folder, path to SHA-256. `held_in` is the element type in which UNet and text encoders are
    held. `size_bytes`: of its weights in memory, as far as their files say. `name` and `air` are for people and for the
    metadata of pictures.
    """

    version_id: int
    family: str
    files: dict[str, str]
    held_in: str = "float32"
    size_bytes: int = 0
    name: str = ""
    air: str = ""


NO_MODEL = DrawnModel(version_id=0, family="", files={})
"""Of a drawing that needs none: a picture that is made larger."""


class DrawnAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter beside the model: its file in diffusers' keys, by SHA-256, and how strongly it is mixed in."""

    version_id: int
    sha256: str
    strength: float = 1.0
    name: str = ""
    air: str = ""


class DrawnImage(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of a drawing: its prompt, with wildcards replaced, and its seed."""

    prompt: str
    seed: int


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """One step: pictures that share everything but prompt and seed.

    Width and height are pixels of the result. `source` and `mask` are the SHA-256 of pictures in the blob store; white
    in a mask is drawn again. `strength` (0 to 1) is how much of the source is replaced by noise. `clip_skip` counts as
    A1111 does: 1 is the text encoder's last layer; 0 is the family's own. `exact` draws each picture alone; `shape` is
    the batch shape of a picture that is drawn again, 0 for whichever suits.
    """

    model: DrawnModel
    adapters: tuple[DrawnAdapter, ...] = ()
    operation: Operation = Operation.TXT2IMG
    images: tuple[DrawnImage, ...]
    negative_prompt: str = ""
    scheduler: SchedulerSettings = SchedulerSettings()
    steps: int = 25
    guidance_scale: float = 7.5
    guidance_rescale: float = 0.0
    width: int
    height: int
    clip_skip: int = 0
    source: str = ""
    mask: str = ""
    strength: float = 0.75
    format: PictureFormat = PictureFormat.PNG
    exact: bool = False
    shape: int = 0

    def fingerprint(self) -> str:
        """SHA-256 of the drawing's canonical JSON."""
        return fingerprint(self)
