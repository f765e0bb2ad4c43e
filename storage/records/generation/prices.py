"""What a drawing costs, from its price list: asked before it is drawn and when what was drawn is charged.

Credits are whole numbers, of each picture by itself, so that a workflow that ends early costs what it has drawn.
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from storage.records.generation.drawings import Drawing, Operation
from storage.records.generation.scheduler_limits import unet_calls

UNIT_PIXELS, UNIT_CALLS = 512 * 512, 25
"""A picture of 512 x 512 pixels in 25 guided UNet calls is one unit of work."""
UNGUIDED = 0.5
"""Without guidance a call computes one prediction and not two."""
ENLARGED = 0.05
"""Units of a picture that no model draws, for each UNIT_PIXELS."""


class Priority(StrEnum):
    """How soon a workflow is drawn beside others."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @property
    def lane(self) -> int:
        """0 goes first."""
        return {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}[self]


class PriceList(msgspec.Struct, frozen=True, kw_only=True):
    """Credits of a unit of work, and how much more or less a priority costs."""

    credits: float = 1.0
    low: float = 1.0
    high: float = 1.5

    def factor(self, priority: Priority) -> float:
        """What a picture's price is multiplied by."""
        return {Priority.LOW: self.low, Priority.NORMAL: 1.0, Priority.HIGH: self.high}[priority]


def picture_units(drawing: Drawing) -> float:
    """The work of one picture, in units: pixels times UNet calls."""
    pixels = drawing.width * drawing.height / UNIT_PIXELS
    if drawing.operation is Operation.UPSCALE:
        return pixels * ENLARGED
    calls = unet_calls(drawing.scheduler, drawing.steps, drawing.strength)
    return pixels * calls / UNIT_CALLS * (1.0 if drawing.guidance_scale > 1 else UNGUIDED)


def picture_price(drawing: Drawing, priority: Priority, prices: PriceList) -> int:
    """Credits of one picture: at least 1, unless the list says that nothing costs anything."""
    credits = picture_units(drawing) * prices.credits * prices.factor(priority)
    # Rounded first: 3.0000000000000004 credits are 3.
    return max(1, math.ceil(round(credits, 6))) if credits else 0
