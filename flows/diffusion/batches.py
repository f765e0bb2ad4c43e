"""How many images are drawn at a time: as many as memory holds, and half as many where it turns out too small.

A row of a batch does not depend on its neighbours. Their number may choose other kernels, which round otherwise, by at
most one grey level of an image: on a CPU one row alone, and with some shapes of UNets from four rows on; on a GPU any
size. So a set that is drawn in smaller batches, since memory ran out, may differ by that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from flows.diffusion.families.protocol import Components
from flows.diffusion.memory import free_bytes
from flows.jobs.failures import says_out_of_memory
from storage.records.jobs.costs.optimizer_states import FLOAT

log = logging.getLogger("darkroom.sampling")

T = TypeVar("T")

ACTIVATIONS = 64
"""Tensors of the UNet's first width, at full resolution, that a row needs at its most: skip connections, and what a
feed-forward layer holds. Rather too many: a batch that is too large costs a failed try."""
SHARE_OF_FREE = 0.8
SMALLEST = 2


def images_at_a_time(components: Components, latents: Tensor, *, guided: bool) -> int:
    """How many of the images of `latents` (N, C, H, W) fit into the memory that is free, at least two.

    Guidance needs two rows an image.
    """
    config: Any = components.unet.config
    height, width = latents.shape[-2:]
    # What is drawn is computed in float32, also with weights that are held in 16 bits.
    row = height * width * int(config.block_out_channels[0]) * FLOAT * ACTIVATIONS
    fitting = int(free_bytes(components.device) * SHARE_OF_FREE) // (row * (2 if guided else 1))
    return max(SMALLEST, min(len(latents), fitting))


def in_batches(count: int, size: int, draw: Callable[[list[int]], list[T]]) -> list[T]:
    """What `draw` makes of the numbers from 0 to `count`, at most `size` of them at a time.

    When memory runs out the size is halved, down to two. The last number of several is not drawn alone.
    """
    done: list[T] = []
    while len(done) < count:
        rows = list(range(len(done), min(len(done) + size, count)))
        try:
            made = draw(rows * 2 if len(rows) == 1 and count > 1 else rows)
        except (MemoryError, RuntimeError) as error:
            if len(rows) <= SMALLEST or not says_out_of_memory(error):
                raise
            size = max(SMALLEST, len(rows) // 2)
            log.warning("no memory for %d images at a time: drawing %d", len(rows), size)
        else:
            done += made[: len(rows)]
            continue
        # Not in the handler: until it ends the error holds what did not fit.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return done
