"""What trains has a gradient: a training that would leave some of it as it was does not begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.protocol import Components
from flows.training.methods.gradients import WeightsWithoutGradient, check_gradients
from flows.training.methods.lookup import method_named
from flows.training.methods.protocol import Training, parameters_of
from tests.flows.diffusion.families.tiny_sdxl import write_tiny_sdxl
from tests.flows.training.adapters.adapters import lora_recipe
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, recipe, train


def begun(components: Components, without: str = "", **changes: Any) -> Training:
    """A training whose parameters have gradients, but for those with `without` in their name."""
    training = method_named("lora").begin(FAMILY, components, lora_recipe(**changes))
    for name, parameter in parameters_of(training.groups).items():
        if not without or without not in name:
            parameter.grad = torch.ones_like(parameter)
    return training


def test_weights_without_a_gradient_are_named(components: Components) -> None:
    training = begun(components, "text_encoder", text_encoder_learning_rate=1e-4)
    with pytest.raises(WeightsWithoutGradient, match=r"text_encoder\.\S+lora_A\.weight, .* no step was taken") as found:
        check_gradients(training.groups, FAMILY, components, lora_recipe())
    assert found.value.code == "weights_without_gradient"


def test_a_text_encoder_may_have_none_where_captions_are_dropped(components: Components) -> None:
    wanted = {"caption_dropout": 0.5, "text_encoder_learning_rate": 1e-4}
    training = begun(components, "text_encoder", **wanted)
    check_gradients(training.groups, FAMILY, components, lora_recipe(**wanted))
    some = next(iter(training.groups[1].parameters.values()))
    some.grad = torch.ones_like(some)
    with pytest.raises(WeightsWithoutGradient):
        check_gradients(training.groups, FAMILY, components, lora_recipe(**wanted))


def test_what_trains_no_longer_needs_none(components: Components) -> None:
    training = begun(components, "text_encoder", text_encoder_steps=1, text_encoder_learning_rate=1e-4)
    training.begin_step(1)
    check_gradients(training.groups, FAMILY, components, lora_recipe())


def test_a_fit_ends_before_its_first_step(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As convolutions beside a base in 16 bits would, were they those of the base."""
    monkeypatch.setattr("flows.training.adapters.layers.trainable", lambda layer: layer)
    wanted = lora_recipe(
        precision="bf16", frozen_precision="bf16", lora_conv=True, text_encoder_learning_rate=0.0, steps=1
    )
    kept = KeptCheckpoints(tmp_path / "kept")
    with pytest.raises(WeightsWithoutGradient, match=r"unet\.\S+conv1\.lora_A\.weight"):
        train(tiny_model, tmp_path, wanted, kept)
    assert kept.kept == []


@pytest.mark.parametrize("method", ["full", "lora"])
def test_sdxl_trains_whole_but_for_what_it_never_reads(tmp_path: Path, method: str) -> None:
    base, family = tmp_path / "base", family_named("sdxl")
    write_tiny_sdxl(base)
    changes: dict[str, Any] = {"family": "sdxl", "text_encoder_learning_rate": 1e-4, "steps": 1}
    wanted = recipe(**changes) if method == "full" else lora_recipe(**changes)
    components, _ = train(base, tmp_path, wanted, KeptCheckpoints(tmp_path / "kept"))
    patterns = family.unused_weights(components)
    assert patterns == ("text_encoder.*layers.1.*", "text_encoder.*final_layer_norm.*")
