"""A part that is read when it is first used is the part that would have been read at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flows.diffusion.families.deferred import DeferredModule, drop_weights, is_read, read_now, when_read
from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.protocol import device_of
from flows.diffusion.sampler import draw_images
from flows.starter.networks import write_tiny_model
from storage.records.jobs.sampled_sets import SamplerSettings


class Doubling(nn.Module):
    """Twice its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 2.0))

    def forward(self, value: Tensor) -> Tensor:
        return value * self.weight

    def encode(self, value: Tensor) -> Tensor:
        return self(value) + 1


@pytest.fixture
def reads() -> list[str]:
    """How often a part was read."""
    return []


def deferred(reads: list[str]) -> DeferredModule:
    def read() -> nn.Module:
        reads.append("read")
        return Doubling()

    return DeferredModule(read)


def test_what_is_no_use_reads_nothing(reads: list[str]) -> None:
    part = deferred(reads)
    assert part.to(torch.device("cpu")).eval().requires_grad_(False) is part
    assert list(part.named_parameters()) == list(part.named_buffers()) == []
    part.activation_checkpointing_enable()
    assert not hasattr(part, "__len__")
    assert reads == []


def test_the_first_use_makes_it_the_real_module_for_all_who_have_it(reads: list[str]) -> None:
    part = deferred(reads)
    holder = nn.ModuleDict({"part": part})
    assert torch.equal(part(torch.ones(1)), torch.full((1,), 2.0))
    assert isinstance(part, Doubling)
    assert holder["part"] is part
    assert [name for name, _ in holder.named_parameters()] == ["part.weight"]
    assert torch.equal(part.encode(torch.ones(1)), torch.full((1,), 3.0))
    assert reads == ["read"]


def test_each_way_of_using_it_reads_it_once_and_where_it_was_moved(reads: list[str]) -> None:
    for use in (
        lambda one: one.encode(torch.ones(1, device="meta")),
        lambda one: one.state_dict(),
        read_now,
        device_of,
    ):
        part = deferred(reads).to("meta")
        use(part)
        assert device_of(part).type == "meta"
    assert reads == ["read"] * 4


def test_who_asked_sees_it_as_it_is_read_before_anybody_uses_it(reads: list[str]) -> None:
    part, seen = deferred(reads).to("meta"), list[tuple[str, bool, bool]]()
    when_read(part, lambda one: seen.append((next(one.parameters()).device.type, is_read(one), is_read(part))))
    assert not is_read(part)
    assert (seen, reads) == ([], [])
    part.state_dict()
    assert (seen, reads) == ([("cpu", True, False)], ["read"])
    when_read(part, lambda one: seen.append((next(one.parameters()).device.type, is_read(one), one is part)))
    assert seen[1:] == [("meta", True, True)]


@pytest.mark.parametrize("name", ["vae", "text_encoder"])
def test_a_folder_draws_the_same_with_a_part_deferred(tmp_path: Path, name: str) -> None:
    write_tiny_model(tmp_path / "tiny", seed=0)
    family, sampler = family_named("sd1"), SamplerSettings(steps=2, guidance_scale=3.0)
    whole, other = family.load(tmp_path / "tiny"), family.load(tmp_path / "tiny", frozenset({name}))
    assert isinstance(other.modules[name], DeferredModule)
    assert other.resolution == whole.resolution
    drawn = [draw_images(family, one, ["a mug"], [0], sampler)[0].tobytes() for one in (whole, other)]
    assert drawn[0] == drawn[1]
    assert not any(weight.requires_grad for weight in other.modules[name].parameters())
    assert not other.modules[name].training


def test_a_part_whose_weights_are_dropped_holds_nothing_and_is_read_again_as_it_was(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, seed=0)
    components = family_named("sd1").load(tmp_path, frozenset({"vae"}))
    vae: Any = components.vae
    seen, dropped = list[nn.Module](), list[nn.Module]()
    when_read(vae, seen.append, dropped.append)
    first = vae.decoder.conv_in.weight.clone()
    vae.decoder.conv_in.weight.data.zero_()
    drop_weights(vae)
    assert not is_read(vae)
    assert list(vae.parameters()) == []
    assert vae is components.vae
    assert torch.equal(vae.decoder.conv_in.weight, first)
    assert (len(seen), dropped) == (2, [vae])
    drop_weights(components.unet)
    assert is_read(components.unet)
    assert len(list(components.unet.parameters())) > 0
