"""What each micro-batch draws from the instance and regularization images.

A training is an endless row of samples. Sample k is image k of endless shuffled passes over the images; everything else
random about it (its cached crop, posterior sample, noise, timestep, whether its caption is dropped) is a pure function
of (seed, k, purpose). A micro-batch is the next `batch_size` samples, an optimizer step the next `accumulation`
micro-batches. So a resumed training draws what an uninterrupted one would have drawn, and how the samples are split
into micro-batches, steps or ranks changes no sample.

With images of several shapes a micro-batch has one shape: each shape has a row of its own, and shuffled passes over all
instance images say which shape is next. Then k counts over all shapes, and `batch_size` decides which image it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.training.photos.latents import LatentImages, TrainingImages
from flows.training.photos.random_numbers import generator_for
from storage.errors import JobCannotSucceed
from storage.records.jobs.training import TrainingRecipe

SCHEME = 1
"""How this module draws: another number, here and in `TrainingRecipe.draw_scheme`, once a seed would draw otherwise."""


def check_scheme(recipe: TrainingRecipe) -> None:
    """Raises JobCannotSucceed for a recipe that another release draws otherwise."""
    if recipe.draw_scheme != SCHEME:
        raise JobCannotSucceed(
            f"The recipe draws by scheme {recipe.draw_scheme}, and this release by {SCHEME}: the same seed would not "
            "make the same model. Submit the job again, or let a worker of that release carry it out."
        )


@dataclass(frozen=True)
class MicroBatch:
    """Everything random in one forward pass. Rows of the tensors: B instance rows, then B regularization rows (if any).

    `shape` is the place in `TrainingImages.shapes`. `dropped` says of each row whether its caption is left out; empty
    where none is.
    """

    instance_rows: Tensor
    regularization_rows: Tensor
    posterior_noise: Tensor
    noise: Tensor
    timesteps: Tensor
    shape: int = 0
    dropped: tuple[bool, ...] = ()


def draw_micro_batch(images: TrainingImages, recipe: TrainingRecipe, number: int, timesteps: int) -> MicroBatch:
    """Micro-batch `number` (from 0, over the whole training); `timesteps` is the length of the noise schedule.

    Images come in shuffled passes: each is seen once before any of its shape is seen again. Drawn on the CPU, so that
    every device sees the same numbers.
    """
    shape, earlier = _shape_of(images.shapes, recipe.seed, number)
    chosen = images.shapes[shape]
    samples = range(number * recipe.batch_size, (number + 1) * recipe.batch_size)
    places = range(earlier * recipe.batch_size, (earlier + 1) * recipe.batch_size)
    instance = _rows(chosen.instance, recipe.seed, "instance", shape, samples, places)
    regularization = torch.empty(0, dtype=torch.long)
    kinds = ["instance"]
    if chosen.regularization is not None:
        regularization = _rows(chosen.regularization, recipe.seed, "regularization", shape, samples, places)
        kinds.append("regularization")
    keys = [(kind, sample) for kind in kinds for sample in samples]
    size = chosen.instance.mean.shape[1:]
    return MicroBatch(
        instance_rows=instance,
        regularization_rows=regularization,
        posterior_noise=_normal(recipe.seed, "posterior", keys, size),
        noise=_noise(recipe, keys, size),
        timesteps=torch.cat([_whole_number(recipe.seed, f"{kind}/timestep", k, timesteps) for kind, k in keys]),
        shape=shape,
        dropped=_dropped(recipe, keys),
    )


def _noise(recipe: TrainingRecipe, keys: Sequence[tuple[str, int]], size: Sequence[int]) -> Tensor:
    noise = _normal(recipe.seed, "noise", keys, size)
    if recipe.noise_offset == 0:
        return noise
    # One number a channel, over the whole picture: what plain noise hardly ever changes is the mean brightness.
    # Source: Guttenberg 2023, "Diffusion with Offset Noise"; not renormalised, as diffusers' scripts and kohya have it.
    return noise + recipe.noise_offset * _normal(recipe.seed, "offset", keys, (size[0], 1, 1))


def _dropped(recipe: TrainingRecipe, keys: Sequence[tuple[str, int]]) -> tuple[bool, ...]:
    if recipe.caption_dropout == 0:
        return ()
    draws = (torch.rand(1, generator=generator_for(recipe.seed, f"{kind}/caption", k)) for kind, k in keys)
    return tuple(float(draw) < recipe.caption_dropout for draw in draws)


def _normal(seed: int, purpose: str, keys: Sequence[tuple[str, int]], size: Sequence[int]) -> Tensor:
    drawn = [torch.randn(*size, generator=generator_for(seed, f"{kind}/{purpose}", k)) for kind, k in keys]
    return torch.stack(drawn)


def _whole_number(seed: int, purpose: str, counter: int, end: int) -> Tensor:
    return torch.randint(0, end, (1,), generator=generator_for(seed, purpose, counter))


def _shape_of(shapes: Sequence[TrainingImages], seed: int, number: int) -> tuple[int, int]:
    """The shape of micro-batch `number`, and how many micro-batches of that shape came before it."""
    if len(shapes) == 1:
        return 0, number
    counts = [len(one.instance.one_pass) for one in shapes]
    passes, place = divmod(number, sum(counts))
    # One ticket an image of a pass: after a pass every image of every shape was seen as often as it repeats.
    tickets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    order = tickets[torch.randperm(len(tickets), generator=generator_for(seed, "shape", passes))]
    shape = int(order[place])
    return shape, passes * counts[shape] + int((order[:place] == shape).sum())


def _rows(images: LatentImages, seed: int, kind: str, shape: int, samples: range, places: range) -> Tensor:
    """The row of each sample: its image from the shape's own passes, and one of that image's views."""
    one_pass = torch.tensor(images.one_pass)
    orders: dict[int, Tensor] = {}
    rows: list[Tensor] = []
    for sample, position in zip(samples, places, strict=True):
        number, place = divmod(position, len(one_pass))
        if number not in orders:
            generator = generator_for(seed, f"{kind}/order/{shape}", number)
            orders[number] = one_pass[torch.randperm(len(one_pass), generator=generator)]
        view = _whole_number(seed, f"{kind}/view", sample, images.views) if images.views > 1 else torch.zeros(1).long()
        rows.append(orders[number][place] * images.views + view)
    return torch.cat(rows)
