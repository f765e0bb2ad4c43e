"""The engine beside diffusers' pipeline, both on the starter model, in one process and with the same threads.

    python -m benchmarks.generation

Requests for one picture each arrive at once; the pipeline is called for one after the other. The ceiling is what the
UNet's calls alone would allow: its seconds a picture in calls for one and for eight. SIZE=full asks for 64 pictures,
and takes the middle of five rounds; the sides take turns. A first picture after idling has its model to load.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image

from deployments.local.seed import STARTER_FOLDER
from flows.diffusion.devices import prepare_torch
from flows.diffusion.families.lookup import family_named
from flows.generation.engine.engine import Engine
from flows.generation.engine.messages import DrawingEnded, DrawingFailed, DrawRequest, Message, PictureDrawn
from storage.records.generation.drawings import Drawing, DrawnAdapter, DrawnImage, DrawnModel

FULL = os.environ.get("SIZE") == "full"
PICTURES, ROUNDS = (64, 5) if FULL else (16, 3)
MODELS, ROOM, TURNS = 8, 3, 3 if FULL else 2
STEPS, SCALE, SIDE = 25, 3.0, 64
PROMPT = "a photo of a red mug on the beach"
SECONDS = 600.0


class StarterFiles:
    """The starter's folder, as often as it is asked for under another number."""

    @contextmanager
    def folder(self, model: DrawnModel) -> Iterator[Path]:
        """See ModelSource."""
        yield STARTER_FOLDER

    @contextmanager
    def adapter(self, adapter: DrawnAdapter) -> Iterator[Path]:
        """None is asked for."""
        raise NotImplementedError(adapter.sha256)


def no_picture(sha256: str) -> Image.Image:
    """None is asked for."""
    raise NotImplementedError(sha256)


@contextmanager
def engine_of(budget: int = 1 << 40) -> Iterator[Engine]:
    """An engine that draws in a thread until the end of the block."""
    engine = Engine(StarterFiles(), no_picture, torch.device("cpu"), budget)
    thread = threading.Thread(target=engine.run)
    thread.start()
    try:
        yield engine
    finally:
        engine.stop()
        thread.join()


def drawing(seed: int, version: int = 1, size: int = 0) -> Drawing:
    """One picture, of a model that takes about `size` bytes."""
    return Drawing(
        model=DrawnModel(version_id=version, family="sd1", files={"unet": f"{version:064d}"}, size_bytes=size),
        images=(DrawnImage(prompt=PROMPT, seed=seed),),
        steps=STEPS,
        guidance_scale=SCALE,
        width=SIDE,
        height=SIDE,
    )


def seconds_of(engine: Engine, drawings: list[Drawing]) -> float:
    """From the arrival of the first request to the end of the last."""
    left, done = [len(drawings)], threading.Event()

    def send(message: Message) -> None:
        if isinstance(message, DrawingFailed):
            raise RuntimeError(message.reason)
        if isinstance(message, DrawingEnded):
            left[0] -= 1
            if not left[0]:
                done.set()

    began = time.perf_counter()
    for one in drawings:
        engine.submit(DrawRequest(drawing=one, wanted=(0,)), send)
    if not done.wait(SECONDS):
        raise RuntimeError("the engine has not drawn what it was asked for")
    return time.perf_counter() - began


def first_of(engine: Engine, one: Drawing) -> float:
    """From the arrival of a request to its picture."""
    done = threading.Event()

    def send(message: Message) -> None:
        if isinstance(message, PictureDrawn | DrawingFailed):
            done.set()

    began = time.perf_counter()
    engine.submit(DrawRequest(drawing=one, wanted=(0,)), send)
    if not done.wait(SECONDS):
        raise RuntimeError("the engine has not drawn what it was asked for")
    return time.perf_counter() - began


def pipeline_of() -> Any:
    """Diffusers' own, with the scheduler that the engine has."""
    pipeline = StableDiffusionPipeline.from_pretrained(str(STARTER_FOLDER), local_files_only=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def one_by_one(pipeline: Any, seeds: range) -> float:
    """As many pictures, one call after the other."""
    began = time.perf_counter()
    for seed in seeds:
        generator = torch.Generator("cpu").manual_seed(seed)
        pipeline(PROMPT, num_inference_steps=STEPS, guidance_scale=SCALE, generator=generator, height=SIDE, width=SIDE)
    return time.perf_counter() - began


def unet_seconds(pictures: int) -> float:
    """Of one picture, in a guided call of the UNet for so many."""
    components = family_named("sd1").load(STARTER_FOLDER)
    side = SIDE // components.vae_factor
    config: Any = components.unet.config
    rows = 2 * pictures
    noisy, timesteps = torch.randn(rows, config.in_channels, side, side), torch.full((rows,), 500)
    text = torch.randn(rows, components.tokenizer.model_max_length, config.cross_attention_dim)
    unet: Any = components.unet

    def call() -> float:
        began = time.perf_counter()
        unet(noisy, timesteps, encoder_hidden_states=text)
        return time.perf_counter() - began

    with torch.no_grad():
        return statistics.median([call() for _ in range(12)][2:]) / pictures


def in_turns(rounds: int, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Seconds of both sides, which take turns in being first."""
    mine: list[float] = []
    peers: list[float] = []
    for number in range(rounds):
        for side, kept in ((ours, mine), (theirs, peers)) if number % 2 else ((theirs, peers), (ours, mine)):
            kept.append(side())
    return mine, peers


def spread(seconds: list[float]) -> str:
    """The middle, and from where to where."""
    return f"{statistics.median(seconds):7.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


def figure(name: str, ours: float, peer: float, goal: str) -> None:
    """One line. The goals are those of the full size."""
    stated = f"goal {goal}" if FULL else f"no goal ({goal} with SIZE=full)"
    print(f"figure {name} {ours:.3f} {peer:.3f} {ours / peer:.3f} {stated}", flush=True)


def main() -> None:
    """Print what each side took, and the figures."""
    prepare_torch(os.cpu_count() or 1)
    began = time.perf_counter()
    pipeline = pipeline_of()
    cold_peer = time.perf_counter() - began + one_by_one(pipeline, range(1))
    seeds = range(PICTURES)
    with engine_of() as engine:
        cold = first_of(engine, drawing(0))
        many = in_turns(
            ROUNDS,
            lambda: seconds_of(engine, [drawing(seed) for seed in seeds]),
            lambda: one_by_one(pipeline, seeds),
        )
        first = in_turns(3 * ROUNDS, lambda: first_of(engine, drawing(1)), lambda: one_by_one(pipeline, range(1, 2)))
        loads = engine.models.loads
        [size] = engine.models.held().values()
    with engine_of(int((ROOM + 0.5) * size)) as engine:
        turn = [drawing(number, version, size) for number in range(TURNS) for version in range(1, MODELS + 1)]
        turns = seconds_of(engine, turn)
        loaded, held = engine.models.loads, len(engine.models.held())
    alone, together = unet_seconds(1), unet_seconds(8)
    print(f"{PICTURES} requests at once    engine {spread(many[0])}   pipeline {spread(many[1])}")
    print(f"one request, warm     engine {spread(first[0])}   pipeline {spread(first[1])}; models loaded: {loads}")
    print(f"one request, cold     engine {cold:7.2f} s   pipeline {cold_peer:7.2f} s")
    print(f"UNet a picture        alone {1000 * alone:.1f} ms, of eight {1000 * together:.1f} ms")
    print(
        f"{MODELS} models in turn, room for {ROOM}: {len(turn)} pictures in {turns:.1f} s, {loaded} loaded, {held} held"
    )
    medians = [statistics.median(side) for side in (*many, *first)]
    figure("pictures_a_second", PICTURES / medians[0], PICTURES / medians[1], ">=2")
    figure("pictures_a_second_ceiling", 1 / together, 1 / alone, ">=2")
    figure("first_picture_warm_seconds", medians[2], medians[3], "<=1.2")
    figure("first_picture_cold_seconds", cold, cold_peer, "<=1.2")


if __name__ == "__main__":
    main()
