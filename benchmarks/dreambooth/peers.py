"""The other sides: the loops of diffusers' two DreamBooth examples, and a bare loop on cached latents.

The examples are not in diffusers' package, so their steps are done here with its modules, PEFT and accelerate, in their
order and with their defaults: pictures and prompts are encoded at every step, in float32; the full one keeps its
gradients between steps (`--set_grads_to_none` is off), the adapter has rank 4 on the attention projections. What they
read from disk is in memory here, which is to their advantage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.optimization import get_scheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.dreambooth.stages import Asked, Stages, report
from benchmarks.training import LORA_RANK, pictures, recipe
from flows.diffusion.memory import peak_bytes, start_peak
from flows.training.photos.pictures import SquarePixels

LEARNING_RATES = {"full": 5e-6, "lora": 5e-4}


class Loaded:
    """The parts of a base as the examples load them."""

    def __init__(self, asked: Asked) -> None:
        torch.set_num_threads(asked.threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # The classes' own methods state types that their users do not have to fulfil.
        unet, vae, schedule, text, tokenizer = (
            made.from_pretrained(asked.folder, subfolder=name) for made, name in _PARTS
        )
        self.unet: Any = unet.to(self.device)
        self.vae: Any = vae.to(self.device)
        self.text_encoder: Any = text.to(self.device)
        self.schedule: Any = schedule
        for part in (self.vae, self.text_encoder):
            part.requires_grad_(False)
        wanted = recipe(asked.steps, asked.threads, asked.resolution)
        self.prompts: Tensor = tokenizer(
            [wanted.instance_prompt] * asked.batch + [wanted.class_prompt] * asked.batch,
            truncation=True,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids.to(self.device)
        drawn = pictures(asked.resolution, asked.batch)
        self.pixels = SquarePixels(drawn * 2, asked.resolution)[:].to(self.device)
        self.seconds = Stages(self.device)

    def trained(self, method: str) -> list[nn.Parameter]:
        """The parameters that a method trains, switched on."""
        if method == "lora":
            self.unet.requires_grad_(False)
            names = ["to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_v_proj"]
            rank = LORA_RANK
            self.unet.add_adapter(
                LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=names)
            )
        self.unet.train()
        return [parameter for parameter in self.unet.parameters() if parameter.requires_grad]

    def latents(self) -> Tensor:
        """A sample of the posterior of each picture."""
        return self.vae.encode(self.pixels).latent_dist.sample() * self.vae.config.scaling_factor

    def conditioning(self) -> Tensor:
        """The text encoder's output for each prompt."""
        return self.text_encoder(self.prompts, return_dict=False)[0]

    def loss(self, unet: Any, latents: Tensor, conditioning: Tensor) -> Tensor:
        """Noise, forward pass and the two losses."""
        noise = torch.randn_like(latents)
        steps = self.schedule.config.num_train_timesteps
        times = torch.randint(0, steps, (latents.shape[0],), device=latents.device).long()
        noisy = self.schedule.add_noise(latents, noise, times)
        with self.seconds.stage("forward"):
            predicted = unet(noisy, times, conditioning, return_dict=False)[0]
        instance, prior = predicted.chunk(2)
        target, target_prior = noise.chunk(2)
        return mse_loss(instance.float(), target.float()) + 1.0 * mse_loss(prior.float(), target_prior.float())


_PARTS: Sequence[tuple[type, str]] = (
    (UNet2DConditionModel, "unet"),
    (AutoencoderKL, "vae"),
    (DDPMScheduler, "scheduler"),
    (CLIPTextModel, "text_encoder"),
    (CLIPTokenizer, "tokenizer"),
)


def example(asked: Asked, method: str, *, fused: bool) -> dict[str, Any]:
    """The loop of diffusers' example. `fused`: AdamW in one kernel, where the example takes torch's default."""
    loaded = Loaded(asked)
    stages, accelerator = loaded.seconds, Accelerator(cpu=loaded.device.type == "cpu")
    parameters = loaded.trained(method)
    start_peak(loaded.device)
    optimizer = _adamw(parameters, method, fused=fused)
    schedule = get_scheduler("constant", optimizer=optimizer)
    unet, optimizer, schedule = accelerator.prepare(loaded.unet, optimizer, schedule)
    stages.start()
    for _ in range(asked.steps):
        with accelerator.accumulate(unet):
            with stages.stage("VAE"):
                latents = loaded.latents()
            with stages.stage("text encoder"):
                conditioning = loaded.conditioning()
            loss = loaded.loss(unet, latents, conditioning)
            with stages.stage("backward"):
                accelerator.backward(loss)
            with stages.stage("clip and update"):
                accelerator.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=method == "lora")
        loss.detach().item()  # logged at every step
        stages.step_ended()
    return report(stages, peak_bytes(loaded.device))


def bare(asked: Asked, method: str) -> dict[str, Any]:
    """Nothing but the UNet's steps: latents and conditioning are there, AdamW is fused, nobody asks for the loss."""
    loaded = Loaded(asked)
    stages, parameters = loaded.seconds, loaded.trained(method)
    with torch.no_grad():
        latents, conditioning = loaded.latents(), loaded.conditioning()
    start_peak(loaded.device)
    optimizer = _adamw(parameters, method, fused=True)
    stages.start()
    for _ in range(asked.steps):
        loss = loaded.loss(loaded.unet, latents, conditioning)
        with stages.stage("backward"):
            loss.backward()
        with stages.stage("clip and update"):
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        stages.step_ended()
    return report(stages, peak_bytes(loaded.device))


def _adamw(parameters: list[nn.Parameter], method: str, *, fused: bool) -> Any:
    made: Callable[..., Any] = torch.optim.AdamW
    rate = LEARNING_RATES[method]
    return made(parameters, lr=rate, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8, fused=fused or None)
