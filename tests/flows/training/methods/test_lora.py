"""The method `lora`: what trains and what stays, and one step of it beside PEFT's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from flows.diffusion.families.protocol import Components
from flows.training.adapters.files import DIFFUSERS_FILE
from flows.training.adapters.layers import NAME
from flows.training.callbacks import Watch
from flows.training.methods.lookup import method_named
from flows.training.methods.protocol import Training
from flows.training.module import DreamBoothModule
from flows.training.version_files import VersionFiles
from storage.errors import JobCannotSucceed
from storage.records.jobs.training import TrainingRecipe
from tests.flows.training.adapters.adapters import lora_recipe, trained_adapter
from tests.flows.training.test_module import diffusers_loss
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, loaded, train, training_images


def begin(components: Components, **changes: Any) -> Training:
    return method_named("lora").begin(FAMILY, components, lora_recipe(**changes))


def trainable(components: Components) -> set[str]:
    return {
        f"{part}.{name}"
        for part, module in components.modules.items()
        for name, one in module.named_parameters()
        if one.requires_grad
    }


def test_adapters_train_and_nothing_else(components: Components) -> None:
    training = begin(components, text_encoder_learning_rate=5e-5)
    assert {group.name: group.learning_rate for group in training.groups} == {"unet": 1e-2, "text_encoder": 5e-5}
    assert training.trains_text
    wanted = {name for group in training.groups for name in group.parameters}
    assert {name.replace(f".{NAME}", "") for name in trainable(components)} == wanted
    assert all(".lora_" in name for name in wanted)
    assert training.finish() == {"unet", "text_encoder"}
    assert trainable(components) == set()


def test_the_text_encoder_has_no_adapter_without_a_rate_of_its_own(components: Components) -> None:
    training = begin(components, text_encoder_learning_rate=0.0)
    assert [group.name for group in training.groups] == ["unet"]
    assert not training.trains_text
    assert not [name for name, _ in components.text_encoder.named_modules() if "lora" in name]


def test_rows_of_the_embedding_table_are_refused(components: Components) -> None:
    with pytest.raises(JobCannotSucceed, match="token learning rate to 0"):
        begin(components, token_learning_rate=1e-3)


def test_a_pattern_that_matches_no_layer_is_refused_with_examples(components: Components) -> None:
    with pytest.raises(JobCannotSucceed, match=r"'unet.\*attn9\*'; there are \d+, for example unet.down_blocks"):
        begin(components, train_only="unet.*attn2*, unet.*attn9*")


@pytest.mark.parametrize("changes", [{}, {"lora_dora": True, "lora_conv": True, "lora_targets": "transformer"}])
def test_a_step_equals_pefts_own(tiny_model: Path, changes: dict[str, Any]) -> None:
    """Diffusers' example: PEFT's configuration, `add_adapter`, its loss; the same weights, noise and timesteps."""
    wanted = lora_recipe(prior_loss_weight=1.0, batch_size=2, **changes)
    ours, theirs = loaded(tiny_model), loaded(tiny_model)
    training = method_named("lora").begin(FAMILY, ours, wanted)
    images = training_images(ours, wanted)
    module = DreamBoothModule(wanted, FAMILY, ours, training, images)
    training.begin_step(0)
    parameters = {name: one for group in training.groups for name, one in group.parameters.items()}
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(parameters.items())):
            if name.endswith("lora_B.weight"):  # zero at first: a step in would be hidden
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    reference = by_peft(theirs, parameters, wanted.lora_dora)
    draw = module.draw(0)
    loss, expected = module.loss_of(draw).total, diffusers_loss(theirs, module, draw, 1.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    expected.backward()
    for name, parameter in parameters.items():
        mine, other = parameter.grad, reference[name].grad
        assert mine is not None
        assert other is not None
        assert torch.linalg.vector_norm(mine - other) <= 1e-5 * torch.linalg.vector_norm(other), name


def by_peft(components: Components, values: dict[str, torch.nn.Parameter], dora: bool) -> dict[str, torch.nn.Parameter]:
    """The same adapter put there by diffusers' and transformers' own calls; its parameters by our names."""
    found: dict[str, torch.nn.Parameter] = {}
    for part in ("unet", "text_encoder"):
        module: Any = components.modules[part]
        layers = {name.removeprefix(f"{part}.").rpartition(".lora_")[0] for name in values if name.startswith(part)}
        module.add_adapter(LoraConfig(r=4, lora_alpha=10, target_modules=sorted(layers), use_dora=dora))
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                plain = f"{part}.{name.replace(f'.{NAME}', '').replace('vector.weight', 'vector')}"
                with torch.no_grad():
                    parameter.copy_(values[plain])
                found[plain] = parameter
    assert found.keys() == values.keys()
    return found


class Killed(Exception):
    """Stands for the end of the process: nothing is written any more."""


@pytest.fixture(scope="module", params=[False, True], ids=["linear", "with convolutions"])
def straight(
    request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingRecipe, VersionFiles]:
    """A recipe, and the files of a training of it that nothing disturbed."""
    wanted = lora_recipe(steps=6, checkpoint_every=2, lora_dropout=0.3, text_encoder_steps=3, lora_conv=request.param)
    return wanted, trained_adapter(tiny_model, tmp_path_factory.mktemp("straight"), wanted)[1]


@pytest.mark.parametrize("dies_at", [1, 3, 5])
def test_a_killed_training_goes_on_to_the_same_bytes(
    straight: tuple[TrainingRecipe, VersionFiles], tiny_model: Path, tmp_path: Path, dies_at: int
) -> None:
    wanted, whole = straight

    def die(step: int) -> None:
        if step == dies_at:
            raise Killed

    again = tmp_path / "again"
    kept = KeptCheckpoints(again / "kept")
    with pytest.raises(Killed):
        train(tiny_model, again, wanted, kept, Watch(check=die))
    assert kept.kept == list(range(2, dies_at, 2))
    resumed = trained_adapter(tiny_model, again, wanted)[1]
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    assert resumed.folder[DIFFUSERS_FILE].read_bytes() == whole.folder[DIFFUSERS_FILE].read_bytes()


def test_a_checkpoint_holds_the_adapter_alone(tiny_model: Path, tmp_path: Path) -> None:
    kept = KeptCheckpoints(tmp_path / "kept")
    train(tiny_model, tmp_path, lora_recipe(steps=1), kept)
    newest = kept.latest()
    assert newest is not None
    unet = tiny_model / "unet" / "diffusion_pytorch_model.safetensors"
    assert newest[1].stat().st_size < unet.stat().st_size
