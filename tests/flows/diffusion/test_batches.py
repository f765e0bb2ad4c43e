"""As many images at a time as memory holds: the same bytes in any number, fewer where memory runs out, never one."""

from __future__ import annotations

import logging
import mmap
import resource
from dataclasses import replace
from typing import Any

import pytest
import torch

from flows.diffusion import batches
from flows.diffusion.batches import images_at_a_time, in_batches
from flows.diffusion.families.protocol import Components
from flows.diffusion.sampler import draw_images, first_latents
from flows.runs.host_memory import status_bytes
from flows.starter.networks import TINY, make_parts, save_parts
from flows.starter.tokenizer import write_tokenizer
from storage.records.jobs.sampled_sets import SamplerSettings
from tests.flows.training.tiny import FAMILY

PROMPTS = ["a photo of a mug", "a mug in the snow", "a photo of a mug", "a car", "a mug on a table"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Components:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = write_tokenizer(folder / "tokenizer")
    # With three levels these five are rounded alike; with the tiny model's two, one is a grey level apart.
    save_parts(make_parts(replace(TINY, unet=(8, 16, 16)), tokenizer, 0), folder)
    torch.set_num_threads(1)
    return FAMILY.load(folder)


def free(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setattr(batches, "free_bytes", lambda device: int(size))


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_images_have_the_same_bytes_in_batches_of_any_size(
    scale: float, parts: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, seeds = SamplerSettings(steps=2, guidance_scale=scale), [4, 5, 6, 7, 8]
    sizes: list[int] = []
    true_batches = in_batches

    def noted(count: int, size: int, draw: Any) -> Any:
        sizes.append(size)
        return true_batches(count, size, draw)

    monkeypatch.setattr("flows.diffusion.sampler.in_batches", noted)
    drawn: list[list[bytes]] = []
    for room in (1 << 40, 0):
        free(monkeypatch, room)
        images = draw_images(FAMILY, parts, PROMPTS, seeds, sampler, "rain")
        drawn.append([image.tobytes() for image in images])
    assert sizes == [5, 2]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 5


def test_the_size_follows_what_is_free_up_to_what_is_asked_for(
    parts: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = first_latents(parts, list(range(16)))
    config: Any = parts.unet.config
    width = int(config.block_out_channels[0])
    row = latents.shape[2] * latents.shape[3] * width * 4 * batches.ACTIVATIONS / batches.SHARE_OF_FREE
    for rows, guided, size in ((7.5, False, 7), (7.5, True, 3), (99, True, 16), (0.5, False, 2)):
        free(monkeypatch, rows * row)
        assert images_at_a_time(parts, latents, guided=guided) == size


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB"), MemoryError()]
)
def test_what_does_not_fit_is_drawn_in_halves_and_said_so(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[int] = []

    def draw(rows: list[int]) -> list[int]:
        asked.append(len(rows))
        if len(rows) > 4:
            raise error
        return rows

    with caplog.at_level(logging.WARNING):
        assert in_batches(11, 16, draw) == list(range(11))
    assert asked == [11, 5, 2, 2, 2, 2, 2, 2]
    assert "no memory for 11 images at a time: drawing 5" in caplog.text


def test_three_that_do_not_fit_are_drawn_in_pairs() -> None:
    asked: list[list[int]] = []

    def draw(rows: list[int]) -> list[int]:
        asked.append(rows)
        if len(rows) > 2:
            raise MemoryError
        return rows

    assert in_batches(3, 3, draw) == [0, 1, 2]
    # A batch of one would be doubled, and each image drawn twice.
    assert asked == [[0, 1, 2], [0, 1], [2, 2]]


@pytest.mark.parametrize(
    "error", [ValueError("wrong"), RuntimeError("shapes differ"), RuntimeError("CUDA out of memory")]
)
def test_another_error_or_too_little_memory_for_two_is_raised(error: Exception) -> None:
    def draw(rows: list[int]) -> list[int]:
        raise error

    with pytest.raises(type(error), match=str(error)):
        in_batches(9, 9, draw)


def test_the_last_of_several_is_drawn_beside_a_copy_of_itself() -> None:
    asked: list[list[int]] = []

    def draw(rows: list[int]) -> list[int]:
        asked.append(rows)
        return rows

    assert in_batches(5, 2, draw) == [0, 1, 2, 3, 4]
    assert in_batches(1, 2, draw) == [0]
    assert asked == [[0, 1], [2, 3], [4, 4], [0]]


def test_memory_that_is_taken_is_not_free() -> None:
    size, limits = 64 << 20, resource.getrlimit(resource.RLIMIT_DATA)
    # A limit of this process: other processes take and give back the machine's memory at any time.
    resource.setrlimit(resource.RLIMIT_DATA, (status_bytes()["VmData"] + 4 * size, limits[1]))
    try:
        before = batches.free_bytes(torch.device("cpu"))
        # Not a tensor: glibc may have kept what another one left.
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE):
            assert before - batches.free_bytes(torch.device("cpu")) == pytest.approx(size, abs=size / 4)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
