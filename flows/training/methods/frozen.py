"""The tensors that a training may not change: hashed before it and after it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial

from torch import nn

from flows.diffusion.families.deferred import is_read, when_read
from flows.diffusion.families.protocol import Components
from flows.runs.liveness import advanced
from flows.training.methods.protocol import ParameterGroup, parameters_of
from flows.training.tensor_files import bytes_of
from storage.errors import JobCannotSucceed


class FrozenWeightsChanged(JobCannotSucceed):
    """Training has changed weights that were to stay as the base has them."""

    code = "frozen_weights_changed"


@dataclass(frozen=True)
class FrozenTensors:
    """SHA-256 (hex) of each frozen tensor, by its name in the base: `unet.conv_in.weight`.

    `unread` are the parts that nobody has loaded: there is nothing of them that could have changed.
    """

    hashes: Mapping[str, str]
    unread: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """One hash of all of them, with their names."""
        lines = "".join(f"{name} {digest}\n" for name, digest in sorted(self.hashes.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def summary(self) -> str:
        """What a log says of them once they were compared."""
        unread = f"; not loaded: {', '.join(self.unread)}" if self.unread else ""
        return f"{len(self.hashes)} frozen tensors are the base's, SHA-256 {self.sha256}{unread}"


class FrozenWatch:
    """The frozen tensors of components as the base has them, to be compared with what a training leaves.

    They are hashed when this is made; those of a part that is deferred when it is read, before anybody else has it.
    """

    def __init__(self, components: Components, groups: Sequence[ParameterGroup]) -> None:
        self._components, self._groups = components, groups
        self._before: dict[str, str] = {}
        self._dropped: dict[str, str] = {}
        self._compared = False
        for component, module in components.modules.items():
            when_read(module, partial(self._note, component), partial(self._compare_dropped, component))

    def compare(self) -> FrozenTensors:
        """Hash again all that was loaded; returns what was compared. Raises FrozenWeightsChanged."""
        after = frozen_tensors(self._components, self._groups)
        self._compared = True  # what is read from now on is compared with nothing
        hashes = {**self._dropped, **after.hashes}
        unread = set(after.unread) - {name.partition(".")[0] for name in self._dropped}
        compared = FrozenTensors(hashes, tuple(sorted(unread)))
        check_frozen(FrozenTensors(self._before), compared)
        return compared

    def _note(self, component: str, module: nn.Module) -> None:
        # Of a part that is dropped and read again, the first time counts.
        if not (self._compared or self._of(component)):
            self._before |= _hashes(component, module, _ids(self._groups))

    def _compare_dropped(self, component: str, module: nn.Module) -> None:
        # What was drawn with it counts, though it is gone now.
        if not self._compared:
            found = _hashes(component, module, _ids(self._groups))
            check_frozen(FrozenTensors(self._of(component)), FrozenTensors(found))
            self._dropped |= found

    def _of(self, component: str) -> dict[str, str]:
        return {name: digest for name, digest in self._before.items() if name.partition(".")[0] == component}


def frozen_tensors(components: Components, groups: Iterable[ParameterGroup]) -> FrozenTensors:
    """The components' parameters and buffers that are in none of `groups`, as far as they are loaded.

    An adapter's are no part of the base.
    """
    trained, hashes = _ids(groups), dict[str, str]()
    loaded = {name: module for name, module in components.modules.items() if is_read(module)}
    for component, module in loaded.items():
        hashes |= _hashes(component, module, trained)
    return FrozenTensors(hashes, tuple(sorted(components.modules.keys() - loaded.keys())))


def check_frozen(before: FrozenTensors, after: FrozenTensors) -> None:
    """Raises FrozenWeightsChanged naming the first tensors that differ, or that only one of both has."""
    names = sorted({name for name, _ in before.hashes.items() ^ after.hashes.items()})
    if names:
        raise FrozenWeightsChanged(
            f"{len(names)} frozen tensors are not the base's after training, {', '.join(names[:3])} among them. "
            "This is a fault of the trainer: nothing was published. Report it with the job's recipe."
        )


def _ids(groups: Iterable[ParameterGroup]) -> frozenset[int]:
    return frozenset(id(parameter) for parameter in parameters_of(groups).values())


def _hashes(component: str, module: nn.Module, trained: Set[int]) -> dict[str, str]:
    """Of each tensor of a part that does not train, by its name in the base."""
    found: dict[str, str] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if id(tensor) not in trained:
            # PEFT moves a layer that gets an adapter into one of its own, under this name.
            called = f"{component}.{name.replace('.base_layer.', '.')}"
            found[called] = hashlib.sha256(bytes_of(tensor)).hexdigest()
            advanced()
    return found
