"""One step of ours beside the same step written with diffusers, as its DreamBooth example does it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import mse_loss

from flows.diffusion.families.protocol import Components
from flows.training.callbacks import Watch
from flows.training.data import MicroBatch
from flows.training.losses import Loss
from flows.training.methods.lookup import method_named
from flows.training.module import DreamBoothModule
from flows.training.optimizers.learning_rates import rate_factor, set_learning_rates
from flows.training.optimizers.lookup import optimizer_named
from storage.records.jobs.training import TrainingRecipe
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, recipe, train_and_export, training_images

PLAIN = recipe(token_learning_rate=0.0, text_encoder_learning_rate=1e-3, batch_size=2)


def module_of(components: Components, wanted: TrainingRecipe) -> tuple[DreamBoothModule, MicroBatch]:
    images = training_images(components, wanted)
    training = method_named(wanted.method).begin(FAMILY, components, wanted)
    module = DreamBoothModule(wanted, FAMILY, components, training, images)
    return module, module.draw(0)


def diffusers_loss(components: Components, module: DreamBoothModule, draw: MicroBatch, weight: float) -> torch.Tensor:
    """The loss of diffusers' train_dreambooth.py for the same latents, noise and timesteps."""
    images = module.images
    assert images.regularization is not None
    latents = torch.cat(
        [
            images.instance.mean[draw.instance_rows]
            + images.instance.std[draw.instance_rows] * draw.posterior_noise[:2],
            images.regularization.mean[draw.regularization_rows]
            + images.regularization.std[draw.regularization_rows] * draw.posterior_noise[2:],
        ]
    )
    noisy = components.noise_schedule.add_noise(latents, draw.noise, draw.timesteps)
    prompts = [module.recipe.instance_prompt] * 2 + [module.recipe.class_prompt] * 2
    ids = components.tokenizer(
        prompts, padding="max_length", max_length=components.tokenizer.model_max_length, return_tensors="pt"
    ).input_ids
    hidden = components.text_encoder(ids)[0]
    predicted = components.unet(noisy, draw.timesteps, hidden).sample
    predicted, predicted_prior = torch.chunk(predicted, 2, dim=0)
    target, target_prior = torch.chunk(draw.noise, 2, dim=0)
    return mse_loss(predicted, target) + weight * mse_loss(predicted_prior, target_prior)


def gradients(module: DreamBoothModule, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    module.zero_grad(set_to_none=True)
    parameters = {name: one for group in module.training_groups for name, one in group.parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    loss.backward()
    return {name: one.grad.clone() for name, one in parameters.items() if one.grad is not None}


def test_a_step_equals_the_diffusers_examples_step(components: Components):
    module, draw = module_of(components, PLAIN)
    ours = module.loss_of(draw).total
    theirs = diffusers_loss(components, module, draw, PLAIN.prior_loss_weight)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    our_gradients, their_gradients = gradients(module, ours), gradients(module, theirs)
    assert our_gradients.keys() == their_gradients.keys()
    assert any(name.startswith("text_encoder.") for name in our_gradients)
    for name, gradient in our_gradients.items():
        assert torch.allclose(gradient, their_gradients[name], atol=1e-5), name


def loss_with(components: Components, module: DreamBoothModule, draw: MicroBatch) -> Loss:
    with torch.no_grad():
        return module.loss_of(draw)


def test_a_permuted_batch_has_the_same_loss(components: Components):
    module, draw = module_of(components, PLAIN)
    order = torch.tensor([1, 0, 3, 2])
    swapped = MicroBatch(
        instance_rows=draw.instance_rows[[1, 0]],
        regularization_rows=draw.regularization_rows[[1, 0]],
        posterior_noise=draw.posterior_noise[order],
        noise=draw.noise[order],
        timesteps=draw.timesteps[order],
    )
    first, second = loss_with(components, module, draw), loss_with(components, module, swapped)
    assert first.instance.item() == pytest.approx(second.instance.item(), rel=1e-5)
    assert first.prior.item() == pytest.approx(second.prior.item(), rel=1e-5)


def test_a_recipe_without_prior_weight_uses_no_class_images(components: Components):
    module, draw = module_of(components, recipe(prior_loss_weight=0.0, batch_size=2))
    assert len(draw.noise) == 2
    loss = loss_with(components, module, draw)
    assert loss.prior.item() == 0.0
    assert loss.total.item() == loss.instance.item()


def test_min_snr_weighs_the_step(components: Components):
    module, draw = module_of(components, PLAIN)
    weighing = recipe(token_learning_rate=0.0, text_encoder_learning_rate=1e-3, batch_size=2, snr_gamma=5.0)
    # Of little noise, of which less is to be learned, and of much, which counts as before.
    for times, less in (([5, 40, 5, 40], True), ([900] * 4, False)):
        draw = replace(draw, timesteps=torch.tensor(times))
        module.recipe = PLAIN
        plain = loss_with(components, module, draw).total.item()
        module.recipe = weighing
        weighed = loss_with(components, module, draw).total.item()
        assert (weighed < 0.9 * plain) == less
        assert less or weighed == pytest.approx(plain, rel=1e-6)


def test_a_velocity_schedule_is_trained_on_velocities(components: Components):
    components.noise_schedule.register_to_config(prediction_type="v_prediction")
    latents, noise = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16)
    times = torch.tensor([10, 900])
    kept = components.noise_schedule.alphas_cumprod[times].reshape(2, 1, 1, 1)
    by_hand = kept.sqrt() * noise - (1 - kept).sqrt() * latents
    assert torch.allclose(FAMILY.noise_target(components, latents, noise, times), by_hand, atol=1e-6)


def test_the_learning_rate_is_a_function_of_the_step(components: Components):
    wanted = recipe(token_learning_rate=1e-2)
    assert [rate_factor(wanted, step) for step in (0, 4, 9, 10, 500)] == [0.1, 0.5, 1.0, 1.0, 1.0]
    training = method_named("full").begin(FAMILY, components, wanted)
    optimizer = optimizer_named("adamw").begin(training.groups)
    set_learning_rates(optimizer, training.groups, wanted, 4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-4, 5e-3])


def test_training_lowers_the_loss_and_leaves_the_frozen_files_as_they_were(tiny_model: Path, tmp_path: Path):
    wanted = recipe(token_learning_rate=0.0, steps=40, checkpoint_every=100, prior_loss_weight=0.5)
    losses: list[float] = []
    from_watch = KeptCheckpoints(tmp_path / "kept")
    export = train_and_export(tiny_model, tmp_path, wanted, from_watch, watch_losses(losses))
    assert sum(losses[-10:]) < sum(losses[:10])
    for frozen in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (export.folder / frozen).read_bytes() == (tiny_model / frozen).read_bytes(), frozen
    unet = "unet/diffusion_pytorch_model.safetensors"
    assert (export.folder / unet).read_bytes() != (tiny_model / unet).read_bytes()


def watch_losses(losses: list[float]) -> Watch:
    return Watch(on_step=lambda report: losses.append(report.loss))
