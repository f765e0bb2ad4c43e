"""Trains the models of the small world: the autoencoder first, then noise prediction on its cached latents."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from flows.starter.captions import caption
from flows.starter.networks import TrainableParts, make_scheduler
from flows.starter.renderer import render
from flows.starter.schedules import Schedule
from flows.starter.steps import load_average, train, write_checkpoint
from flows.starter.world import FREE_IDENTIFIERS, USED_IDENTIFIERS, Picture, random_picture

LOGGER = logging.getLogger(__name__)

# Hang et al. use 5 for images of 256 px and more; these latents are small, and what they show is decided at more noise.
MAX_SNR = 1.0


@dataclass(frozen=True)
class Views:
    """Rendered pictures: the truth of each and its pixels (N, 3, 64, 64) as uint8."""

    pictures: tuple[Picture, ...]
    pixels: Tensor


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB image as (3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_range(pixels: Tensor) -> Tensor:
    """uint8 pixels to float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1.0


def render_views(count: int, seed: int) -> Views:
    """The first `count` pictures of the pretraining stream."""
    pictures = tuple(random_picture(seed, index) for index in range(count))
    return Views(pictures, torch.stack([to_tensor(render(picture)) for picture in pictures]))


def kept_views(state: Path, count: int, seed: int) -> Views:
    """`render_views`, with the pixels kept in the state folder for the next time."""
    # Only the pixels, which take long to draw: what they show follows from the seed at once.
    kept = state / f"views-{seed}-{count}.safetensors"
    if kept.exists():
        pictures = tuple(random_picture(seed, index) for index in range(count))
        return Views(pictures, load_file(str(kept))["pixels"])
    views = render_views(count, seed)
    write_checkpoint(kept, {"pixels": views.pixels})
    return views


def _draw(count: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, count, (size,), generator=generator)


def posterior_of(autoencoder: AutoencoderKL, images: Tensor) -> DiagonalGaussianDistribution:
    """Where images (N, 3, H, W) in [-1, 1] may lie among the latents, not yet scaled."""
    return autoencoder.encode(images).latent_dist  # pyright: ignore[reportAttributeAccessIssue]


def decode(autoencoder: AutoencoderKL, latents: Tensor) -> Tensor:
    """Images of unscaled latents, not clipped."""
    return autoencoder.decode(latents).sample  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]


def train_autoencoder(
    autoencoder: AutoencoderKL, views: Views, schedule: Schedule, *, seed: int, state: Path, batch_size: int = 16
) -> None:
    """Train the autoencoder in place (L1 + 0.5 L2 + a small KL) and set its scaling so that latents have unit variance.

    The first three quarters of the steps see twice as many quarter-size crops, which cost a half; the last see
    whole images, because group norm's statistics differ between the two."""
    count = len(views.pixels)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        whole = step >= schedule.steps * 0.75
        images = views.pixels[_draw(count, batch_size * (1 if whole else 2), generator)]
        if not whole:
            x, y = (int(v) for v in torch.randint(0, images.shape[-1] // 2 + 1, (2,), generator=generator))
            half = images.shape[-1] // 2
            images = images[..., y : y + half, x : x + half]
        target = to_range(images).contiguous(memory_format=torch.channels_last)
        posterior = posterior_of(autoencoder, target)
        decoded = decode(autoencoder, posterior.sample(generator))
        error = decoded - target
        return error.abs().mean() + 0.5 * error.square().mean() + 1e-5 * posterior.kl().mean() / target[0].numel()

    autoencoder.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    modules = {"autoencoder": autoencoder}
    load_average(train(modules, loss_of, schedule, seed=seed, checkpoint=state / "autoencoder.safetensors"), modules)
    autoencoder.eval()
    # The scheduler's noise has unit variance, so latents must have it too: the share of noise at a step is relative to
    # it.
    means, deviations = encode_views(autoencoder, views.pixels[:2000])
    spread = (means.var() + deviations.square().mean()).sqrt().item()
    autoencoder.register_to_config(scaling_factor=round(1.0 / spread, 5))
    LOGGER.info("autoencoder: L1 %.4f, scaling factor %.5f", reconstruction_error(autoencoder, views), 1.0 / spread)


@torch.no_grad()
def reconstruction_error(autoencoder: AutoencoderKL, views: Views, count: int = 256) -> float:
    """Mean absolute error of the last `count` views after encoding and decoding, in units of [-1, 1]."""
    images = to_range(views.pixels[-count:])
    return (decode(autoencoder, posterior_of(autoencoder, images).mean) - images).abs().mean().item()


@torch.no_grad()
def encode_views(autoencoder: AutoencoderKL, pixels: Tensor, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents, (N, 4, 16, 16) each, not yet scaled."""
    found = [posterior_of(autoencoder, to_range(chunk)) for chunk in pixels.split(batch_size)]
    return torch.cat([item.mean for item in found]), torch.cat([item.std for item in found])


@dataclass(frozen=True)
class Noising:
    """What noise prediction learns from: scaled latent means and deviations (N, 4, 16, 16), and how to name them."""

    pictures: tuple[Picture, ...]
    means: Tensor
    deviations: Tensor
    tokenizer: CLIPTokenizer

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents (size, 4, 16, 16) drawn from the posterior and token ids (size, positions) of fresh captions."""
        chosen = _draw(len(self.pictures), size, generator)
        noise = torch.randn((size, *self.means.shape[1:]), generator=generator)
        # From the step's own generator: captions are a part of what a resumed run has to repeat.
        rng = np.random.default_rng(int(torch.randint(0, 2**31, (1,), generator=generator)))
        words = [caption(self.pictures[i], rng) for i in chosen.tolist()]
        return self.means[chosen] + self.deviations[chosen] * noise, token_ids(self.tokenizer, words)


def token_ids(tokenizer: CLIPTokenizer, words: list[str]) -> Tensor:
    """Token ids (N, positions), padded with the end token and cut at the encoder's positions."""
    found = tokenizer(words, padding="max_length", truncation=True, return_tensors="pt")
    return found.input_ids


def cache_latents(autoencoder: AutoencoderKL, views: Views, tokenizer: CLIPTokenizer) -> Noising:
    """Encode every view once, because the autoencoder no longer changes."""
    means, deviations = encode_views(autoencoder, views.pixels)
    factor = float(autoencoder.config["scaling_factor"])
    return Noising(views.pictures, means * factor, deviations * factor, tokenizer)


def train_diffusion(
    parts: TrainableParts,
    noising: Noising,
    schedule: Schedule,
    *,
    seed: int,
    state: Path,
    batch_size: int = 32,
    stop_at: int | None = None,
) -> None:
    """Train UNet and text encoder together in place to predict the noise; their averaged weights are left there.

    Errors are weighted by min(SNR, 1) / SNR: unweighted, the nearly clean latents, where hardly anything is left to
    decide, make most of the loss (measured at 1,600 steps: 0.44 at time 10 against 0.01 at time 800).
    Source: Hang et al. 2023, "Efficient diffusion training via min-SNR weighting strategy", equation 10."""
    scheduler = make_scheduler()
    kept = scheduler.alphas_cumprod
    signal_to_noise = kept / (1.0 - kept)
    unet, text_encoder = parts.unet, parts.text_encoder

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        latents, ids = noising.batch(batch_size, generator)
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.randint(0, scheduler.config["num_train_timesteps"], (batch_size,), generator=generator)
        noisy = scheduler.add_noise(latents, noise, times).contiguous(memory_format=torch.channels_last)  # pyright: ignore[reportArgumentType]
        predicted = unet(noisy, times, text_encoder(ids).last_hidden_state).sample
        errors = (predicted - noise).square().mean(dim=(1, 2, 3))
        return (errors * (MAX_SNR / signal_to_noise[times]).clamp(max=1.0)).mean()

    unet.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    text_encoder.train()
    modules = {"unet": unet, "text_encoder": text_encoder}
    checkpoint = state / "diffusion.safetensors"
    load_average(train(modules, loss_of, schedule, seed=seed, checkpoint=checkpoint, stop_at=stop_at), modules)
    unet.eval()
    text_encoder.eval()
    place_free_identifiers(text_encoder, noising.tokenizer, seed=seed)


@torch.no_grad()
def place_free_identifiers(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, *, seed: int) -> None:
    """Put the free identifiers' embeddings among those of the named looks: their mean plus noise of their spread.

    Left where they were initialised, the network would read past them and fine-tuning could not move what they
    mean: nothing in pretraining made that direction matter."""
    weight: Tensor = text_encoder.get_input_embeddings().weight  # pyright: ignore[reportAssignmentType]
    known = weight[[tokenizer.convert_tokens_to_ids(word + "</w>") for word in USED_IDENTIFIERS]]
    free = [tokenizer.convert_tokens_to_ids(word + "</w>") for word in FREE_IDENTIFIERS]
    noise = torch.randn((len(free), known.shape[1]), generator=torch.Generator().manual_seed(seed))
    weight[free] = known.mean(dim=0) + known.std(dim=0) * noise
