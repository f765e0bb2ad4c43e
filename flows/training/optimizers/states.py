"""What an optimizer keeps between steps, as tensors and plain values by name, and back again.

Any optimizer of torch's kind fits: tensors of any shape, in dicts of any depth, beside numbers of each parameter and of
each group. Names of a tensor: `state/KEY/PARAMETER` (with more keys between for nested dicts), `groups/KEY/NUMBER`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup, parameters_of
from storage.errors import InvalidCheckpoint

STATE, GROUPS = "state", "groups"
PLAIN = (bool, int, float, str)


def state_tensors(groups: Sequence[ParameterGroup], optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimizer's state, themselves and not copied."""
    found: dict[str, Tensor] = {}
    for name, parameter in parameters_of(groups).items():
        for path, value in _leaves(optimizer.state.get(parameter, {})):
            if isinstance(value, Tensor):
                found["/".join((STATE, *path, name))] = value
    for number, settings in enumerate(optimizer.param_groups):
        for path, value in _leaves(_kept(settings)):
            if isinstance(value, Tensor):
                found["/".join((GROUPS, *path, str(number)))] = value
    return found


def state_values(groups: Sequence[ParameterGroup], optimizer: Optimizer) -> dict[str, Any]:
    """Everything else of it, as JSON can hold it: numbers of parameters by name, of groups by their number."""
    parameters = {
        name: values
        for name, parameter in parameters_of(groups).items()
        if (values := _plain(optimizer.state.get(parameter, {})))
    }
    numbered = {str(number): _plain(_kept(settings)) for number, settings in enumerate(optimizer.param_groups)}
    return {STATE: parameters, GROUPS: numbered}


class StateReader:
    """Puts a kept state into a fresh optimizer of the same kind, tensor by tensor. What is there already goes."""

    def __init__(self, groups: Sequence[ParameterGroup], optimizer: Optimizer) -> None:
        self._parameters, self._optimizer = parameters_of(groups), optimizer

    def check(self, names: Sequence[str], values: Mapping[str, Any]) -> None:
        """Raise InvalidCheckpoint where tensors or values belong to a parameter or a group that is not there."""
        numbers = {str(number) for number in range(len(self._optimizer.param_groups))}
        known = {STATE: self._parameters.keys(), GROUPS: numbers}
        for name in names:
            part, *keys, owner = name.split("/")
            if not keys or owner not in known.get(part, ()):
                raise InvalidCheckpoint(f"the checkpoint holds '{name[:120]}', which this training does not have.")
        for part, owners in values.items():
            if odd := owners.keys() - known.get(part, {}):
                raise InvalidCheckpoint(f"the checkpoint holds numbers of {sorted(odd)[:3]}, which are not trained.")

    def put_values(self, values: Mapping[str, Any]) -> None:
        """Forget the present state, then take over the plain values."""
        for parameter in self._parameters.values():
            self._optimizer.state.pop(parameter, None)
        for name, kept in values.get(STATE, {}).items():
            _update(self._optimizer.state[self._parameters[name]], kept)
        for number, kept in values.get(GROUPS, {}).items():
            _update(self._optimizer.param_groups[int(number)], kept)

    def put_tensor(self, name: str, value: Tensor) -> None:
        """A copy of one tensor, on its parameter's device and with its layout in memory."""
        part, *keys, owner = name.split("/")
        parameter = self._parameters[owner] if part == STATE else self._parameters_of_group(int(owner))
        place = self._optimizer.state[parameter] if part == STATE else self._optimizer.param_groups[int(owner)]
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = self._like(value, parameter, keys[-1])

    def put_steps(self, step: int) -> None:
        """The count of steps of each parameter, which checkpoints of format 1 do not hold."""
        for parameter in self._parameters.values():
            count = torch.tensor(float(step))
            self._optimizer.state[parameter]["step"] = self._like(count, parameter, "step")

    def _parameters_of_group(self, number: int) -> nn.Parameter:
        return cast(nn.Parameter, self._optimizer.param_groups[number]["params"][0])

    def _like(self, value: Tensor, parameter: Tensor, key: str) -> Tensor:
        if value.shape == parameter.shape:
            # In the parameter's own layout, such as channels-last: elsewhere a sum over it would round otherwise.
            return torch.empty_like(parameter, dtype=value.dtype).detach().copy_(value)
        device = _step_device(parameter, self._optimizer) if key == "step" else parameter.device
        return torch.empty(value.shape, dtype=value.dtype, device=device).copy_(value)


def _kept(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "params"}


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What is at the ends of nested dicts, with the keys that lead there."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from (((key, *path), leaf) for path, leaf in _leaves(cast(Mapping[str, Any], value)))
        else:
            yield (key,), value


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without tensors. Raises TypeError for one that JSON does not hold."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Tensor):
            continue
        if isinstance(value, Mapping):
            if inner := _plain(cast(Mapping[str, Any], value)):
                found[key] = inner
        elif value is None or isinstance(value, PLAIN):
            found[key] = value
        elif isinstance(value, list | tuple) and all(one is None or isinstance(one, PLAIN) for one in value):
            found[key] = list(cast("list[Any] | tuple[Any, ...]", value))
        else:
            raise TypeError(f"An optimizer keeps {key} of {type(value).__name__}: no checkpoint can hold it yet.")
    return found


def _update(place: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            _update(place.setdefault(key, {}), cast(Mapping[str, Any], value))
        # JSON knows no tuples, and some optimizers unpack them by their type.
        elif isinstance(value, list) and isinstance(place.get(key), tuple):
            place[key] = tuple(cast("list[Any]", value))
        else:
            place[key] = value


def _step_device(parameter: Tensor, optimizer: Optimizer) -> torch.device:
    # As torch does: the fused and the capturable ones count beside the parameter, others on the CPU.
    fused = bool(optimizer.defaults.get("fused")) or bool(optimizer.defaults.get("capturable"))
    return parameter.device if fused else torch.device("cpu")
