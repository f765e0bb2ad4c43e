"""Resumable training state in one safetensors file: weights, optimizer moments, step. No pickle anywhere.

The random draws of a step are a function of (seed, step), so no generator state or data position is kept. Equal
training states of one owner produce equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup
from flows.training.tensor_files import payload_sha256, read_metadata, read_tensors, write_tensors
from storage.errors import InvalidCheckpoint, WeightsRefused

FORMAT = "darkroom-checkpoint"
VERSION = "1"


class CheckpointStore(Protocol):
    """Where one job's checkpoints are kept."""

    @property
    def owner(self) -> str:
        """Whose they are. It is written into each: the same state of another owner is other bytes."""
        ...

    def keep(self, step: int, file: Path) -> None:
        """Store the checkpoint of `step`; returns when it is durable. `file` is removed afterwards by the caller."""
        ...


def write_checkpoint(
    path: Path,
    *,
    step: int,
    fingerprint: str,
    owner: str,
    groups: Iterable[ParameterGroup],
    optimizer: Optimizer,
    moments: Sequence[str],
) -> None:
    """The training state of `owner` after `step` optimizer steps of the recipe with this fingerprint.

    `moments` are the names of what the optimizer keeps for each parameter.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in _parameters(groups):
        tensors[f"weights/{name}"] = parameter.detach()
        state = optimizer.state[parameter]
        for moment in moments:
            # Before the first step there are no moments; zeros say the same.
            tensors[f"{moment}/{name}"] = state[moment] if state else torch.zeros_like(parameter)
    metadata = {"format": FORMAT, "version": VERSION, "step": str(step), "recipe": fingerprint, "owner": owner}
    write_tensors(path, tensors, metadata, payload_keys=("sha256",))


def read_checkpoint(
    path: Path,
    *,
    fingerprint: str,
    groups: Iterable[ParameterGroup],
    optimizer: Optimizer,
    moments: Sequence[str],
) -> int:
    """Put a checkpoint's state into the parameters and the optimizer; returns its step.

    Everything is verified before anything changes. Raises InvalidCheckpoint when the file is damaged, of another
    format, of another recipe, or does not hold exactly these parameters.
    """
    step, tensors = _verified(path, fingerprint)
    parameters = dict(_parameters(groups))
    parts = ("weights", *moments)
    wanted = {f"{part}/{name}": parameter.shape for name, parameter in parameters.items() for part in parts}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if wanted != found:
        odd = sorted(set(wanted.items()) ^ set(found.items()))[:3]
        raise InvalidCheckpoint(f"{path.name} does not hold this model's parameters; they differ at {odd}.")
    for name, parameter in parameters.items():
        with torch.no_grad():
            parameter.copy_(tensors[f"weights/{name}"])
        state = optimizer.state[parameter]
        # AdamW's own form: a float tensor, which the fused and the capturable one keep beside the parameter, others on
        # the CPU.
        state["step"] = torch.tensor(float(step), device=_step_device(parameter, optimizer))
        for moment in moments:
            state[moment] = torch.empty_like(parameter).copy_(tensors[f"{moment}/{name}"])
    return step


def checkpoint_step(path: Path, fingerprint: str) -> int:
    """The step of a checkpoint, after the same verification. Raises InvalidCheckpoint."""
    return _verified(path, fingerprint)[0]


def _verified(path: Path, fingerprint: str) -> tuple[int, dict[str, Tensor]]:
    try:
        metadata = read_metadata(path)
        if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
            raise InvalidCheckpoint(
                f"{path.name} is {metadata.get('format')} version {metadata.get('version')}; "
                f"this release reads {FORMAT} version {VERSION}. Start the job again."
            )
        if metadata.get("recipe") != fingerprint:
            raise InvalidCheckpoint(
                f"{path.name} belongs to recipe {metadata.get('recipe')}, not to {fingerprint}. Start the job again."
            )
        # Over the tensors alone, so that it can stand in the header before them.
        if metadata.get("sha256") != payload_sha256(path):
            raise InvalidCheckpoint(f"the tensors of {path.name} do not match its own hash; an older one may be whole.")
        return int(metadata["step"]), read_tensors(path)
    except WeightsRefused as error:
        raise InvalidCheckpoint(f"{path.name} is damaged: {error}") from error


def _parameters(groups: Iterable[ParameterGroup]) -> list[tuple[str, torch.nn.Parameter]]:
    # By name, not by the order of groups: equal states are equal bytes.
    return sorted((name, parameter) for group in groups for name, parameter in group.parameters.items())


def _step_device(parameter: Tensor, optimizer: Optimizer) -> torch.device:
    fused = bool(optimizer.defaults.get("fused")) or bool(optimizer.defaults.get("capturable"))
    return parameter.device if fused else torch.device("cpu")
