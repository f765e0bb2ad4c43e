"""A copy of a training's state: where there is memory for it, as it was, in buffers that are made once."""

from __future__ import annotations

import torch

from flows.training.checkpointing.host_copies import HostCopies
from flows.training.checkpoints import CheckpointContent

CPU, CARD = torch.device("cpu"), torch.device("cuda")
MIB = 1 << 20


def content(mib: int) -> CheckpointContent:
    return CheckpointContent({"one": torch.zeros(mib * MIB, dtype=torch.uint8)}, {"step": "1"})


def test_beside_a_card_a_copy_takes_at_most_half_of_what_is_free() -> None:
    assert HostCopies(CARD, 0, lambda: 8 * MIB).fit(content(4))
    assert not HostCopies(CARD, 0, lambda: 8 * MIB).fit(content(5))


def test_on_a_cpu_it_takes_at_most_a_tenth_of_the_model_besides() -> None:
    assert HostCopies(CPU, 40 * MIB, lambda: 99 * MIB).fit(content(4))
    assert not HostCopies(CPU, 40 * MIB, lambda: 99 * MIB).fit(content(5))
    assert not HostCopies(CPU, 40 * MIB, lambda: 7 * MIB).fit(content(4))


def test_buffers_count_as_free_are_used_again_and_dropped_with_their_tensor() -> None:
    copies, wanted = HostCopies(CARD, 0, lambda: 4 * MIB), content(4)
    assert not copies.fit(wanted)
    first = copies.take(wanted).tensors["one"]
    assert copies.fit(wanted)
    assert copies.take(wanted).tensors["one"] is first
    assert copies.size == 4 * MIB
    other = CheckpointContent({"two": torch.zeros(3)}, {})
    assert copies.take(other).tensors.keys() == {"two"}
    assert copies.size == 12
    copies.drop()
    assert copies.size == 0


def test_a_copy_has_the_values_of_its_moment_row_by_row() -> None:
    weight = torch.arange(48.0).reshape(1, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    taken = HostCopies(CARD, 0, lambda: MIB).take(CheckpointContent({"weight": weight}, {"step": "3"}))
    weight.zero_()
    assert taken.tensors["weight"].is_contiguous()
    assert taken.tensors["weight"].flatten().tolist() == list(range(48))
    assert taken.metadata == {"step": "3"}
