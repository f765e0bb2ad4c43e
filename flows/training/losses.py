"""What a training step minimises. Everything is float32 and in units of squared noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class UnpairedBatch(ValueError):
    """A batch for the prior-preservation loss that does not fall into two halves."""


class Loss(NamedTuple):
    """A step's loss and its two parts; `total` carries the gradient. `prior` is 0 without prior preservation."""

    total: Tensor
    instance: Tensor
    prior: Tensor

    def detach(self) -> Loss:
        """The same numbers without a gradient."""
        return Loss(self.total.detach(), self.instance.detach(), self.prior.detach())


def mean_loss(losses: Sequence[Loss], micro_batches: int) -> Loss:
    """The sum of the losses of a step's passes, over its number of micro-batches."""
    total, instance, prior = (torch.stack(parts).sum() / micro_batches for parts in zip(*losses, strict=True))
    return Loss(total, instance, prior)


def per_sample_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each row: (N, ...) and (N, ...) to (N,)."""
    return (predicted.float() - target.float()).square().flatten(1).mean(1)


def instance_loss(predicted: Tensor, target: Tensor, sample_weights: Tensor | None = None) -> Loss:
    """Plain fine-tuning: the mean over rows, each times its weight if `sample_weights` (N,) is given."""
    losses = per_sample_loss(predicted, target)
    mean = (losses if sample_weights is None else losses * sample_weights).mean()
    return Loss(mean, mean.detach(), torch.zeros_like(mean))


def prior_preservation_loss(
    predicted: Tensor, target: Tensor, weight: float, sample_weights: Tensor | None = None
) -> Loss:
    """Instance loss plus `weight` times the class-prior loss.

    predicted, target: (2B, C, H, W); the first B rows are instance images, the others regularization images.
    sample_weights: (2B,), one for each row (see min_snr_weights), applied before the two means.
    Raises UnpairedBatch if the batch is odd.
    Source: Ruiz et al. 2023, eq. 2.
    """
    rows = predicted.shape[0]
    if rows % 2:
        raise UnpairedBatch(f"{rows} rows do not fall into B instance and B regularization rows; pass an even batch.")
    losses = per_sample_loss(predicted, target)
    if sample_weights is not None:
        # Weights of all 2B rows on the losses of all 2B. diffusers' DreamBooth example multiplies the losses of B rows
        # with them: for a batch of 1 that is silently wrong, for larger ones an error.
        losses = losses * sample_weights
    instance, prior = losses[: rows // 2].mean(), losses[rows // 2 :].mean()
    return Loss(instance + weight * prior, instance.detach(), prior.detach())


def min_snr_weights(alphas_cumprod: Tensor, timesteps: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """One weight a row, (N,): min(SNR, gamma)/SNR for epsilon, min(SNR, gamma)/(SNR + 1) for v_prediction.

    alphas_cumprod: (T,), the noise schedule; timesteps: (N,), of all rows, instance and regularization alike.
    Source: Hang et al. 2023, section 3.4; at SNR 0 (a schedule with zero terminal SNR) epsilon's weight is 1.
    """
    # In double, since 1 - kept cancels most digits of a float where hardly any noise is.
    kept = alphas_cumprod.to(timesteps.device)[timesteps].double()
    snr = kept / (1.0 - kept)
    clipped = snr.clamp(max=gamma)
    if prediction_type == "v_prediction":
        return (clipped / (snr + 1.0)).float()
    return torch.where(snr > 0, clipped / snr, torch.ones_like(snr)).float()
