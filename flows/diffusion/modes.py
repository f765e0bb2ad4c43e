"""Parts of a model that train, while nothing trains them."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_evaluation_mode(parts: Iterable[nn.Module]) -> Generator[None]:
    """In the block every part is in evaluation mode; afterwards each has its earlier mode again."""
    modes = {part: part.training for part in parts}
    for part in modes:
        part.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            # Put back one by one: a frozen part is in evaluation mode while others train.
            part.train(training)
