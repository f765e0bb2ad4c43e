"""The metrics that papers on personalised models report, so that figures can be compared with theirs.

Source: Ruiz et al. 2023 (DreamBooth), section 4.2 and the supplement (PRES, DIV). Theirs of DIV is LPIPS, for which no
weights come without torchvision: here it is the distance of DINO's embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flows.training.metrics.comparisons import (
    EvaluationImages,
    cosines,
    diversities,
    diversity,
    interval,
    mean_cosine,
    mean_cosine_within,
)
from flows.training.metrics.embedders import Clip, Dino, Embedders
from flows.training.photos.pictures import Pixels, measured_in_batches


def standard_metrics(
    embedders: Embedders, photos: Pixels, prompts: Sequence[str], base: EvaluationImages, tuned: EvaluationImages
) -> dict[str, float]:
    """Every metric that these embedders can measure, each beside that of the base model. With 95 % the fine-tune's lies
    between NAME_low and NAME_high.

    photos: (N, 3, H, W) in [-1, 1]. prompts: one for each picture of the subject, those of one prompt together.
    """
    found: dict[str, float] = {}
    if embedders.dino is not None:
        found |= _of_dino(embedders.dino, photos, prompts, base, tuned)
    if embedders.clip is not None:
        found |= _of_clip(embedders.clip, photos, prompts, base, tuned)
    return found


def _of_dino(
    dino: Dino, photos: Pixels, prompts: Sequence[str], base: EvaluationImages, tuned: EvaluationImages
) -> dict[str, float]:
    reference = measured_in_batches(dino.embed, photos)
    found = _ceiling("dino_photos", reference)
    for suffix, drawn in (("", tuned), ("_base", base)):
        subject, of_class = (measured_in_batches(dino.embed, images) for images in (drawn.subject, drawn.of_class))
        found[f"dino{suffix}"] = mean_cosine(subject, reference)
        found[f"pres{suffix}"] = mean_cosine(of_class, reference)
        found[f"div{suffix}"] = diversity(subject, prompts)
        if drawn is tuned:
            found |= _ends("dino", cosines(subject, reference).mean(1))
            found |= _ends("pres", cosines(of_class, reference).mean(1))
            found |= _ends("div", diversities(subject, prompts))
    return found


def _of_clip(
    clip: Clip, photos: Pixels, prompts: Sequence[str], base: EvaluationImages, tuned: EvaluationImages
) -> dict[str, float]:
    reference, texts = measured_in_batches(clip.embed, photos), clip.embed_texts(prompts)
    found = _ceiling("clip_i_photos", reference)
    for suffix, drawn in (("", tuned), ("_base", base)):
        subject = measured_in_batches(clip.embed, drawn.subject)
        found[f"clip_i{suffix}"] = mean_cosine(subject, reference)
        # Each picture with the text that it was drawn for.
        of_text = torch.einsum("nd,nd->n", subject, texts)
        found[f"clip_t{suffix}"] = float(of_text.mean())
        if drawn is tuned:
            found |= _ends("clip_i", cosines(subject, reference).mean(1)) | _ends("clip_t", of_text)
    return found


def _ceiling(name: str, reference: Tensor) -> dict[str, float]:
    ceiling = mean_cosine_within(reference)
    return {} if ceiling is None else {name: ceiling}


def _ends(name: str, values: Tensor) -> dict[str, float]:
    """The ends of the interval of a mean, of values of the pictures, or of the prompts; none where there are none."""
    if len(values) == 0:
        return {}
    low, high = interval(values)
    return {f"{name}_low": low, f"{name}_high": high}
