"""A resumable training loop: a step draws its randomness from (seed, step), so a resumed run equals an unbroken one."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flows.starter.schedules import Schedule

LOGGER = logging.getLogger(__name__)

StepLoss = Callable[[int, torch.Generator], Tensor]


def _pack(
    modules: Mapping[str, nn.Module], averages: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, step: int
) -> dict[str, Tensor]:
    packed = {f"weights/{key}": value for key, value in _weights(modules).items()}
    packed |= {f"average/{key}": value for key, value in averages.items()}
    for index, entry in optimizer.state_dict()["state"].items():
        packed |= {f"optimizer/{index}/{name}": value for name, value in entry.items()}
    packed["step"] = torch.tensor(step)
    return {key: value.detach().contiguous() for key, value in packed.items()}


def _weights(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


def _unpack(
    packed: Mapping[str, Tensor],
    modules: Mapping[str, nn.Module],
    averages: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> int:
    for name, module in modules.items():
        prefix = f"weights/{name}."
        module.load_state_dict({key[len(prefix) :]: value for key, value in packed.items() if key.startswith(prefix)})
    for key in averages:
        averages[key] = packed[f"average/{key}"].clone()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in packed.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(packed["step"])


def write_checkpoint(path: Path, packed: dict[str, Tensor]) -> None:
    """Write a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Replaced in one step: a killed run must find the checkpoint of before, not half a new one.
    partial = path.with_suffix(".partial")
    save_file(packed, str(partial))
    os.replace(partial, path)


def train(
    modules: Mapping[str, nn.Module],
    loss_of: StepLoss,
    schedule: Schedule,
    *,
    seed: int,
    checkpoint: Path,
    stop_at: int | None = None,
) -> dict[str, Tensor]:
    """Train the modules in place from the checkpoint if there is one; returns the moving average of their weights.

    loss_of: (step, generator seeded for that step) to a scalar loss.
    stop_at: leave after this step with the checkpoint written, as an interruption would."""
    parameters = [parameter for module in modules.values() for parameter in module.parameters()]
    # Fused: one pass over the parameters instead of one for each operation of Adam.
    optimizer = torch.optim.AdamW(parameters, lr=schedule.learning_rate, weight_decay=0.01, fused=True)
    averages = {key: value.detach().clone() for key, value in _weights(modules).items()}
    step = 0
    if checkpoint.exists():
        step = _unpack(load_file(str(checkpoint)), modules, averages, optimizer)
        LOGGER.info("resumed %s at step %d of %d", checkpoint.name, step, schedule.steps)
    last, started, since = min(schedule.steps, stop_at or schedule.steps), time.monotonic(), step
    while step < last:
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        # A prime larger than any number of steps, so that no step of one seed is a step of the next.
        loss = loss_of(step, torch.Generator().manual_seed(seed * 1_000_003 + step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        # Early averages forget faster, or the random first weights would stay in them for hundreds of steps.
        _average(averages, modules, min(schedule.ema_decay, (1 + step) / (10 + step)))
        if step % 50 == 0:
            pace = (time.monotonic() - started) / (step - since)
            metrics = (checkpoint.stem, step, schedule.steps, loss.item(), pace)
            LOGGER.info("%s step %d/%d loss %.4f, %.2f s a step", *metrics)
        if step % schedule.save_every == 0 or step == last:
            write_checkpoint(checkpoint, _pack(modules, averages, optimizer, step))
    return averages


def _average(averages: dict[str, Tensor], modules: Mapping[str, nn.Module], decay: float) -> None:
    with torch.no_grad():
        for key, value in _weights(modules).items():
            # Buffers of whole numbers have no average.
            if value.is_floating_point():
                averages[key].lerp_(value, 1.0 - decay)
            else:
                averages[key].copy_(value)


def load_average(averages: Mapping[str, Tensor], modules: Mapping[str, nn.Module]) -> None:
    """Put averaged weights into the modules."""
    for name, module in modules.items():
        prefix = f"{name}."
        module.load_state_dict({key[len(prefix) :]: value for key, value in averages.items() if key.startswith(prefix)})
