"""How long and how fast the starter model's parts are trained: plain numbers, read without loading torch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. The rate rises over `warmup` steps, stays, and falls over the last share.

    A long flat part lets a run be continued to a larger `steps`: only its end differs."""

    steps: int
    learning_rate: float
    warmup: int = 100
    falling_share: float = 0.25
    ema_decay: float = 0.998
    save_every: int = 200

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rising = min(1.0, (step + 1) / max(1, min(self.warmup, self.steps)))
        left = (self.steps - step) / max(1.0, self.steps * self.falling_share)
        falling = 0.5 - 0.5 * math.cos(math.pi * min(1.0, left))
        return self.learning_rate * rising * max(falling, 0.01)


SEED = 0
AUTOENCODER_SCHEDULE = Schedule(1_200, 1.5e-3, ema_decay=0.995)
DIFFUSION_SCHEDULE = Schedule(5_500, 8e-4, falling_share=0.6, ema_decay=0.998)
CLASSIFIER_SCHEDULE = Schedule(1_200, 2e-3, ema_decay=0.99)
EMBEDDER_SCHEDULE = Schedule(800, 2e-3, falling_share=0.0, ema_decay=0.99)
