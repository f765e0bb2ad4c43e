"""What an optimizer step adds up, whichever way its samples are split into passes."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from flows.diffusion.families.protocol import Components
from flows.training.data import MicroBatch
from flows.training.methods.lookup import method_named
from flows.training.module import DreamBoothModule
from storage.records.jobs.training import TrainingRecipe
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, recipe, train_and_export, training_images

Gradients = dict[str, torch.Tensor]
TEXT = {"token_learning_rate": 0.0, "text_encoder_learning_rate": 1e-3}


class GradientsOfAStep(Callback):
    """The gradients that the last optimizer step began with: the sum over its micro-batches."""

    def __init__(self) -> None:
        self.sums: Gradients = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Copy them."""
        assert isinstance(pl_module, DreamBoothModule)
        self.sums = gradients_of(pl_module)


def gradients_of(module: DreamBoothModule) -> Gradients:
    parameters = {name: one for group in module.training_groups for name, one in group.parameters.items()}
    return {name: one.grad.clone() for name, one in parameters.items() if one.grad is not None}


def module_on(folder: Path, wanted: TrainingRecipe, prediction: str = "epsilon") -> DreamBoothModule:
    torch.set_num_threads(1)
    components = FAMILY.load(folder)
    components.noise_schedule.register_to_config(prediction_type=prediction)
    training = method_named(wanted.method).begin(FAMILY, components, wanted)
    return DreamBoothModule(wanted, FAMILY, components, training, training_images(components, wanted))


def step_of(module: DreamBoothModule, step: int = 0) -> Gradients:
    """The sums of gradients of one optimizer step in a real Trainer."""
    seen = GradientsOfAStep()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        callbacks=[seen],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, DataLoader([step], batch_size=None))  # pyright: ignore[reportArgumentType]
    return seen.sums


def rank_of(folder: Path, wanted: TrainingRecipe, number: int) -> Gradients:
    """The gradients of one micro-batch alone, as a rank would have them."""
    module = module_on(folder, wanted)
    module.loss_of(module.draw(number)).total.backward()
    return gradients_of(module)


def assert_near(one: Gradients, other: Gradients, part: float = 1e-5) -> None:
    """No gradient differs by more than `part` of its norm; that of a bias that cancels out is nothing but rounding."""
    assert one.keys() == other.keys()
    whole = torch.stack([gradient.norm() for gradient in one.values()]).norm()
    for name, gradient in one.items():
        norm = max(gradient.norm().item(), 1e-3 * whole.item())
        assert (gradient - other[name]).norm().item() <= part * norm, name


def test_accumulation_of_two_has_the_gradient_sums_of_two_ranks_byte_for_byte(tiny_model: Path):
    wanted = recipe(**TEXT, batch_size=1)
    ours = step_of(module_on(tiny_model, recipe(**TEXT, batch_size=1, accumulation=2)), step=3)
    first, second = (rank_of(tiny_model, wanted, number) for number in (6, 7))
    assert any(name.startswith("text_encoder.") for name in ours)
    for name, gradient in ours.items():
        assert torch.equal(gradient, first[name] + second[name]), name


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 4), (2, 2)])
def test_other_splits_differ_by_rounding(tiny_model: Path, batch_size: int, accumulation: int):
    whole = step_of(module_on(tiny_model, recipe(**TEXT, batch_size=4)))
    module = module_on(tiny_model, recipe(**TEXT, batch_size=batch_size, accumulation=accumulation))
    split = {name: gradient / accumulation for name, gradient in step_of(module).items()}
    assert_near(whole, split)
    norm = torch.stack([gradient.norm() for gradient in split.values()]).norm().item()
    assert module.gradient_norm == pytest.approx(norm, rel=1e-5)  # of the mean, not of the sum


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("snr_gamma", [0.0, 5.0])
def test_a_split_backward_has_the_same_gradients_and_losses(tiny_model: Path, prediction: str, snr_gamma: float):
    wanted: dict[str, Any] = {**TEXT, "batch_size": 2, "prior_loss_weight": 0.7, "snr_gamma": snr_gamma}
    together = module_on(tiny_model, recipe(**wanted), prediction)
    apart = module_on(tiny_model, recipe(**wanted, split_backward=True), prediction)
    assert_near(step_of(together), step_of(apart))
    assert together.last_loss is not None
    assert apart.last_loss is not None
    for one, other in zip(together.last_loss, apart.last_loss, strict=True):
        assert one.item() == pytest.approx(other.item(), rel=1e-5)


def test_min_snr_weighs_every_row_by_its_own_timestep_in_both_forms(components: Components):
    """By hand, on rows of very different noise, instance and prior alike."""
    wanted = recipe(token_learning_rate=0.0, batch_size=2, prior_loss_weight=0.5, snr_gamma=5.0)
    training = method_named(wanted.method).begin(FAMILY, components, wanted)
    module = DreamBoothModule(wanted, FAMILY, components, training, training_images(components, wanted))
    drawn = module.draw(0)
    times = torch.tensor([5, 900, 40, 600])
    draw = MicroBatch(drawn.instance_rows, drawn.regularization_rows, drawn.posterior_noise, drawn.noise, times)
    kept = components.noise_schedule.alphas_cumprod[times]
    snr = kept / (1 - kept)
    for kind, weights in (("epsilon", snr.clamp(max=5) / snr), ("v_prediction", snr.clamp(max=5) / (snr + 1))):
        components.noise_schedule.register_to_config(prediction_type=kind)
        module.recipe = recipe(token_learning_rate=0.0, batch_size=2, prior_loss_weight=0.5)
        with torch.no_grad():
            rows = plain_losses(module, draw)
            module.recipe = wanted
            by_hand = (rows * weights)[:2].mean() + 0.5 * (rows * weights)[2:].mean()
            split = sum(loss.total for loss in module.split_losses_of(draw))
            assert module.loss_of(draw).total.item() == pytest.approx(by_hand.item(), rel=1e-4), kind
            assert float(split) == pytest.approx(by_hand.item(), rel=1e-4), kind


def plain_losses(module: DreamBoothModule, draw: MicroBatch) -> torch.Tensor:
    """The unweighted loss of each row of a micro-batch of 2 + 2, from passes over one row each."""
    losses: list[torch.Tensor] = []
    for row in range(2):
        one = MicroBatch(
            draw.instance_rows[[row]],
            draw.regularization_rows[[row]],
            draw.posterior_noise[[row, 2 + row]],
            draw.noise[[row, 2 + row]],
            draw.timesteps[[row, 2 + row]],
        )
        found = module.loss_of(one)
        losses += [found.instance, found.prior]
    return torch.stack([losses[0], losses[2], losses[1], losses[3]])


def test_the_reported_loss_is_the_mean_over_micro_batches(tiny_model: Path):
    module = module_on(tiny_model, recipe(batch_size=1, accumulation=3))
    with torch.no_grad():
        alone = [module.loss_of(module.draw(number)) for number in range(3)]
    step_of(module)
    assert module.last_loss is not None
    for place in range(3):
        assert module.last_loss[place].item() == pytest.approx(sum(loss[place].item() for loss in alone) / 3, rel=1e-5)


def test_a_step_is_a_step_whatever_it_accumulates(tiny_model: Path, tmp_path: Path):
    """Checkpoints and reports count optimizer steps; a resume in the middle ends with the same bytes."""
    wanted = recipe(steps=4, accumulation=2, split_backward=True, caption_dropout=0.5, noise_offset=0.1)
    straight = KeptCheckpoints(tmp_path / "straight")
    through = train_and_export(tiny_model, tmp_path / "a", wanted, straight)
    assert straight.kept == [1, 2, 3, 4]
    cut_off = KeptCheckpoints(tmp_path / "cut off")
    cut_off.folder.mkdir()
    shutil.copy(straight.folder / "2.safetensors", cut_off.folder)
    resumed = train_and_export(tiny_model, tmp_path / "b", wanted, cut_off)
    assert cut_off.kept == [3, 4]
    unet = "unet/diffusion_pytorch_model.safetensors"
    assert (resumed.folder / unet).read_bytes() == (through.folder / unet).read_bytes()
    assert (resumed.folder / unet).read_bytes() != (tiny_model / unet).read_bytes()
