"""What does not train is the base's afterwards, bit for bit, or the job fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flows.diffusion.families.protocol import Components
from flows.training.callbacks import Watch
from flows.training.fit import fit
from flows.training.methods.frozen import FrozenTensors, FrozenWeightsChanged, check_frozen, frozen_tensors
from flows.training.methods.lookup import method_named
from storage.records.jobs.training import TrainingRecipe
from tests.flows.training.adapters.adapters import lora_recipe
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, recipe, train, training_images

PLANS: dict[str, TrainingRecipe] = {
    "the whole UNet and the identifier": recipe(steps=2, prior_loss_weight=0.0),
    "some of UNet and text encoder": recipe(
        steps=2,
        prior_loss_weight=0.0,
        text_encoder_learning_rate=1e-3,
        train_only="unet.*attn2*,text_encoder.*layers.0.mlp*",
    ),
    "an adapter": lora_recipe(steps=2),
}


@pytest.mark.parametrize("plan", PLANS)
def test_every_frozen_tensor_is_the_bases_after_training(tiny_model: Path, tmp_path: Path, plan: str) -> None:
    wanted, reported = PLANS[plan], list[FrozenTensors]()
    watch = Watch(on_frozen=reported.append)
    components, _ = train(tiny_model, tmp_path, wanted, KeptCheckpoints(tmp_path / "kept"), watch)
    [frozen] = reported
    base = tensors_of(FAMILY.load(tiny_model))
    after = tensors_of(components)
    changed = {name for name, tensor in base.items() if not torch.equal(tensor, after[name])}
    assert changed.isdisjoint(frozen.hashes) or changed & set(frozen.hashes) == {TABLE}
    assert len(frozen.hashes) + len(base.keys() - frozen.hashes.keys()) == len(base)
    assert bool(changed) == (wanted.method == "full")


TABLE = "text_encoder.embeddings.token_embedding.weight"
"""Of the identifier's table, other rows than its own are frozen; its own are written back behind the check."""


def tensors_of(components: Components) -> dict[str, torch.Tensor]:
    """Every tensor of the base, by its own name."""
    return {
        f"{part}.{name.replace('.base_layer.', '.')}": tensor
        for part, module in components.modules.items()
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        if ".lora_" not in name
    }


def test_a_pattern_trains_what_it_names(components: Components) -> None:
    wanted = PLANS["some of UNet and text encoder"]
    training = method_named("full").begin(FAMILY, components, wanted)
    names = {group.name: list(group.parameters) for group in training.groups}
    assert names.keys() == {"unet", "text_encoder"}, "the identifier's rows are named by no pattern"
    assert all("attn2" in name for name in names["unet"])
    assert all("layers.0.mlp" in name for name in names["text_encoder"])
    assert training.finish() == {"unet", "text_encoder"}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_frozen_weight_that_changed_fails_the_job(components: Components, tmp_path: Path, method: str) -> None:
    wanted = recipe(steps=2, prior_loss_weight=0.0) if method == "full" else lora_recipe(steps=2)

    def meddle(step: int) -> None:
        with torch.no_grad():
            next(components.vae.parameters()).add_(1e-3)

    with pytest.raises(FrozenWeightsChanged, match=r"1 frozen tensors are not the base's .* vae\.") as failed:
        fit(
            wanted,
            FAMILY,
            components,
            training_images(components, wanted),
            recipe_hash="hash",
            newest=None,
            checkpoints=KeptCheckpoints(tmp_path / "kept"),
            work_folder=tmp_path,
            watch=Watch(check=meddle),
        )
    assert failed.value.code == "frozen_weights_changed"


def test_a_tensor_that_is_gone_is_a_change() -> None:
    one, two = FrozenTensors({"a": "1", "b": "2"}), FrozenTensors({"a": "1"})
    assert one.sha256 != two.sha256
    with pytest.raises(FrozenWeightsChanged, match="b among them"):
        check_frozen(one, two)
    check_frozen(one, FrozenTensors({"b": "2", "a": "1"}))


def test_the_names_do_not_depend_on_an_adapter(components: Components) -> None:
    plain = frozen_tensors(components, [])
    training = method_named("lora").begin(FAMILY, components, lora_recipe())
    assert frozen_tensors(components, training.groups) == plain
