"""Checkpoints that an earlier release wrote, and how much memory reading one takes."""

from __future__ import annotations

from pathlib import Path

import torch

from flows.training.checkpoints import TrainingState, read_checkpoint, write_checkpoint
from flows.training.methods.protocol import ParameterGroup
from flows.training.optimizers.learning_rates import set_learning_rates
from flows.training.optimizers.lookup import optimizer_named
from tests.flows.training.tiny import recipe

ADAMW = optimizer_named("adamw")
PARAMETERS = (("unet", "conv.weight", (4, 3, 3, 3), 0.5), ("unet", "conv.bias", (4,), 0.25))


def of_format_1() -> TrainingState:
    """A training whose state of step 3 the first format's release wrote, before its first step."""
    torch.set_num_threads(1)
    values = {name: counted(shape, first) for _, name, shape, first in PARAMETERS}
    values["conv.weight"].data = values["conv.weight"].data.to(memory_format=torch.channels_last)
    groups = (
        ParameterGroup("unet", {f"unet.{name}": one for name, one in values.items()}, 1e-2, 0.01),
        ParameterGroup("identifier", {"identifier.rows": counted((1, 8), 0.75)}, 1e-1, 0.0),
    )
    return TrainingState(groups, ADAMW.begin(groups))


def counted(shape: tuple[int, ...], first: float) -> torch.nn.Parameter:
    count = torch.Size(shape).numel()
    return torch.nn.Parameter((torch.arange(count, dtype=torch.float32) / count - first).reshape(shape))


def steps_of(state: TrainingState, begin: int, end: int) -> None:
    for step in range(begin, end):
        set_learning_rates(state.optimizer, state.groups, recipe(), step)
        state.optimizer.zero_grad()
        parts = [((one * (step + 1)).sin() ** 2).sum() for group in state.groups for one in group.parameters.values()]
        torch.stack(parts).sum().backward()
        state.optimizer.step()


def test_a_checkpoint_of_the_first_format_goes_on_as_one_of_today_does():
    old = Path(__file__).with_name("checkpoint_version_1.safetensors")
    resumed, straight = of_format_1(), of_format_1()
    assert read_checkpoint(old, fingerprint="a recipe", state=resumed) == 3
    steps_of(straight, 0, 3)
    for one, other in zip(values_of(resumed), values_of(straight), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)
        assert one.stride() == other.stride()
    steps_of(resumed, 3, 6)
    steps_of(straight, 3, 6)
    for one, other in zip(values_of(resumed), values_of(straight), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)


def values_of(state: TrainingState) -> list[torch.Tensor]:
    """Weights and moments, parameter by parameter."""
    found: list[torch.Tensor] = []
    for group in state.groups:
        for parameter in group.parameters.values():
            kept = state.optimizer.state[parameter]
            found += [parameter.detach(), kept["exp_avg"], kept["exp_avg_sq"], kept["step"]]
    return found


def test_reading_takes_one_tensor_of_memory_beside_the_state(tmp_path: Path):
    size = 32 * 1024 * 1024
    parameters = {f"unet.{number}": torch.nn.Parameter(torch.ones(size // 4)) for number in range(4)}
    groups = (ParameterGroup("unet", parameters, 1e-3, 0.0),)
    state = TrainingState(groups, ADAMW.begin(groups))
    for parameter in parameters.values():
        moment = torch.zeros(()).expand_as(parameter)  # no memory of its own
        state.optimizer.state[parameter] = {"step": torch.tensor(1.0), "exp_avg": moment, "exp_avg_sq": moment}
    write_checkpoint(tmp_path / "file", step=1, fingerprint="a recipe", owner="a job", state=state)
    state.optimizer.state.clear()
    before = peak_bytes(reset=True)
    read_checkpoint(tmp_path / "file", fingerprint="a recipe", state=state)
    moments = 2 * len(parameters) * size
    assert moments < peak_bytes() - before < moments + 1.5 * size


def peak_bytes(*, reset: bool = False) -> int:
    """The most memory that this process had since it was last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
