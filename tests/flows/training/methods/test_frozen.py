"""What does not train is the base's afterwards, bit for bit, or the job fails."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.diffusion.families.protocol import Components
from flows.training.callbacks import Watch
from flows.training.fit import fit
from flows.training.methods.frozen import FrozenTensors, FrozenWeightsChanged, check_frozen, frozen_tensors
from flows.training.methods.lookup import method_named
from flows.training.photos.latents import TrainingImages
from storage.records.jobs.training import TrainingRecipe
from tests.flows.training.adapters.adapters import lora_recipe
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, loaded, recipe, train, training_images

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
    base = tensors_of(loaded(tiny_model))
    after = tensors_of(components)
    changed = {name for name, tensor in base.items() if not torch.equal(tensor, after[name])}
    assert changed.isdisjoint(frozen.hashes) or changed & set(frozen.hashes) == {TABLE}
    # All but what trains, buffers among them.
    trained = {name for name in base if any(fnmatchcase(name, pattern) for pattern in TRAINED[plan])}
    assert base.keys() - frozen.hashes.keys() == trained
    assert frozen.hashes.keys() <= base.keys()
    assert bool(changed) == (wanted.method == "full")


TRAINED = {
    "the whole UNet and the identifier": ("unet.*",),
    "some of UNet and text encoder": ("unet.*attn2*", "text_encoder.*layers.0.mlp*"),
    "an adapter": (),
}
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


def deferred(base: Path, wanted: TrainingRecipe) -> tuple[Components, TrainingImages]:
    """Parts as a job has them whose images and prompts are encoded already, and those images."""
    torch.set_num_threads(1)
    images = training_images(loaded(base), wanted)
    return FAMILY.load(base, frozenset({"vae", "text_encoder"})), images


def fitted(
    base: Path, folder: Path, wanted: TrainingRecipe, use: Callable[[Components], object]
) -> list[FrozenTensors]:
    """What a fit reports of frozen tensors that has deferred parts, used by `use` after each step."""
    parts, images = deferred(base, wanted)
    reported: list[FrozenTensors] = []
    folder.mkdir(exist_ok=True)

    def check(step: int) -> None:
        use(parts)

    fit(
        wanted,
        FAMILY,
        parts,
        images,
        recipe_hash="hash",
        newest=None,
        checkpoints=KeptCheckpoints(folder / "kept"),
        work_folder=folder,
        watch=Watch(check=check, on_frozen=reported.append),
    )
    return reported


def test_what_was_read_late_is_compared_and_what_was_not_read_is_named(tiny_model: Path, tmp_path: Path) -> None:
    wanted = recipe(steps=2, prior_loss_weight=0.0, token_learning_rate=0.0)
    [unread] = fitted(tiny_model, tmp_path / "one", wanted, lambda parts: None)
    assert unread.unread == ("vae",), "the prompt was encoded"
    assert {name.partition(".")[0] for name in unread.hashes} == {"text_encoder"}, "compared as it was dropped"
    assert unread.summary.endswith("; not loaded: vae")
    [read] = fitted(tiny_model, tmp_path / "two", wanted, lambda parts: parts.vae.state_dict())
    assert read.unread == ()
    assert read.hashes == {
        name: digest
        for name, digest in frozen_tensors(loaded(tiny_model), []).hashes.items()
        if not name.startswith("unet.")
    }
    assert unread.hashes.items() < read.hashes.items()


def test_a_part_that_is_read_during_the_training_must_not_change(tiny_model: Path, tmp_path: Path) -> None:
    def meddle(parts: Components) -> None:
        vae: Any = parts.vae
        with torch.no_grad():
            vae.decoder.conv_out.weight.add_(1e-3)

    wanted = recipe(steps=2, prior_loss_weight=0.0, token_learning_rate=0.0)
    with pytest.raises(FrozenWeightsChanged, match=r"1 frozen tensors .* vae\.decoder\.conv_out\.weight among them"):
        fitted(tiny_model, tmp_path, wanted, meddle)


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
