"""The loss on a fixed grid: a number of the weights alone, that changes nothing of the training it watches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.diffusion.families.protocol import Components
from flows.runs.liveness import PROCESS
from flows.training.callbacks import Watch
from flows.training.fit import fit
from flows.training.metrics.validation import (
    ValidationGrid,
    ValidationSet,
    measured_at,
    photo_set_name,
    photos_of_set,
)
from flows.training.photos.encodings import EncodingCache
from flows.training.photos.latents import encode_images
from storage.blobs.cached_files import CachedFiles
from storage.records.jobs.training import TrainingRecipe
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, loaded, pictures, recipe, training_images

Losses = dict[int, dict[str, float]]


class Killed(Exception):
    """The process ends here."""


def grid_of(components: Components, wanted: TrainingRecipe) -> ValidationGrid:
    def measured(name: str, purpose: str, prompt: str) -> ValidationSet:
        latents = encode_images(FAMILY, components, pictures(2, purpose), wanted.resolution)
        return ValidationSet(name, latents, (prompt,) * 2)

    return ValidationGrid(
        FAMILY,
        wanted,
        (
            measured("training_photos", "pictures", wanted.instance_prompt),
            measured("class_images", "other", wanted.class_prompt),
        ),
    )


def test_each_pass_of_a_measurement_is_a_sign_of_progress(tiny_model: Path) -> None:
    wanted = recipe()
    components = loaded(tiny_model)
    grid, before = grid_of(components, wanted), PROCESS.count
    grid.losses(components)
    assert PROCESS.count - before >= 8, "two sets of two images, each in two passes"


def trained(
    base: Path,
    work: Path,
    wanted: TrainingRecipe,
    losses: Losses | None,
    before: Callable[[int], None] = lambda step: None,
) -> dict[str, torch.Tensor]:
    """The weights of a training that goes on from what `work` holds; with `losses` it is measured."""
    torch.set_num_threads(1)
    components = loaded(base)
    grid = grid_of(components, wanted)

    def measure(step: int) -> None:
        before(step)
        if losses is not None:
            losses[step] = grid.losses(components)

    checkpoints = KeptCheckpoints(work / "kept")
    newest = checkpoints.latest()
    work.mkdir(exist_ok=True)
    fit(
        wanted if losses is not None else recipe_without(wanted),
        FAMILY,
        components,
        training_images(components, wanted),
        recipe_hash="the same",
        newest=newest[1] if newest else None,
        checkpoints=checkpoints,
        work_folder=work,
        watch=Watch(on_validation=measure),
    )
    return {
        f"{name}.{key}": tensor.clone()
        for name, module in components.modules.items()
        for key, tensor in module.state_dict().items()
    }


def recipe_without(wanted: TrainingRecipe) -> TrainingRecipe:
    return recipe(**{**{n: getattr(wanted, n) for n in wanted.__struct_fields__}, "validation_every": 0})


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"text_encoder_learning_rate": 1e-4},
        {"optimizer": "adamw_schedule_free", "text_encoder_learning_rate": 1e-4},
        {"ema_decay": 0.9},
        {"method": "lora", "lora_alpha": 16.0, "lora_dropout": 0.3, "token_learning_rate": 0.0},
    ],
    ids=["plain", "schedule-free", "ema", "dropout"],
)
def test_a_training_that_is_measured_ends_with_the_bytes_of_one_that_is_not(
    fields: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    wanted, losses = recipe(steps=3, checkpoint_every=2, validation_every=1, **fields), dict[int, dict[str, float]]()
    measured = trained(tiny_model, tmp_path / "measured", wanted, losses)
    assert_equal(measured, trained(tiny_model, tmp_path / "plain", wanted, None))
    assert list(losses) == [0, 1, 2, 3]
    assert losses[0].keys() == {"validation_loss.training_photos", "validation_loss.class_images"}
    assert len({each["validation_loss.training_photos"] for each in losses.values()}) == 4


def test_a_resumed_training_measures_what_an_unbroken_one_does_whenever_it_died(
    tiny_model: Path, tmp_path: Path
) -> None:
    wanted, straight = recipe(steps=5, checkpoint_every=2, validation_every=2), dict[int, dict[str, float]]()
    whole = trained(tiny_model, tmp_path / "straight", wanted, straight)
    assert list(straight) == [0, 2, 4, 5]

    def die(step: int) -> None:
        if step == 4:
            raise Killed

    broken = dict[int, dict[str, float]]()
    # Behind the checkpoint of step 4 and before its measurement.
    with pytest.raises(Killed):
        trained(tiny_model, tmp_path / "broken", wanted, broken, die)
    assert list(broken) == [0, 2]
    assert_equal(whole, trained(tiny_model, tmp_path / "broken", wanted, broken))
    assert broken == straight


def test_the_last_measurement_is_made_good_after_a_death_behind_the_last_checkpoint(
    tiny_model: Path, tmp_path: Path
) -> None:
    wanted, straight = recipe(steps=2, checkpoint_every=2, validation_every=1), dict[int, dict[str, float]]()
    whole = trained(tiny_model, tmp_path / "straight", wanted, straight)
    broken = {step: loss for step, loss in straight.items() if step < 2}
    assert_equal(whole, trained(tiny_model, tmp_path / "straight", wanted, broken))
    assert broken == straight


def test_equal_weights_have_equal_losses_and_other_weights_others(components: Components) -> None:
    wanted = recipe(validation_every=1)
    grid = grid_of(components, wanted)
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first = grid.losses(components)
    components.unet.train()
    assert grid.losses(components) == first, "the mode in which a part trains is no part of the measurement"
    assert components.unet.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert 0.1 < first["validation_loss.training_photos"] < 10
    with torch.no_grad():
        next(components.unet.parameters()).mul_(1.5)
    assert grid.losses(components) != first
    assert grid_of(components, recipe(seed=8)).losses(components) != grid.losses(components)


def test_each_image_meets_the_same_times_with_noise_of_its_own_and_its_own_prompt(components: Components) -> None:
    prompts = ("a photo of a mug", "a car in the snow")
    latents = encode_images(FAMILY, components, pictures(2), 64)
    grid = ValidationGrid(FAMILY, recipe(), (ValidationSet("photos", latents, prompts),))
    calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    components.unet.register_forward_pre_hook(
        lambda unet, given, named: calls.append((*given, named["encoder_hidden_states"])), with_kwargs=True
    )
    grid.losses(components)
    noisy, times, states = (torch.cat(parts) for parts in zip(*calls, strict=True))
    assert times.tolist() == pytest.approx([50, 350, 650, 950] * 2, abs=1)
    kept = components.noise_schedule.alphas_cumprod[times].reshape(-1, 1, 1, 1)
    noise = (noisy - kept.sqrt() * latents.mean.repeat_interleave(4, 0)) / (1 - kept).sqrt()
    assert noise.std().item() == pytest.approx(1, abs=0.1)
    apart = [(noise[one] - noise[other]).abs().mean().item() for one in range(8) for other in range(one)]
    assert min(apart) > 0.5
    with torch.no_grad():
        encoded = FAMILY.encode_prompts(components, prompts).tensors["encoder_hidden_states"]
    assert torch.allclose(states, encoded.repeat_interleave(4, 0), atol=1e-5)


def test_a_text_encoder_that_trains_is_measured_as_it_is_now(components: Components, tmp_path: Path) -> None:
    wanted = recipe(text_encoder_learning_rate=1e-4)
    plain = grid_of(components, wanted)
    parts = {"vae": "0" * 64, "text_encoder": "0" * 64, "tokenizer": "0" * 64}
    grid = ValidationGrid(FAMILY, wanted, plain.sets, EncodingCache(CachedFiles(tmp_path), parts, FAMILY, wanted))
    first = grid.losses(components)
    with torch.no_grad():
        FAMILY.token_embedding(components).weight.mul_(-1)
    assert grid.losses(components) != first
    assert grid.losses(components) == plain.losses(components)


def test_a_part_that_is_read_for_the_measurement_is_at_rest_afterwards(tiny_model: Path) -> None:
    whole, deferred = loaded(tiny_model), FAMILY.load(tiny_model, frozenset({"vae", "text_encoder"}))
    grid = grid_of(whole, recipe())
    assert grid.losses(deferred) == grid.losses(whole)
    assert [name for name, module in deferred.modules.items() if module.training] == []


def test_with_less_precision_the_loss_stays_about_the_same(components: Components) -> None:
    exact = grid_of(components, recipe()).losses(components)
    rounded = grid_of(components, recipe(precision="bf16")).losses(components)
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.05)


def test_it_is_measured_at_the_beginning_the_end_and_every_so_many_steps() -> None:
    wanted = recipe(steps=7, validation_every=3)
    assert [step for step in range(8) if measured_at(wanted, step)] == [0, 3, 6, 7]
    assert not any(measured_at(recipe(steps=7), step) for step in range(8))


def test_the_name_of_the_photos_says_whether_the_training_has_seen_them() -> None:
    assert (photo_set_name(0), list(photos_of_set(6, 0))) == ("training_photos", [0, 1, 2, 3])
    assert (photo_set_name(2), list(photos_of_set(6, 2))) == ("held_out_photos", [4, 5])
