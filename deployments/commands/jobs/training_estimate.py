"""What a training will need, in lines for a person: memory, disk and time, each with how sure it is."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.client.responses import MemoryResponse, TrainingEstimateResponse
from storage.records.accounts.quotas import in_units

_PARTS = (
    ("weights", "weights"),
    ("adapters", "adapters"),
    ("gradients", "gradients"),
    ("optimizer", "optimizer's state"),
    ("ema", "average of the weights"),
    ("half_precision_copies", "copies of weights, cast for computing"),
    ("encodings", "latents and encoded prompts"),
    ("activations", "activations"),
)


def estimate_lines(estimate: TrainingEstimateResponse) -> Iterator[str]:
    """The whole estimate."""
    yield training_line(estimate)
    if estimate.memory is not None:
        yield from _memory(estimate.memory)
    if estimate.disk is not None:
        disk = estimate.disk
        each = f"checkpoints {in_units(disk.checkpoints)} ({in_units(disk.checkpoint)} each)"
        yield f"disk: at most {in_units(disk.peak_bytes)}; {each}, results {in_units(disk.export)}"
    yield from time_lines(estimate)


def short_lines(estimate: TrainingEstimateResponse) -> Iterator[str]:
    """What is trained and how, its memory and its time: to be read before it is started."""
    yield training_line(estimate)
    if estimate.memory is not None:
        yield peak_line(estimate.memory)
    yield from time_lines(estimate)


def training_line(estimate: TrainingEstimateResponse) -> str:
    """Steps, method, base, preset, optimizer and learning rate in one line."""
    request = estimate.request
    preset = f", preset {request['preset']}" if "preset" in request else ""
    steps = f"{request['steps']} steps of {request['method']} on '{request['baseModel']}' ({estimate.family}){preset}"
    return f"{steps}: {request['optimizer']} at learning rate {request['learningRate']:g}"


def time_lines(estimate: TrainingEstimateResponse) -> Iterator[str]:
    """How long it takes by device, and what is not known."""
    for time in estimate.times:
        pace = f"{time.seconds_per_step:.2g} s a step and {in_words(time.other_seconds)} before and after them"
        yield f"time: about {in_words(time.seconds)} on {time.device} ({pace}, over {time.jobs} jobs)"
    yield from (f"note: {note}" for note in estimate.notes)


def peak_line(memory: MemoryResponse) -> str:
    """The peak in one line."""
    cards = ", ".join(memory.fits_cards)
    fits = f"fits cards of {cards}" if cards else "fits no card of the presets"
    return f"memory: {in_units(memory.peak_bytes)} at its peak, ±{memory.margin * 100:.0f} %; {fits}"


def in_words(seconds: float) -> str:
    """A duration for a person: 45 s, 3 min, 2 h 10 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _memory(memory: MemoryResponse) -> Iterator[str]:
    yield peak_line(memory)
    for name, words in _PARTS:
        if size := getattr(memory, name):
            yield f"  {in_units(size):>10}  {words}"
    yield f"  {in_units(memory.drawing):>10}  for drawing, when there are no gradients and activations"
    if memory.not_concurrent:
        yield f"  {in_units(memory.not_concurrent):>10}  less: gradients and activations do not all exist at once"
    yield f"  trained: {memory.trained_parameters:,} of {memory.total_parameters:,} parameters"
    for one in memory.savings:
        yield f"  saves {in_units(one.saved_bytes)}:  {one.change}"
