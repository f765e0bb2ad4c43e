"""A model of a few layers in three groups, small enough for each optimizer to train it in a moment."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flows.training.averages import AveragedWeights
from flows.training.checkpoints import TrainingState, read_checkpoint, write_checkpoint
from flows.training.methods.protocol import ParameterGroup
from flows.training.optimizers.learning_rates import set_learning_rates
from flows.training.optimizers.lookup import optimizer_named
from storage.records.jobs.training import TrainingRecipe
from tests.flows.training.tiny import recipe

RATES = {"adamw": 1e-2, "lion": 1e-3, "lion_8bit": 1e-3, "prodigy": 1.0}


class Layers(nn.Module):
    """A convolution in the layout of images, a projection of more than 4,096 weights, a few rows of a table."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.convolution = nn.Conv2d(16, 48, 3)
        self.projection = nn.Linear(48, 96)
        self.rows = nn.Parameter(torch.randn(1, 96))
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 16, 6, 6) to (B, 96)."""
        return self.projection(self.convolution(pixels).mean((2, 3)).sin()) + self.rows


def groups_of(model: Layers, rate: float, *, decay: float = 0.01) -> tuple[ParameterGroup, ...]:
    """Two groups with decay, one without, all of one rate."""
    parts = {"unet": model.convolution, "text_encoder": model.projection}
    groups = [
        ParameterGroup(name, {f"{name}.{key}": one for key, one in part.named_parameters()}, rate, decay)
        for name, part in parts.items()
    ]
    return (*groups, ParameterGroup("identifier", {"identifier.rows": model.rows}, rate, 0.0))


@dataclass
class SmallTraining:
    """The model, what trains it, and how many steps it has behind it."""

    model: Layers
    groups: tuple[ParameterGroup, ...]
    optimizer: Optimizer
    averaged: AveragedWeights
    recipe: TrainingRecipe
    step: int = 0

    @property
    def state(self) -> TrainingState:
        return TrainingState(self.groups, self.optimizer, self.averaged.averages)

    def train(self, steps: int) -> None:
        """Some steps, each on images of its own."""
        for _ in range(steps):
            gradients(self.model, self.step)
            set_learning_rates(self.optimizer, self.groups, self.recipe, self.step)
            self.optimizer.step()
            self.step += 1
            self.averaged.update(self.step)

    def weights(self) -> dict[str, Tensor]:
        return {name: one.detach().clone() for name, one in self.model.named_parameters()}

    def write(self, file: Path) -> str:
        return write_checkpoint(file, step=self.step, fingerprint="a recipe", owner="a job", state=self.state)

    def read(self, file: Path) -> None:
        self.step = read_checkpoint(file, fingerprint="a recipe", state=self.state)


def begin(name: str, *, ema_decay: float = 0.0) -> SmallTraining:
    """A training by the optimizer `name` before its first step."""
    torch.set_num_threads(1)
    model = Layers()
    groups = groups_of(model, RATES.get(name, 1e-2))
    optimizer = optimizer_named(name).begin(groups)
    averaged = AveragedWeights(groups, optimizer, ema_decay)
    return SmallTraining(model, groups, optimizer, averaged, recipe(optimizer=name, warm_up_steps=4, steps=6))


def gradients(model: Layers, step: int) -> None:
    """The gradients of one step."""
    source = torch.Generator().manual_seed(step)
    pixels = torch.randn(3, 16, 6, 6, generator=source).contiguous(memory_format=torch.channels_last)
    model.zero_grad(set_to_none=True)
    (model(pixels) - 3).square().sum().backward()  # one way to go, so that Prodigy finds its rate


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
