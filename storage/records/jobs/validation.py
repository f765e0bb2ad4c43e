"""Measuring the loss of a training on what it does not learn from: its fields in a request, and what fits together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from storage.errors import InvalidRequest

ValidationEvery = Annotated[
    int,
    Meta(
        ge=0,
        le=20_000,
        description="Optimizer steps between measurements of the loss on fixed noise and timesteps, which take about "
        "as long as six steps of one photo and one class image; 0 measures none.",
        examples=[100],
        extra={"unit": "optimizer steps"},
    ),
]
ValidationPhotos = Annotated[
    int,
    Meta(
        ge=0,
        le=4,
        description="Photos kept out of the training, on which that loss is measured; 0: it is of training photos.",
        examples=[1],
        extra={"unit": "photos"},
    ),
]


def refuse_photos_that_do_not_fit(values: Mapping[str, Any], photos: int | None = None) -> None:
    """Check `validation_photos` of a recipe, and with the number of its different photos where that is known.

    Raises InvalidRequest.
    """
    held_out = values["validation_photos"]
    if held_out and not values["validation_every"]:
        raise InvalidRequest({"validationPhotos": "are measured with validationEvery; ask for it too, such as 100"})
    if photos is not None and held_out and photos - held_out < 1:
        reason = f"must be less than the number of different photos ({photos}): one at least has to be learned from"
        raise InvalidRequest({"validationPhotos": reason})
