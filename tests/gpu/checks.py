"""What only a GPU shows of training, each as a function that raises when it is not so and returns what it measured.

The same functions run on a CPU, at a smaller size, so that the script itself is known to be right.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from flows.diffusion.devices import check_devices, prepare_torch
from flows.diffusion.families.lookup import family_named
from flows.diffusion.memory import peak_bytes, start_peak
from flows.diffusion.sampler import draw_images
from flows.jobs.failures import named_failure
from flows.training.evaluation import base_beside, noise_drifts
from flows.training.exports.single_files import tensors_of
from flows.training.fit import check_released
from flows.training.photos.latents import encode_images
from flows.training.tensor_files import read_tensors
from storage.errors import OutOfMemory
from storage.records.jobs.training import TrainingRecipe
from tests.flows.diffusion.families.tiny_sdxl import write_tiny_sdxl
from tests.flows.training.real_shapes import SD15, SMALL, Shape, write_base
from tests.flows.training.tiny import pictures
from tests.gpu.trainings import STEPS, Done, fitted, in_process, train, wanted

WIDER = Shape((64, 128, 256, 256), (32, 64, 64, 64), 64, 2, 0, 4, 32)
"""Wide enough that a GPU takes the kernels for attention that it takes for the real one."""
FAMILIES = ("sd1", "sdxl")
KEPT = {
    "adamw": "exp_avg_sq",
    "adamw_8bit": "state2",
    "lion": "exp_avg",
    "lion_8bit": "state1",
    "prodigy": "p0",
    "adamw_schedule_free": "z",
    "adafactor": "exp_avg_sq_row",
}
"""What an optimizer alone keeps, or as little as it does."""


class Skipped(Exception):
    """What cannot be tried on this machine, and why."""


@dataclass(frozen=True)
class Place:
    """Where checks run: the device, the base model of each family, a folder for what they write."""

    device: str
    bases: dict[str, Path]
    folder: Path

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def work(self, *names: str) -> Path:
        """A folder of its own."""
        return self.folder.joinpath(*names)


def make_place(device: str, folder: Path) -> Place:
    """Write the base models; in a process of its own, since it loads torch."""
    bases = {family: folder / "bases" / family for family in FAMILIES}
    write_base(bases["sd1"], WIDER if device == "cuda" else SMALL)
    write_tiny_sdxl(bases["sdxl"])
    return Place(device, bases, folder)


def equal_bytes(place: Place, name: str, asked: TrainingRecipe, straight: Done | None = None) -> str:
    """Two runs and one that is killed after a random step and goes on write the same files."""
    base, seed = place.bases[asked.family], random.SystemRandom().randrange(2**32)
    after = random.Random(seed).randrange(1, asked.steps + 1)
    first: Done = straight or in_process(train, base, place.work(name, "first"), asked)
    second: Done = in_process(train, base, place.work(name, "second"), asked)
    in_process(train, base, place.work(name, "killed"), asked, after, dies=True)
    resumed: Done = in_process(train, base, place.work(name, "killed"), asked)
    on_the_device(place, first)
    for other, what in ((second, "a second run"), (resumed, f"one killed after step {after}")):
        odd = [
            key for key in first.hashes.keys() | other.hashes.keys() if first.hashes.get(key) != other.hashes.get(key)
        ]
        assert not odd, f"{what} wrote other bytes: {sorted(odd)[:4]}"
    assert len(resumed.losses) == asked.steps - (after - 1)
    return f"killed after step {after} of {asked.steps}, {len(first.hashes)} files, {peaks(first)}"


def on_the_device(place: Place, done: Done) -> None:
    """A training was where it should have been, stayed there to its end, and learned something."""
    assert done.device == place.device, f"on {done.device}"
    assert not done.moved, f"{len(done.moved)} parameters left {done.device} with the last step: {done.moved[:4]}"
    assert all(math.isfinite(loss) for loss in done.losses), done.losses
    assert all(norm > 0 for norm in done.norms), done.norms


def peaks(done: Done) -> str:
    """The peaks of a training, to print."""
    return ", ".join(f"{phase} {gigabytes:.3f} GB" for phase, gigabytes in done.peaks.items())


def determinism(place: Place, family: str, method: str) -> str:
    """In strict determinism."""
    return equal_bytes(place, f"{family}-{method}", wanted(method, family=family))


def precision(place: Place, kind: str, method: str) -> str:
    """The losses of float32 within the digits of a half precision, and the same bytes after a death."""
    name = f"{kind}-{method}"
    exact: Done = in_process(train, place.bases["sd1"], place.work(name, "fp32"), wanted(method))
    half: Done = in_process(train, place.bases["sd1"], place.work(name, "half"), wanted(method, precision=kind))
    near = {"bf16": 0.05, "fp16": 0.01}[kind]
    apart = max(abs(one / other - 1) for one, other in zip(half.losses, exact.losses, strict=True))
    assert 0 < apart < near, f"losses {half.losses} beside {exact.losses}"
    return f"losses {apart:.2%} apart, " + equal_bytes(place, name, wanted(method, precision=kind), half)


def recomputed(place: Place, method: str) -> str:
    """Gradient checkpointing: the same losses and norms, on a GPU in less memory."""
    plain, less = (
        in_process(train, place.bases["sd1"], place.work(f"recomputed-{on}", method), _larger(place, method, on))
        for on in (False, True)
    )
    for ours, theirs in ((less.losses, plain.losses), (less.norms, plain.norms)):
        assert all(abs(one / other - 1) < 1e-4 for one, other in zip(ours, theirs, strict=True)), (ours, theirs)
    assert (plain.recomputes, less.recomputes) == (False, True)
    if place.on_gpu:
        assert less.peaks["fit"] < plain.peaks["fit"], (less.peaks, plain.peaks)
    return f"{plain.peaks['fit']:.3f} GB, recomputed {less.peaks['fit']:.3f} GB"


def _larger(place: Place, method: str, on: bool) -> TrainingRecipe:
    # Large enough on a GPU that activations weigh more than weights.
    resolution = 256 if place.on_gpu else 64
    return wanted(method, gradient_checkpointing=on, resolution=resolution, batch_size=2)


def split(place: Place) -> str:
    """The two losses backward one after the other, and two micro-batches: the same first step, in less memory."""
    both, apart = (
        in_process(
            train,
            place.bases["sd1"],
            place.work(f"split-{on}"),
            wanted("full", split_backward=on, accumulation=2, resolution=256 if place.on_gpu else 64),
        )
        for on in (False, True)
    )
    assert abs(apart.norms[0] / both.norms[0] - 1) < 1e-5, (apart.norms, both.norms)
    assert (apart.passes, both.passes) == (4 * STEPS, 2 * STEPS)
    if place.on_gpu:
        assert apart.peaks["fit"] < both.peaks["fit"], (apart.peaks, both.peaks)
    return f"{both.peaks['fit']:.3f} GB, split {apart.peaks['fit']:.3f} GB"


def optimizer(place: Place, name: str) -> str:
    """Every optimizer trains on the device, and goes on from a checkpoint, which has its own state, byte for byte."""
    if name.endswith("8bit") and find_spec("bitsandbytes") is None:
        raise Skipped("bitsandbytes is not installed here")
    changes = {"learning_rate": 1.0, "text_encoder_learning_rate": 0.0, "token_learning_rate": 0.0}
    said = equal_bytes(place, name, wanted("full", optimizer=name, **(changes if name == "prodigy" else {})))
    kinds = {key.split("/")[1] for key in kept_by(place, name) if key.startswith("state/")}
    assert KEPT[name] in kinds, kinds
    return f"{said}, keeps {sorted(kinds)}"


def kept_by(place: Place, name: str) -> list[str]:
    """The names in the last checkpoint of a check's first training."""
    return in_process(_names_in, place.work(name, "first", "kept", f"{STEPS}.safetensors"))


def averages(place: Place) -> str:
    """An average of the weights is kept on the device and exported."""
    said = equal_bytes(place, "ema", wanted("full", ema_decay=0.9, learning_rate_schedule="cosine"))
    return in_process(_exports_the_average, place) + said


def _exports_the_average(place: Place) -> str:
    first, name = place.work("ema", "first"), "conv_out.weight"
    kept = read_tensors(first / "kept" / f"{STEPS}.safetensors")
    [file] = (first / "export").glob("*/unet/*.safetensors")
    exported = read_tensors(file)[name]
    average, trained = (kept[f"{part}/unet.{name}"].to(exported.dtype) for part in ("average", "weights"))
    assert torch.equal(exported, average)
    assert not torch.equal(exported, trained)
    return "the average is exported, "


def after_the_fit(place: Place, family: str, method: str) -> str:
    """After a fit all is on the device, and the base beside it draws and is measured as the stage does it."""
    return in_process(_after_the_fit, place, family, wanted(method, family=family))


def _after_the_fit(place: Place, name: str, asked: TrainingRecipe) -> str:
    family, device = family_named(name), prepare_torch(asked.threads)
    work = place.work("after", f"{name}-{asked.method}")
    done, tuned, changed = fitted(place.bases[name], work, asked)
    on_the_device(place, done)
    check_released(tuned)
    check_devices(tuned, device, "evaluate")
    start_peak(device)
    base = base_beside(family, place.bases[name], tuned, changed, asked.held_in)
    check_devices(base, device, "evaluate")
    prompts = [asked.instance_prompt, asked.class_prompt]
    drawn = [draw_images(family, parts, prompts, [0, 1], asked.sampler) for parts in (base, tuned)]
    assert [image.size for images in drawn for image in images] == [(asked.resolution,) * 2] * 4
    latents = encode_images(family, base, pictures(4), asked.resolution)
    drifts = noise_drifts(family, base, tuned, latents, asked.class_prompt)
    assert 0 < drifts.of_class < math.inf, drifts
    return f"{sorted(changed)} changed, {peaks(done)}, evaluate {peak_bytes(device) / 1e9:.3f} GB"


def real_shape(place: Place) -> str:
    """A base of Stable Diffusion 1.5's size trains, dies, goes on, and the later phases need no more than its steps."""
    side = 512 if place.on_gpu else 64
    base, work = place.folder / "bases" / "sd15", place.work("sd15")
    in_process(write_base, base, SD15 if place.on_gpu else SMALL)
    asked = wanted("full", resolution=side, text_encoder_learning_rate=0.0, token_learning_rate=0.0, checkpoint_every=2)
    in_process(train, base, work, asked, 3, dies=True)
    done: Done = in_process(train, base, work, asked)
    on_the_device(place, done)
    [single] = [key for key in done.hashes if key.endswith("model.safetensors") and key.count("/") == 1]
    assert len(in_process(_names_in, work / single)) > 900
    if place.on_gpu:
        assert done.peaks["resume"] <= 1.1 * done.peaks["fit"], done.peaks
        # Weights, gradients and two moments in float32 are 14.6 GB, activations of 1 + 1 images about 4.
        assert done.peaks["fit"] < 20, done.peaks
    steps = ", ".join(f"{2 / rate:.3f}" for rate in done.rates)
    return f"{side} px, {peaks(done)}, seconds a step {steps}"


def _names_in(file: Path) -> list[str]:
    return list(tensors_of(file))


def compiled(place: Place) -> str:
    """With torch.compile the losses stay what they were; equal bytes are not promised."""
    if "compile" not in TrainingRecipe.__struct_fields__:
        raise Skipped("this release has no option compile")
    plain: Done = in_process(train, place.bases["sd1"], place.work("compile", "off"), wanted("full"))
    made: Done = in_process(train, place.bases["sd1"], place.work("compile", "on"), wanted("full", compile=True))
    apart = max(abs(one / other - 1) for one, other in zip(made.losses, plain.losses, strict=True))
    # Other kernels round otherwise: the very same numbers are of a UNet that was not compiled.
    assert 0 < apart < 1e-2, (made.losses, plain.losses)
    return f"losses {apart:.2e} apart"


def out_of_memory(place: Place) -> str:
    """A card without room ends the job with what to change."""
    if not place.on_gpu:
        raise Skipped("the CPU's own limit is tried by tests/flows/training/test_limits.py")
    return in_process(_out_of_memory, place, wanted("full", batch_size=8, resolution=512))


def _out_of_memory(place: Place, asked: TrainingRecipe) -> str:
    prepare_torch(asked.threads)
    torch.cuda.set_per_process_memory_fraction(2e9 / torch.cuda.get_device_properties(0).total_memory)
    try:
        fitted(place.bases["sd1"], place.work("memory"), asked)
    except torch.OutOfMemoryError as error:
        named = named_failure(error, "fit")
        assert isinstance(named, OutOfMemory), named
        assert "batchSize" in str(named), named
        return str(named)
    raise AssertionError("a training of 8 + 8 images of 512 px fitted into 2 GB")
