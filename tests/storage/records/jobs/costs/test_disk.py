"""What a training writes to disks follows from what it trains, what it keeps and what it draws."""

from __future__ import annotations

from typing import Any

import pytest

from storage.records.jobs.costs.disk import (
    DiskEstimate,
    checkpoint_counts,
    estimate_disk,
    less_to_write,
    smaller_checkpoints,
)
from storage.records.jobs.training import TrainingRecipe
from tests.flows.training.tiny import recipe
from tests.storage.records.jobs.costs.shapes import sd15

MIB = 1024**2
UNET, VAE, TEXT = 859_520_964, 83_653_863, 123_060_480
ALL = UNET + VAE + TEXT


def wanted(**fields: Any) -> TrainingRecipe:
    few = {"steps": 800, "checkpoint_every": 100, "sample_every": 200, "resolution": 512, "token_learning_rate": 0.0}
    return recipe(**{**few, **fields})


def needs(**fields: Any) -> DiskEstimate:
    return estimate_disk(sd15(), wanted(**fields))


@pytest.mark.parametrize(
    ("fields", "stored", "counts"),
    [
        ({}, (), (3, 2)),
        ({"keep_checkpoints": 1}, (), (2, 1)),
        ({"checkpoint_every": 1000}, (), (1, 1)),
        ({"checkpoint_every": 500}, (), (2, 2)),  # of steps 500 and 800
        ({"keep_every": 200}, (), (5, 5)),  # 200, 400, 600 stay; 700 and 800 are the newest
        ({"keep_checkpoints": 5, "keep_every": 400}, (), (6, 5)),
        # A stop left those of steps 630 and 700: 800 comes beside them.
        ({}, (630, 700), (3, 2)),
        ({"checkpoint_every": 1000}, (630,), (2, 2)),
        ({}, (700, 800), (2, 2)),
        ({"chosen_step": 400}, (400,), (1, 1)),
    ],
)
def test_checkpoints_are_those_kept_those_that_stay_and_the_one_being_written(
    fields: dict[str, Any], stored: tuple[int, ...], counts: tuple[int, int]
) -> None:
    assert checkpoint_counts(wanted(**fields), stored) == counts


def test_a_checkpoint_holds_weights_moments_and_averages() -> None:
    for fields, each in (
        ({}, 12),
        ({"ema_decay": 0.9}, 16),
        ({"optimizer": "prodigy"}, 20),
        ({"optimizer": "lion"}, 8),
    ):
        assert 1 < needs(**fields).checkpoint / (each * UNET) < 1.001, fields
    assert 1 < needs(text_encoder_learning_rate=1e-6).checkpoint / (12 * (UNET + TEXT)) < 1.001
    assert needs(method="lora").checkpoint < 40 * MIB
    few = needs()
    assert (few.checkpoints, few.kept_checkpoints) == (3 * few.checkpoint, 2 * few.checkpoint)


@pytest.mark.parametrize(
    ("fields", "added", "copies"),
    [
        ({}, 2 * (ALL + UNET), 4 * ALL),  # the base has 2 bytes a weight; VAE and text encoder are its own files
        ({"text_encoder_learning_rate": 1e-6}, 2 * (ALL + UNET + TEXT), 4 * ALL),
        ({"export_dtype": "fp32"}, 8 * ALL, 8 * ALL),
        ({"export_dtype": "fp16"}, 4 * ALL, 4 * ALL),
    ],
)
def test_results_are_two_files_of_what_is_exported(fields: dict[str, Any], added: int, copies: int) -> None:
    need = needs(**fields)
    assert 0 < need.export - added < 2 * MIB
    assert 0 < need.export_copies - copies < 2 * MIB


def test_an_adapters_results_are_two_small_files() -> None:
    whole, half = needs(method="lora"), needs(method="lora", export_dtype="bf16")
    assert whole.export == whole.export_copies < 26 * MIB
    assert half.export < whole.export


def test_images_are_those_of_the_class_samples_and_the_evaluations() -> None:
    one = 512 * 512 * 3
    assert 3 <= needs().class_images / one < 3.2
    assert needs(prior_loss_weight=0.0).class_images == 0
    assert 10 <= needs(validation_every=100).class_images / one < 10.5
    # Two scenes four times by each of two models, eight images of the class, four samples of three.
    assert 36 <= needs().images / one < 42
    assert needs(sample_every=1).images - needs().images > 3 * 796 * one


@pytest.mark.parametrize(
    ("begun", "steps"),
    # The checkpoint of step 400 is there before its samples are.
    [(0, 4), (100, 4), (300, 3), (400, 3), (500, 2), (700, 1), (800, 1), (900, 1)],
)
def test_samples_that_are_stored_already_need_no_room_again(begun: int, steps: int) -> None:
    stored = (begun,) if begun else ()
    drawn = estimate_disk(sd15(), wanted(), stored).images - estimate_disk(sd15(), wanted(steps=1), ()).images
    image = (needs(sample_every=100).images - needs().images) // (4 * 3)
    assert drawn == (steps - 1) * 3 * image
    assert estimate_disk(sd15(), wanted(), stored).records == needs().records, "the whole document is written again"


def test_the_peak_is_of_checkpoints_or_of_results_with_all_that_was_drawn() -> None:
    of = {"checkpoint": 10, "checkpoints": 30, "kept_checkpoints": 20, "class_images": 3, "images": 2, "records": 1}
    few = DiskEstimate(**of, export=4, export_copies=5)
    many = DiskEstimate(**of, export=40, export_copies=50)
    assert (few.peak, few.in_store, few.in_work_folder) == (36, 36, 10)
    assert (many.peak, many.in_store, many.in_work_folder) == (116, 66, 50)
    assert str(few) == "3 checkpoints of 10 bytes, 4 bytes of results, 5 bytes of images"


def test_what_writes_less_is_named_with_what_it_saves() -> None:
    text = less_to_write(sd15(), wanted(keep_every=400, ema_decay=0.9))
    for change in ("keepEvery: 0 (saves ", "keepCheckpoints: 1 (saves ", "optimizer: adamw_8bit", "method: lora"):
        assert change in text
    assert smaller_checkpoints(wanted(ema_decay=0.9)) == "optimizer: adamw_8bit; emaDecay: 0; method: lora"
    least = wanted(method="lora", optimizer="lion_8bit", export_dtype="fp16", keep_checkpoints=1)
    assert (less_to_write(sd15(), least), smaller_checkpoints(least)) == ("", "")
