"""What adapters add is in proportion to their strength, and the same in any company."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from flows.training.adapters.layers import AdapterForm, adapter_parameters, inject
from flows.training.adapters.strengths import switch

KINDS = {"lora": False, "dora": True, "other": True}


@pytest.fixture
def module() -> nn.Module:
    """A convolution and a linear layer with a LoRA and two DoRAs that have learned something."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5)).requires_grad_(False).eval()
    for name, dora in KINDS.items():
        inject(module, AdapterForm(rank=2, alpha=4.0, dora=dora), ["0", "2"], name)
        for parameter in adapter_parameters("it", module, name).values():
            parameter.data += torch.rand(parameter.shape)
    return module


def layer_results(module: nn.Module, **strengths: float) -> list[Tensor]:
    """What each layer makes of something."""
    switch(module, strengths)
    torch.manual_seed(2)
    with torch.no_grad():
        return [module[0](torch.randn(2, 3, 4, 4)), module[2](torch.randn(2, 16))]  # pyright: ignore[reportIndexIssue]


@pytest.mark.parametrize("name", KINDS)
def test_the_difference_to_the_base_is_in_proportion(module: nn.Module, name: str) -> None:
    plain, full, half, none, back = (layer_results(module, **{name: part}) for part in (0.0, 1.0, 0.5, 0.0, -1.0))
    for base, whole, part, zero, other in zip(plain, full, half, none, back, strict=True):
        assert torch.equal(zero, base)
        assert (whole - base).abs().mean() > 0.1
        torch.testing.assert_close(part - base, (whole - base) / 2)
        torch.testing.assert_close(other - base, base - whole)


def test_at_full_strength_it_is_what_peft_computes(module: nn.Module) -> None:
    torch.manual_seed(2)
    module[0].set_adapter(["dora"])  # pyright: ignore[reportIndexIssue]
    with torch.no_grad():
        of_peft = module[0](torch.randn(2, 3, 4, 4))  # pyright: ignore[reportIndexIssue]
    assert torch.equal(layer_results(module, dora=1.0)[0], of_peft)


def test_differences_add_up_in_any_order(module: nn.Module) -> None:
    plain = layer_results(module)
    alone = [layer_results(module, **{name: 0.7}) for name in KINDS]
    for names in permutations(KINDS):
        together = layer_results(module, **dict.fromkeys(names, 0.7))
        for place, (base, result) in enumerate(zip(plain, together, strict=True)):
            torch.testing.assert_close(result - base, sum(one[place] - base for one in alone))


def test_nothing_is_trainable_once_it_is_switched(module: nn.Module) -> None:
    layer_results(module, lora=1.0, dora=1.0)
    assert not [name for name, one in module.named_parameters() if one.requires_grad]
