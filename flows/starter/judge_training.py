"""Training the judge's two networks apart, and measuring the embedder on subjects that it never saw."""

import logging
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate

from flows.starter.judge import Judge
from flows.starter.model_training import Views, decode, posterior_of, to_range, to_tensor
from flows.starter.renderer import render
from flows.starter.schedules import Schedule
from flows.starter.steps import load_average, train
from flows.starter.world import (
    CLASSES,
    COLOURS,
    HELD_OUT_PAIRS,
    PATTERNS,
    SCENES,
    Look,
    SceneSubject,
    is_held_out,
    picture_of,
    random_look,
)

LOGGER = logging.getLogger(__name__)

SUBJECTS_IN_BATCH = 32
VIEWS_OF_SUBJECT = 3
TEMPERATURE = 0.1


def roughen(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, brighten and add noise at random: generated images are softer than rendered ones, and must be judged."""
    count = len(images)
    small = interpolate(avg_pool2d(images, 2), scale_factor=2, mode="bilinear", align_corners=False)
    one = (count, 1, 1, 1)
    softness = torch.rand(one, generator=generator) * (torch.rand(one, generator=generator) < 0.6)
    soft = images.lerp(small, softness)
    gain = 1 + 0.1 * torch.randn(one, generator=generator)
    tint = 0.04 * torch.randn((count, 3, 1, 1), generator=generator)
    grain = 0.06 * torch.rand(one, generator=generator)
    return soft * gain + tint + grain * torch.randn(images.shape, generator=generator)


@torch.no_grad()
def with_reconstructions(autoencoder: AutoencoderKL, pixels: Tensor) -> Tensor:
    """uint8 pixels (N, 3, H, W) with every second image as the autoencoder reconstructs it: generated images look
    so."""
    mixed = pixels.clone()
    for start in range(0, len(pixels), 128):
        part = to_range(pixels[start : start + 128 : 2])
        decoded = decode(autoencoder, posterior_of(autoencoder, part).mean)
        mixed[start : start + 128 : 2] = ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return mixed


def truths(views: Views) -> Tensor:
    """(N, 4): index of class, colour, pattern and scene of views with one thing each."""
    rows: list[tuple[int, int, int, int]] = []
    for picture in views.pictures:
        subject = picture.things[0].subject
        rows.append(
            (
                CLASSES.index(subject.class_word),
                list(COLOURS).index(subject.look.colour),
                list(PATTERNS).index(subject.look.pattern),
                SCENES.index(picture.scene),
            )
        )
    return torch.tensor(rows)


def train_classifier(judge: Judge, views: Views, schedule: Schedule, *, seed: int, state: Path) -> None:
    """Train the classifier in place on views that show one thing."""
    alone = [i for i, picture in enumerate(views.pictures) if len(picture.things) == 1]
    views = Views(tuple(views.pictures[i] for i in alone), views.pixels[alone])
    labels = truths(views)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(0, len(alone), (64,), generator=generator)
        logits = judge.classifier(roughen(to_range(views.pixels[chosen]), generator))
        losses = [cross_entropy(logit, labels[chosen, i]) for i, logit in enumerate(logits)]
        return torch.stack(losses).mean()

    # A judge is frozen from its making on (`Judge.__init__`), so that nobody trains it by mistake.
    judge.classifier.train().requires_grad_(True)
    modules = {"classifier": judge.classifier}
    load_average(train(modules, loss_of, schedule, seed=seed, checkpoint=state / "classifier.safetensors"), modules)
    judge.classifier.eval().requires_grad_(False)


def rival_subjects(count: int, rng: np.random.Generator, *, held_out: bool) -> list[SceneSubject]:
    """`count` different subjects of one class and main colour: only their marks distinguish them.

    held_out: all from a pair that training never shows, with every colour pair; or none."""
    pairs = sorted(HELD_OUT_PAIRS)
    class_word = pairs[rng.integers(len(pairs))][0] if held_out else CLASSES[rng.integers(len(CLASSES))]
    colour = str(rng.choice(list(COLOURS)))
    found: dict[SceneSubject, None] = {}
    first = True
    while len(found) < count:
        look = random_look(rng, plain_share=0.05)
        look = Look(look.pattern, colour, None if look.mark_colour is None else look.mark_colour)
        if held_out and first:
            pattern = next(name for word, name in pairs if word == class_word)
            look = Look(pattern, colour, str(rng.choice([name for name in COLOURS if name != colour])))
        subject = SceneSubject(class_word, look)
        if look.mark_colour == colour or (is_held_out(subject) != (held_out and first)):
            continue
        found[subject] = None
        first = False
    return list(found)


def render_subjects(groups: int, seed: int) -> Tensor:
    """Subjects for metric learning, `groups` times 8 rivals one after another: pixels (S, views, 3, 64, 64) uint8.

    The views of one subject have distinct scenes; rivals of one group share class and colour."""
    rng = np.random.default_rng((seed, 5))
    pixels: list[Tensor] = []
    for _ in range(groups):
        for subject in rival_subjects(8, rng, held_out=False):
            scenes = rng.permutation(len(SCENES))[:VIEWS_OF_SUBJECT]
            pixels.append(torch.stack([to_tensor(render(picture_of(subject, SCENES[i], rng))) for i in scenes]))
    return torch.stack(pixels)


def contrastive_loss(vectors: Tensor, subjects: Tensor) -> Tensor:
    """Supervised contrastive loss over unit vectors (N, D) and subject numbers (N,).

    Source: Khosla et al. 2020, equation 2."""
    likeness = vectors @ vectors.T / TEMPERATURE
    self_pairs = torch.eye(len(vectors), dtype=torch.bool)
    same = (subjects[:, None] == subjects[None, :]) & ~self_pairs
    log_share = likeness - likeness.masked_fill(self_pairs, -torch.inf).logsumexp(dim=1, keepdim=True)
    return -(log_share * same).sum(dim=1).div(same.sum(dim=1)).mean()


def train_embedder(judge: Judge, pixels: Tensor, schedule: Schedule, *, seed: int, state: Path) -> None:
    """Train the embedder in place; each batch holds four whole groups of rivals: marks must be distinguished."""
    groups = len(pixels) // 8

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randperm(groups, generator=generator)[: SUBJECTS_IN_BATCH // 8]
        # Whole groups, so that each subject meets those that it can be taken for; strangers are distinguished by their
        # colour alone.
        rows = (chosen[:, None] * 8 + torch.arange(8)).flatten()
        images = roughen(to_range(pixels[rows].flatten(0, 1)), generator)
        return contrastive_loss(judge.embedder(images), rows.repeat_interleave(VIEWS_OF_SUBJECT))

    judge.embedder.train().requires_grad_(True)
    modules = {"embedder": judge.embedder}
    load_average(train(modules, loss_of, schedule, seed=seed, checkpoint=state / "embedder.safetensors"), modules)
    judge.embedder.eval().requires_grad_(False)


def tell_apart(judge: Judge, *, queries: int, seed: int, ways: int = 8) -> float:
    """Share of queries whose subject is found among `ways` of one class and colour, each shown once in another scene.

    The subject asked for has marks that this class never wore in training."""
    rng = np.random.default_rng((seed, 6))
    right = 0
    for _ in range(queries):
        rivals = rival_subjects(ways, rng, held_out=True)
        scenes = [SCENES[i] for i in rng.permutation(len(SCENES))]
        # Nothing that is shown stands in the question's scene, which would give the answer away.
        shown = [picture_of(subject, scenes[1 + i % (len(scenes) - 1)], rng) for i, subject in enumerate(rivals)]
        pictures = [picture_of(rivals[0], scenes[0], rng), *shown]
        vectors = judge.embed(to_range(torch.stack([to_tensor(render(picture)) for picture in pictures])))
        right += int((vectors[1:] @ vectors[0]).argmax() == 0)
    return right / queries


def classifier_accuracies(judge: Judge, views: Views) -> dict[str, float]:
    """Accuracy of class, colour, pattern and scene on views with one thing each."""
    with torch.no_grad():
        found = torch.stack([logits.argmax(dim=1) for logits in judge.classifier(to_range(views.pixels))], dim=1)
    shares = (found == truths(views)).float().mean(dim=0).tolist()
    return dict(zip(("class", "colour", "pattern", "scene"), shares, strict=True))
