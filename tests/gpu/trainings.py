"""Trainings in processes of their own on one device, forked from one that has torch and has not touched the device."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flows.diffusion.devices import check_devices, prepare_torch
from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.protocol import Components
from flows.diffusion.memory import peak_bytes, start_peak
from flows.diffusion.sampler import draw_images
from flows.training.callbacks import StepReport, Watch
from flows.training.fit import check_released, fit
from flows.training.methods.frozen import FrozenTensors
from flows.training.methods.lookup import method_named
from flows.training.photos.latents import TrainingImages, encode_images
from storage.records.jobs.training import TrainingRecipe
from tests.flows.training.tiny import KeptCheckpoints, pictures, recipe

STEPS = 4
METHODS: dict[str, dict[str, Any]] = {
    "full": {"text_encoder_learning_rate": 1e-4},
    "lora": {
        "learning_rate": 1e-3,
        "text_encoder_learning_rate": 1e-3,
        "token_learning_rate": 0.0,
        "lora_rank": 4,
        "lora_alpha": 8.0,
    },
}
_CONTEXT = multiprocessing.get_context("forkserver")


class CheckFailed(Exception):
    """What a process raised, as text: an error of another process may not be one that this one can read."""


@dataclass
class Done:
    """What a training measured. Peaks are in GB, by piece; `hashes` are SHA-256 of what it wrote, by path.

    `passes` counts the calls of the UNet; `recomputes` is whether activations were computed again; `moved` are what
    still trains and was off the device when the steps had ended, before the fit puts everything there.
    """

    device: str = ""
    losses: list[float] = field(default_factory=list[float])
    norms: list[float] = field(default_factory=list[float])
    rates: list[float] = field(default_factory=list[float])
    peaks: dict[str, float] = field(default_factory=dict[str, float])
    hashes: dict[str, str] = field(default_factory=dict[str, str])
    passes: int = 0
    recomputes: bool = False
    moved: list[str] = field(default_factory=list[str])


def wanted(method: str, **changes: Any) -> TrainingRecipe:
    """A training of a few steps with a checkpoint of each."""
    fields = {"steps": STEPS, "checkpoint_every": 1, "threads": 2, "method": method, **METHODS[method]}
    return recipe(**{**fields, **changes})


def start_warm() -> None:
    """Have the next processes begin with these modules, from the first one on."""
    _CONTEXT.set_forkserver_preload([__name__, "tests.gpu.checks"])


def in_process(work: Callable[..., Any], *arguments: Any, dies: bool = False) -> Any:
    """What a function returns in a fresh process. `dies`: the process is to kill itself, and returns nothing.

    Raises CheckFailed with the other process's traceback.
    """
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_carried_out, args=(theirs, work, arguments, dict(os.environ)))
    process.start()
    theirs.close()
    try:
        good, answer = ours.recv()
    except EOFError:
        process.join()
        if dies and process.exitcode == -signal.SIGKILL:
            return None
        raise CheckFailed(f"the process ended with {process.exitcode}") from None
    finally:
        ours.close()
        process.join()
    if not good or dies:
        raise CheckFailed(str(answer) if not good else "the process lived on")
    return answer


def _carried_out(
    answers: Connection, work: Callable[..., Any], arguments: tuple[Any, ...], variables: dict[str, str]
) -> None:
    # The fork server may be older than what its user has since chosen: which devices are to be seen.
    os.environ.update(variables)
    try:
        answers.send((True, work(*arguments)))
    except BaseException:  # noqa: BLE001 - reported, not handled
        answers.send((False, traceback.format_exc()))


def train(base: Path, work: Path, asked: TrainingRecipe, die_after: int = 0) -> Done:
    """Train on this machine's device from the newest checkpoint in `work`, look at what is left, and export.

    `die_after`: kill this process after that step, before its checkpoint.
    """
    done, components, changed = fitted(base, work, asked, die_after)
    # What the next phase of a job asks for before it begins.
    check_released(components)
    check_devices(components, torch.device(done.device), "evaluate")
    method_named(asked.method).export(
        family_named(asked.family),
        components,
        changed,
        asked,
        asked.fingerprint(),
        work / "export",
        lambda: None,
    )
    done.hashes = hashes_below(work)
    return done


def fitted(
    base: Path, work: Path, asked: TrainingRecipe, die_after: int = 0
) -> tuple[Done, Components, frozenset[str]]:
    """The fit alone, the components that it leaves, and which of them changed."""
    device = prepare_torch(asked.threads)
    done, family = Done(device=str(device)), family_named(asked.family)
    components = family.load(base, dtype=asked.held_in).to(device)
    work.mkdir(parents=True, exist_ok=True)
    images = _images(components, asked)
    kept = KeptCheckpoints(work / "kept")
    newest = kept.latest()
    unet: Any = components.unet

    def called(module: object, arguments: object) -> None:
        done.passes += 1

    counted = unet.register_forward_pre_hook(called)

    def stepped(report: StepReport) -> None:
        done.recomputes = unet.is_gradient_checkpointing
        done.losses.append(report.loss)
        done.norms.append(report.gradient_norm)
        done.rates.append(report.images_per_second)
        if report.step == die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def ended(_: FrozenTensors) -> None:
        done.moved = trains_elsewhere(components.modules, device)

    def sampled(step: int) -> None:
        # An image takes memory of its own: only where samples are what is tried.
        if asked.sample_every < asked.steps:
            check_devices(components, device, "sample")
            [image] = draw_images(family, components, [asked.instance_prompt], [0], asked.sampler)
            (work / "samples").mkdir(exist_ok=True)
            image.save(work / "samples" / f"{step}.png")

    @contextmanager
    def measured(phase: str) -> Generator[None]:
        start_peak(device)
        yield
        done.peaks[phase] = peak_bytes(device) / 1e9

    changed = fit(
        asked,
        family,
        components,
        images,
        recipe_hash=asked.fingerprint(),
        newest=newest[1] if newest else None,
        checkpoints=kept,
        work_folder=work,
        watch=Watch(on_step=stepped, measured=measured, on_frozen=ended, on_sample=sampled),
    )
    counted.remove()
    return done, components, changed


def trains_elsewhere(modules: Mapping[str, nn.Module], device: torch.device) -> list[str]:
    """The parameters of a model's parts that train and are not on the device."""
    return [
        f"{name}.{key}"
        for name, module in modules.items()
        for key, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.device.type != device.type
    ]


def _images(components: Components, asked: TrainingRecipe) -> TrainingImages:
    family, side = family_named(asked.family), asked.resolution
    photos = [picture.resize((side, side)) for picture in pictures(2)]
    classes = [picture.resize((side, side)) for picture in pictures(2, "class")]
    latents = [encode_images(family, components, images, side) for images in (photos, classes)]
    return TrainingImages(latents[0], latents[1])


def hashes_below(folder: Path) -> dict[str, str]:
    """SHA-256 of every checkpoint, sample and exported file."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
