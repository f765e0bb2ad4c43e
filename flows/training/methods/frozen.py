"""The tensors that a training may not change: hashed before it and after it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flows.diffusion.families.protocol import Components
from flows.training.methods.protocol import ParameterGroup, parameters_of
from flows.training.tensor_files import bytes_of
from storage.errors import JobCannotSucceed


class FrozenWeightsChanged(JobCannotSucceed):
    """Training has changed weights that were to stay as the base has them."""

    code = "frozen_weights_changed"


@dataclass(frozen=True)
class FrozenTensors:
    """SHA-256 (hex) of each frozen tensor, by its name in the base: `unet.conv_in.weight`."""

    hashes: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """One hash of all of them, with their names."""
        lines = "".join(f"{name} {digest}\n" for name, digest in sorted(self.hashes.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def frozen_tensors(components: Components, groups: Iterable[ParameterGroup]) -> FrozenTensors:
    """The components' parameters and buffers that are in none of `groups`. An adapter's are no part of the base."""
    trained = {id(parameter) for parameter in parameters_of(groups).values()}
    hashes: dict[str, str] = {}
    for component, module in components.modules.items():
        for tensors in (module.named_parameters(), module.named_buffers()):
            for name, tensor in tensors:
                if id(tensor) not in trained:
                    # PEFT moves a layer that gets an adapter into one of its own, under this name.
                    hashes[f"{component}.{name.replace('.base_layer.', '.')}"] = hashlib.sha256(
                        bytes_of(tensor)
                    ).hexdigest()
    return FrozenTensors(hashes)


def check_frozen(before: FrozenTensors, after: FrozenTensors) -> None:
    """Raises FrozenWeightsChanged naming the first tensors that differ. A part that was read later has no before."""
    parts = {name.partition(".")[0] for name in before.hashes}
    known = {name: digest for name, digest in after.hashes.items() if name.partition(".")[0] in parts}
    changed = sorted(name for name, _ in before.hashes.items() ^ known.items())
    if changed:
        names = sorted(set(changed))
        raise FrozenWeightsChanged(
            f"{len(names)} frozen tensors are not the base's after training, {', '.join(names[:3])} among them. "
            "This is a fault of the trainer: nothing was published. Report it with the job's recipe."
        )
