"""One DreamBooth training step as a Lightning module: draw, noise, predict, compare, weigh against the prior.

A Lightning batch is the number of an optimizer step. The step's micro-batches, and the two losses of each where the
recipe splits them, are separate forward and backward passes within `training_step`: gradients are summed in their
order and then divided by `accumulation`, as ranks with one micro-batch each would do it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from flows.diffusion.compiling import compiled_unet, named_compile_errors
from flows.diffusion.families.protocol import Components, Conditioning, Family, ImageSizes
from flows.diffusion.memory import image_layout, lay_out_weights
from flows.diffusion.resting import RestingParts
from flows.runs.liveness import advanced
from flows.training.averages import AveragedWeights
from flows.training.checkpoints import TrainingState
from flows.training.data import MicroBatch, draw_micro_batch
from flows.training.losses import Loss, instance_loss, mean_loss, min_snr_weights, prior_preservation_loss
from flows.training.methods.gradients import check_gradients
from flows.training.methods.protocol import Training, parameters_of
from flows.training.optimizers.clipping import clip_gradients
from flows.training.optimizers.learning_rates import set_learning_rates
from flows.training.optimizers.lookup import optimizer_named
from flows.training.optimizers.protocol import leave_out
from flows.training.photos.encodings import EncodingCache
from flows.training.photos.latents import TrainingImages
from flows.training.photos.random_numbers import counter_seed
from flows.training.precision import loss_scaler
from storage.errors import JobCannotSucceed
from storage.records.jobs.training import TrainingRecipe


class DreamBoothModule(LightningModule):
    """Fine-tunes components on instance images, held to the class by regularization images.

    A batch is the number of a step, from 0; everything else follows from it and the recipe. `last_loss` is the
    mean over the step's micro-batches, without a gradient. `frozen_prompts` are encoded for good, since nothing that
    encodes them trains any more; `resting` are the parts that are off the card between samples.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        family: Family,
        components: Components,
        training: Training,
        images: TrainingImages,
        encodings: EncodingCache | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.family = family
        self.components = components
        self.training_groups = training.groups
        self.method_run = training
        self.images = images
        self.unet = components.unet  # registered, so that Lightning sees what trains
        lay_out_weights(self.unet)
        # Beside the components: images are drawn with these, in other shapes, each of which would be compiled again.
        self._predicting = compiled_unet(components) if recipe.compile else components
        self.resting = RestingParts(components.device)
        self.optimizer = optimizer_named(recipe.optimizer).begin(training.groups)
        self.scaler = loss_scaler(recipe.precision, components.device, self.optimizer)
        self.averaged = AveragedWeights(training.groups, self.optimizer, recipe.ema_decay)
        self.last_loss: Loss | None = None
        self.gradient_norm = 0.0
        self.frozen_prompts: dict[str, Conditioning] = {}
        self._prompts_cached = self._gradients_checked = False
        # An encoder that trains for its first steps is the base's no longer.
        self._encodings = encodings if all(group.name == "unet" for group in training.groups) else None

    @property
    def training_state(self) -> TrainingState:
        """What a checkpoint holds."""
        return TrainingState(self.training_groups, self.optimizer, self.averaged.averages, self.scaler)

    def training_step(self, batch: int, batch_idx: int = 0) -> Tensor:
        """The loss of the last pass of step `batch`, a scalar with its gradient; those before it are in `.grad` by now.

        Lightning's own backward comes after, so that an optimizer step has one call of this whatever it accumulates.
        """
        self.optimizer.zero_grad()
        passes = self.recipe.accumulation * (2 if self._splits else 1)
        losses: list[Loss] = []
        total = torch.zeros(())
        for loss in self._passes_of(batch):
            losses.append(loss.detach())
            total = loss.total
            # Before the next pass begins, so that one graph is alive at a time.
            if len(losses) < passes:
                self._backward(total)
        self.last_loss = mean_loss(losses, self.recipe.accumulation)
        if not total.requires_grad:
            raise JobCannotSucceed(
                f"Step {batch + 1}: nothing trains any more. Raise textEncoderSteps, or let trainOnly name more."
            )
        return total

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Nothing: Lightning calls this between `training_step` and its backward, when a sum has begun."""

    def draw(self, number: int) -> MicroBatch:
        """What micro-batch `number` trains on, counted from 0 over the whole training."""
        timesteps = self.components.noise_schedule.config.num_train_timesteps
        return draw_micro_batch(self.images, self.recipe, number, timesteps)

    def loss_of(self, draw: MicroBatch) -> Loss:
        """The loss on what was drawn, in one pass."""
        compared = self._compared(draw, slice(None))
        if not len(draw.regularization_rows):
            return instance_loss(*compared)
        predicted, target, weights = compared
        return prior_preservation_loss(predicted, target, self.recipe.prior_loss_weight, weights)

    def split_losses_of(self, draw: MicroBatch) -> Iterator[Loss]:
        """The two terms of the loss, each from a pass of its own; their sum is `loss_of`."""
        half = len(draw.instance_rows)
        yield instance_loss(*self._compared(draw, slice(None, half)))
        prior = instance_loss(*self._compared(draw, slice(half, None))).total
        yield Loss(self.recipe.prior_loss_weight * prior, torch.zeros_like(prior), prior.detach())

    def configure_optimizers(self) -> Optimizer:
        """The optimizer, with the state of a checkpoint if one was read."""
        return self.optimizer

    def on_train_start(self) -> None:
        """Take the VAE off the card: what it had to encode is in memory."""
        self.resting.leave({"vae": self.components.vae})

    def on_train_batch_start(self, batch: int, batch_idx: int) -> None:
        """Freeze what step `batch` trains no longer, and set each group's learning rate for it."""
        trained_text = self.method_run.trains_text
        self.method_run.begin_step(batch)
        if trained_text and not self.method_run.trains_text:
            self._end_stopped()
        if not self.method_run.trains_text and not self._prompts_cached:
            self._cache_prompts()
        set_learning_rates(self.optimizer, self.training_groups, self.recipe, batch)

    def _cache_prompts(self) -> None:
        """Encode every prompt of the training, then take the text encoders off the card: they change no more."""
        # In the precision of a step, as it would encode them.
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            self._conditioning(sorted(self._all_prompts()))
        self._prompts_cached = True
        self.resting.leave(self.components.text_encoders)

    def _all_prompts(self) -> set[str]:
        found = {""} if self.recipe.caption_dropout > 0 else set[str]()
        for images in self.images.shapes:
            found |= set(images.instance.prompts or [self.recipe.instance_prompt])
            if images.regularization is not None:
                found.add(self.recipe.class_prompt)
        return found

    def _end_stopped(self) -> None:
        """What trains no longer gets the weights that are drawn with, and the optimizer forgets it.

        So the prompts that are encoded from now on, samples and the export are all of the same text encoder. Done
        again, as after a resume, it changes nothing.
        """
        groups = self.training_groups
        stopped = {name: one for name, one in parameters_of(groups).items() if not one.requires_grad}
        self.averaged.settle_some(stopped)
        leave_out(self.optimizer, list(stopped.values()))

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Make the sum over micro-batches their mean, clip all together to the recipe's norm, and note it."""
        if self.recipe.accumulation > 1:
            # Once, after the sum: the same rounding as of ranks that sum and then divide, for any number of them.
            for parameter in parameters_of(self.training_groups).values():
                if parameter.grad is not None:
                    parameter.grad.div_(self.recipe.accumulation)
        # Over all groups together, whatever Lightning's own setting says: it clips none by default.
        if not self._gradients_checked:
            check_gradients(self.training_groups, self.family, self.components, self.recipe)
            self._gradients_checked = True
        self.gradient_norm = clip_gradients(
            list(parameters_of(self.training_groups).values()), self.recipe.max_gradient_norm
        )

    @property
    def _splits(self) -> bool:
        return self.recipe.split_backward and self.images.regularization is not None

    def _passes_of(self, step: int) -> Iterator[Loss]:
        """The loss of each pass of a step, computed when it is asked for."""
        first = step * self.recipe.accumulation
        for number in range(first, first + self.recipe.accumulation):
            draw = self.draw(number)
            # Dropout, where a model or a method has any, is the only thing that reads the global generator.
            torch.manual_seed(counter_seed(self.recipe.seed, "dropout", number))
            if self._splits:
                yield from self.split_losses_of(draw)
            else:
                yield self.loss_of(draw)
            # A step of many passes may take a CPU longer than the stall limit.
            advanced()

    def _backward(self, loss: Tensor) -> None:
        """As Lightning does it for the loss that is returned: scaled where the precision asks for it."""
        # `training_step` runs under autocast, where a backward does not belong.
        with torch.autocast(loss.device.type, enabled=False):
            self.trainer.strategy.backward(loss, None)

    def _compared(self, draw: MicroBatch, rows: slice) -> tuple[Tensor, Tensor, Tensor | None]:
        """Prediction, target and min-SNR weights (if any) of some rows of a micro-batch."""
        device = self.components.device
        schedule = self.components.noise_schedule
        timesteps, noise = draw.timesteps[rows].to(device), draw.noise[rows].to(device)
        latents = self._latents(draw, device)[rows]
        noisy = schedule.add_noise(latents, noise, timesteps).contiguous(memory_format=image_layout(device))
        conditioning = self._conditioning(self._prompts(draw)[rows])
        sizes = self._sizes(draw)[rows]
        if sizes:
            conditioning = self.family.with_sizes(conditioning, sizes)
        with named_compile_errors() if self.recipe.compile else nullcontext():
            predicted = self.family.predict(self._predicting, noisy, timesteps, conditioning)
        target = self.family.noise_target(self.components, latents, noise, timesteps)
        if self.recipe.snr_gamma == 0:
            return predicted, target, None
        kind = schedule.config.prediction_type
        return predicted, target, min_snr_weights(schedule.alphas_cumprod, timesteps, self.recipe.snr_gamma, kind)

    def _latents(self, draw: MicroBatch, device: torch.device) -> Tensor:
        images = self.images.shapes[draw.shape]
        rows = len(draw.instance_rows)
        posterior = draw.posterior_noise.to(device)
        latents = images.instance.sample(draw.instance_rows.to(device), posterior[:rows])
        if images.regularization is not None:
            prior = images.regularization.sample(draw.regularization_rows.to(device), posterior[rows:])
            latents = torch.cat([latents, prior])
        return latents

    def _sizes(self, draw: MicroBatch) -> list[ImageSizes]:
        """How the image of each row came to be; empty where all are whole images."""
        images = self.images.shapes[draw.shape]
        found = [images.instance.sizes[row] for row in draw.instance_rows.tolist() if images.instance.sizes]
        prior = images.regularization
        if prior is not None and prior.sizes:
            found += [prior.sizes[row] for row in draw.regularization_rows.tolist()]
        return found

    def _prompts(self, draw: MicroBatch) -> list[str]:
        """The prompt of each row: its photo's own or the instance prompt, the class prompt, or none at all."""
        instance = self.images.shapes[draw.shape].instance
        whole = self.recipe.instance_prompt
        own = [int(row) // instance.views for row in draw.instance_rows]
        prompts = [instance.prompts[image] for image in own] if instance.prompts else [whole] * len(own)
        prompts += [self.recipe.class_prompt] * len(draw.regularization_rows)
        if draw.dropped:
            return ["" if dropped else prompt for prompt, dropped in zip(prompts, draw.dropped, strict=True)]
        return prompts

    def _conditioning(self, prompts: Sequence[str]) -> Conditioning:
        """One row for each prompt. Each prompt is encoded once: for good if the text encoder is frozen."""
        distinct = list(dict.fromkeys(prompts))
        if self.method_run.trains_text:
            encoded = self.family.encode_prompts(self.components, distinct)
            if "" in distinct:
                encoded = _joined(
                    [self._as_dropped(prompt, encoded.take([row])) for row, prompt in enumerate(distinct)]
                )
            return encoded.take([distinct.index(prompt) for prompt in prompts])
        for prompt in distinct:
            if prompt not in self.frozen_prompts:
                if self._encodings is None:
                    encoded = self.family.encode_prompts(self.components, [prompt])
                else:
                    encoded = self._encodings.prompt(self.components, prompt)
                self.frozen_prompts[prompt] = self._as_dropped(prompt, encoded).detach()
        return _joined([self.frozen_prompts[prompt] for prompt in prompts])

    def _as_dropped(self, prompt: str, encoded: Conditioning) -> Conditioning:
        """The conditioning of one prompt; of a dropped caption what guidance draws away from, where they differ."""
        return encoded if prompt else self.family.as_negative(self.components, prompt, encoded)


def _joined(parts: Sequence[Conditioning]) -> Conditioning:
    first, *others = parts
    for other in others:
        first = first.then(other)
    return first
