"""What diffusers itself makes of the same model: the reference that ours is compared with."""

from __future__ import annotations

from typing import Any, cast

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_output import StableDiffusionPipelineOutput
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import FloatTensor, Tensor

from flows.diffusion.families.protocol import Components


def vae_of(components: Components) -> AutoencoderKL:
    """The VAE, by the class that its folder names."""
    assert isinstance(components.vae, AutoencoderKL)
    return components.vae


def posterior_of(components: Components, pixels: Tensor) -> DiagonalGaussianDistribution:
    """The distribution of latents that the VAE gives for pixels (B, 3, H, W) in [-1, 1]."""
    encoded = vae_of(components).encode(pixels)
    assert isinstance(encoded, AutoencoderKLOutput)
    return encoded.latent_dist


def decoded_by_vae(components: Components, latents: Tensor) -> Tensor:
    """The pixels (B, 3, H, W) of unscaled latents."""
    # What diffusers calls a FloatTensor is any tensor of floats.
    return vae_of(components).decode(cast(FloatTensor, latents), return_dict=False)[0]


def drawn_by(pipeline: DiffusionPipeline, *arguments: Any, **options: Any) -> Any:
    """The images of one call of a pipeline, of the type that `output_type` asks for."""
    assert isinstance(pipeline, StableDiffusionPipeline)
    drawn = pipeline(*arguments, **options)
    assert isinstance(drawn, StableDiffusionPipelineOutput)
    return drawn.images
