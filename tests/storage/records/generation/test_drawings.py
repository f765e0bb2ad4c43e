"""A drawing is named by everything that changes its pictures."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from storage.records.generation.drawings import Drawing, DrawnAdapter, DrawnImage, DrawnModel, Operation
from storage.records.generation.schedulers import SchedulerSettings

DRAWING = Drawing(
    model=DrawnModel(version_id=1, family="sd1", files={"unet/diffusion_pytorch_model.safetensors": "a" * 64}),
    images=(DrawnImage(prompt="a mug", seed=1),),
    width=64,
    height=64,
)
OTHER: dict[str, Any] = {
    "model": msgspec.structs.replace(DRAWING.model, files={"unet/diffusion_pytorch_model.safetensors": "b" * 64}),
    "adapters": (DrawnAdapter(version_id=2, sha256="c" * 64),),
    "operation": Operation.IMG2IMG,
    "images": (DrawnImage(prompt="a mug", seed=2),),
    "negative_prompt": "blurred",
    "scheduler": SchedulerSettings(name="ddim", eta=1.0),
    "steps": 24,
    "guidance_scale": 7.0,
    "guidance_rescale": 0.7,
    "width": 72,
    "height": 72,
    "clip_skip": 2,
    "source": "d" * 64,
    "mask": "e" * 64,
    "strength": 0.5,
    "format": "webp",
    "exact": True,
    "shape": 8,
}


@pytest.mark.parametrize("field", Drawing.__struct_fields__)
def test_every_field_changes_what_a_drawing_is_named_by(field: str) -> None:
    other = msgspec.structs.replace(DRAWING, **{field: OTHER[field]})

    assert other.fingerprint() != DRAWING.fingerprint()


def test_a_drawing_that_was_stored_and_read_is_the_same() -> None:
    read = msgspec.json.decode(msgspec.json.encode(DRAWING), type=Drawing)

    assert (read, read.fingerprint()) == (DRAWING, DRAWING.fingerprint())
