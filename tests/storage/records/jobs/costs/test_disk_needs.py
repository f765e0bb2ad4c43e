"""What a training writes to disks follows from what it trains and what it keeps."""

from __future__ import annotations

from typing import Any

import pytest

from storage.records.jobs.costs.disk_needs import DiskNeed, disk_need
from tests.flows.training.tiny import recipe

BASE = {"weights": 1000, "weight_files_bytes": 2000}


def need(**changes: Any) -> DiskNeed:
    wanted = recipe(**{"steps": 100, "checkpoint_every": 10, "keep_checkpoints": 2, **changes})
    return disk_need(wanted, trained=100, **BASE)


def test_checkpoints_are_those_kept_those_that_stay_and_the_one_being_written() -> None:
    assert need().checkpoints == 3
    assert need(keep_checkpoints=5, keep_every=50).checkpoints == 8
    assert need(checkpoint_every=100).checkpoints == 1
    assert need().checkpoint == 100 * 12
    assert need(ema_decay=0.9).checkpoint == 100 * 16


@pytest.mark.parametrize(
    ("wanted", "bytes_"),
    [
        ({}, 4000),
        ({"export_dtype": "fp16"}, 4000),
        ({"export_dtype": "fp32"}, 8000),
        ({"method": "lora"}, 800),
        ({"method": "lora", "export_dtype": "bf16"}, 400),
    ],
)
def test_results_are_two_files_of_what_is_exported(wanted: dict[str, Any], bytes_: int) -> None:
    assert need(**wanted).export == bytes_


def test_the_largest_sum_is_of_checkpoints_or_of_results() -> None:
    few, many = DiskNeed(checkpoint=10, checkpoints=3, export=4), DiskNeed(checkpoint=10, checkpoints=3, export=40)
    assert (few.on_one_disk, few.in_store, few.in_work_folder) == (30, 30, 10)
    assert (many.on_one_disk, many.in_store, many.in_work_folder) == (100, 60, 40)
    assert str(few) == "3 checkpoints of 10 bytes, and 4 bytes of results"
