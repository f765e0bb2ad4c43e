"""One DreamBooth training step as a Lightning module: draw, noise, predict, compare, weigh against the prior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from flows.diffusion.families.protocol import Components, Conditioning, Family
from flows.training.averages import AveragedWeights
from flows.training.checkpoints import TrainingState
from flows.training.data import StepDraw, TrainingImages, counter_seed, draw_step
from flows.training.losses import Loss, instance_loss, min_snr_weights, prior_preservation_loss
from flows.training.methods.protocol import ParameterGroup, Training
from flows.training.optimizers.clipping import clip_gradients
from flows.training.optimizers.learning_rates import set_learning_rates
from flows.training.optimizers.lookup import optimizer_named
from storage.records.jobs.training import TrainingRecipe


class DreamBoothModule(LightningModule):
    """Fine-tunes components on instance images, held to the class by regularization images.

    A batch is the number of a step, from 0; everything else follows from it and the recipe. `snr_gamma` switches on
    min-SNR weights (Hang et al. 2023).
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        family: Family,
        components: Components,
        training: Training,
        images: TrainingImages,
        snr_gamma: float | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.family = family
        self.components = components
        self.training_groups = training.groups
        self.trains_text = training.trains_text
        self.images = images
        self.snr_gamma = snr_gamma
        self.unet = components.unet  # registered, so that Lightning sees what trains
        self.unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = optimizer_named(recipe.optimizer).begin(training.groups)
        self.averaged = AveragedWeights(training.groups, self.optimizer, recipe.ema_decay)
        self.last_loss: Loss | None = None
        self.gradient_norm = 0.0
        self._frozen_conditioning: Conditioning | None = None

    @property
    def training_state(self) -> TrainingState:
        """What a checkpoint holds."""
        return TrainingState(self.training_groups, self.optimizer, self.averaged.averages)

    def training_step(self, batch: int, batch_idx: int = 0) -> Tensor:
        """The loss of step `batch`: a scalar with its gradient."""
        draw = draw_step(
            self.images,
            seed=self.recipe.seed,
            step=batch,
            batch_size=self.recipe.batch_size,
            timesteps=self.components.noise_schedule.config.num_train_timesteps,
        )
        # Dropout, where a base model has any, is the only thing that reads the global generator.
        torch.manual_seed(counter_seed(self.recipe.seed, "dropout", batch))
        self.last_loss = self.loss_of(draw)
        return self.last_loss.total

    def loss_of(self, draw: StepDraw) -> Loss:
        """The loss on what was drawn."""
        device = self.components.device
        schedule = self.components.noise_schedule
        timesteps, noise = draw.timesteps.to(device), draw.noise.to(device)
        latents = self._latents(draw, device)
        noisy = schedule.add_noise(latents, noise, timesteps).contiguous(memory_format=torch.channels_last)
        instance_rows = len(draw.instance_rows)
        conditioning = self._conditioning().take([0] * instance_rows + [1] * len(draw.regularization_rows))
        predicted = self.family.predict(self.components, noisy, timesteps, conditioning)
        target = self.family.noise_target(self.components, latents, noise, timesteps)
        weights = None
        if self.snr_gamma is not None:
            kind = schedule.config.prediction_type
            weights = min_snr_weights(schedule.alphas_cumprod, timesteps, self.snr_gamma, kind)
        if self.images.regularization is None:
            return instance_loss(predicted, target, weights)
        return prior_preservation_loss(predicted, target, self.recipe.prior_loss_weight, weights)

    def configure_optimizers(self) -> Optimizer:
        """The optimizer, with the state of a checkpoint if one was read."""
        return self.optimizer

    def on_train_batch_start(self, batch: int, batch_idx: int) -> None:
        """Set each group's learning rate for step `batch`."""
        set_learning_rates(self.optimizer, self.training_groups, self.recipe, batch)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip all gradients together to the recipe's norm and keep the norm for the metrics."""
        # Over all groups together, whatever Lightning's own setting says: it clips none by default.
        self.gradient_norm = clip_gradients(_parameters(self.training_groups), self.recipe.max_gradient_norm)

    def _latents(self, draw: StepDraw, device: torch.device) -> Tensor:
        rows = len(draw.instance_rows)
        posterior = draw.posterior_noise.to(device)
        latents = self.images.instance.sample(draw.instance_rows.to(device), posterior[:rows])
        if self.images.regularization is not None:
            prior = self.images.regularization.sample(draw.regularization_rows.to(device), posterior[rows:])
            latents = torch.cat([latents, prior])
        return latents

    def _conditioning(self) -> Conditioning:
        """Row 0: the instance prompt; row 1: the class prompt. Encoded once if the text encoder is frozen."""
        if self._frozen_conditioning is not None:
            return self._frozen_conditioning
        prompts = [self.recipe.instance_prompt]
        if self.images.regularization is not None:
            prompts.append(self.recipe.class_prompt)
        conditioning = self.family.encode_prompts(self.components, prompts)
        if not self.trains_text:
            self._frozen_conditioning = conditioning.detach()
        return conditioning


def _parameters(groups: Sequence[ParameterGroup]) -> list[nn.Parameter]:
    return [parameter for group in groups for parameter in group.parameters.values()]
