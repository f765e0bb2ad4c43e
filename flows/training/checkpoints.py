"""Resumable training state in one safetensors file: weights, the optimizer's state, averages, step. No pickle anywhere.

The random draws of a step are a function of (seed, step), so no generator state or data position is kept. Equal
training states of one owner produce equal bytes.

Tensors: `weights/PARAMETER`, `average/PARAMETER` where weights are averaged, and the optimizer's as
optimizers/states.py names them. No hash stands in the file: its blob's name is one, and is checked when it is fetched.
Format 1, of earlier releases, is read too: `weights/PARAMETER` and `MOMENT/PARAMETER`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup, parameters_of
from flows.training.optimizers.states import STATE, StateReader, state_tensors, state_values
from flows.training.precision import put_scaler_values, scaler_values
from flows.training.tensor_files import TensorFile, WrittenFile, start_tensors
from storage.errors import InvalidCheckpoint, WeightsRefused

FORMAT = "darkroom-checkpoint"
VERSION = "2"
READABLE = ("1", VERSION)
WEIGHTS, AVERAGE = "weights", "average"


class CheckpointStore(Protocol):
    """Where one job's checkpoints are kept."""

    @property
    def owner(self) -> str:
        """Whose they are. It is written into each: the same state of another owner is other bytes."""
        ...

    def keep(self, step: int, file: Path, sha256: str) -> None:
        """Store the checkpoint of `step`; returns when it is durable. `sha256` is the file's. The caller removes the
        file afterwards, and writes to it no more."""
        ...


@dataclass(frozen=True)
class TrainingState:
    """What changes with every step: a checkpoint holds it, and puts it back. `averages` are weights by parameter;
    `scaler` is of float16 alone."""

    groups: Sequence[ParameterGroup]
    optimizer: Optimizer
    averages: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    scaler: GradScaler | None = None


@dataclass(frozen=True)
class CheckpointContent:
    """What a checkpoint's file holds. Its tensors are the training's own: the next step changes them."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes of the tensors; the file's header takes a little more."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def write(self, path: Path) -> str:
        """Write the file; returns its SHA-256 (hex). A copy of one tensor at most is in memory at a time."""
        return self.start(path).sha256()

    def start(self, path: Path) -> WrittenFile:
        """As `write`, but returns once the tensors may change; the hash follows."""
        return start_tensors(path, self.tensors, self.metadata)


def checkpoint_content(*, step: int, fingerprint: str, owner: str, state: TrainingState) -> CheckpointContent:
    """The training state of `owner` after `step` optimizer steps of the recipe with this fingerprint, not copied."""
    tensors = {f"{WEIGHTS}/{name}": parameter.detach() for name, parameter in parameters_of(state.groups).items()}
    tensors |= {f"{AVERAGE}/{name}": average for name, average in state.averages.items()}
    tensors |= state_tensors(state.groups, state.optimizer)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "step": str(step),
        "recipe": fingerprint,
        "owner": owner,
        "optimizer": json.dumps(state_values(state.groups, state.optimizer), sort_keys=True, separators=(",", ":")),
    }
    if state.scaler is not None:
        metadata["scaler"] = json.dumps(scaler_values(state.scaler), sort_keys=True)
    return CheckpointContent(tensors, metadata)


def write_checkpoint(path: Path, *, step: int, fingerprint: str, owner: str, state: TrainingState) -> str:
    """Write the training state, as `checkpoint_content` has it, to a file; returns its SHA-256 (hex)."""
    return checkpoint_content(step=step, fingerprint=fingerprint, owner=owner, state=state).write(path)


def read_checkpoint(path: Path, *, fingerprint: str, state: TrainingState) -> int:
    """Put a checkpoint's state into the parameters, the optimizer and the averages; returns its step.

    Everything is verified before anything changes. The values are read tensor by tensor, so no more than one of them is
    in memory beside the state itself. Raises InvalidCheckpoint when the file is torn, of another format, of another
    recipe, or does not hold exactly these parameters.
    """
    try:
        return _Reading(path, fingerprint).into(state)
    except WeightsRefused as error:
        raise InvalidCheckpoint(f"{path.name} is damaged: {error}") from error


def checkpoint_step(path: Path, fingerprint: str) -> int:
    """The step of a checkpoint of this recipe whose structure is whole. Raises InvalidCheckpoint."""
    try:
        return _Reading(path, fingerprint).step
    except WeightsRefused as error:
        raise InvalidCheckpoint(f"{path.name} is damaged: {error}") from error


class _Reading:
    def __init__(self, path: Path, fingerprint: str) -> None:
        self._file = TensorFile(path)
        metadata = self._file.metadata
        self._name, self._version = path.name, metadata.get("version")
        if metadata.get("format") != FORMAT or self._version not in READABLE:
            raise InvalidCheckpoint(
                f"{path.name} is {metadata.get('format')} version {self._version}; this release reads {FORMAT} "
                f"version {' and '.join(READABLE)}. Start the job again."
            )
        if metadata.get("recipe") != fingerprint:
            raise InvalidCheckpoint(
                f"{path.name} belongs to recipe {metadata.get('recipe')}, not to {fingerprint}. Start the job again."
            )
        try:
            self.step = int(metadata["step"])
            self._values: dict[str, Any] = json.loads(metadata.get("optimizer", "{}"))
            self._scaler: dict[str, float] = json.loads(metadata.get("scaler", "{}"))
        except (KeyError, ValueError) as error:
            raise InvalidCheckpoint(f"{path.name} is damaged: its step or its numbers cannot be read.") from error

    def into(self, state: TrainingState) -> int:
        parameters, reader = parameters_of(state.groups), StateReader(state.groups, state.optimizer)
        self._check(state, parameters, reader)
        reader.put_values(self._values)
        if state.scaler is not None:
            put_scaler_values(state.scaler, self._scaler)
        if self._version == "1":
            reader.put_steps(self.step)

        def put(name: str, value: Tensor) -> None:
            part, _, owner = name.partition("/")
            match part:
                case "weights":
                    with torch.no_grad():
                        parameters[owner].copy_(value)
                case "average":
                    state.averages[owner].copy_(value)
                case _:
                    reader.put_tensor(self._state_name(name), value)

        self._file.each(put)
        return self.step

    def _check(self, state: TrainingState, parameters: Mapping[str, nn.Parameter], reader: StateReader) -> None:
        wanted = {f"{WEIGHTS}/{name}": (tuple(one.shape), one.dtype) for name, one in parameters.items()}
        wanted |= {f"{AVERAGE}/{name}": (tuple(one.shape), one.dtype) for name, one in state.averages.items()}
        ours = (f"{WEIGHTS}/", f"{AVERAGE}/")
        found = {name: facts for name, facts in self._file.shapes.items() if name.startswith(ours)}
        if wanted != found:
            odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))[:3]
            raise InvalidCheckpoint(f"{self._name} does not hold this model's parameters; they differ at {odd}.")
        if (state.scaler is not None) != bool(self._scaler):
            raise InvalidCheckpoint(f"{self._name} was not written in this precision. Start the job again.")
        rest = [self._state_name(name) for name in self._file.shapes if name not in found]
        reader.check(rest, self._values)

    def _state_name(self, name: str) -> str:
        return f"{STATE}/{name}" if self._version == "1" else name
