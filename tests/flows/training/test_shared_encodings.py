"""Two jobs of one recipe share what VAE and text encoder made: the second encodes no photo, and makes equal bytes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from flows.diffusion.families.protocol import Components
from flows.diffusion.families.sd1 import Sd1
from flows.training.dreambooth import train_dreambooth
from flows.upkeep.retention.folder_rules import ENCODINGS_OF_NO_PHOTO
from storage.stores import Stores
from tests.flows.training.test_dreambooth import (  # noqa: F401 - fixtures of the main job
    environment,
    settings,
    submit,
    weights_of,
)

LONG = "xqzjvkwpyxqzjvkwpyxqzjvkwpyxqzjv"
"""An identifier of more tokens than the tiny model's encoder reads."""


@pytest.fixture
def run_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What flow runs log, which Prefect's loggers keep to themselves."""
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addHandler(caplog.handler)
    yield caplog
    for logger in loggers:
        logger.removeHandler(caplog.handler)


@pytest.mark.usefixtures("environment")
def test_a_second_job_encodes_no_photo_again_and_makes_the_same_bytes(
    stores: Stores, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, run_log: pytest.LogCaptureFixture
) -> None:
    encoded: list[int] = []
    original = Sd1.encode_images

    def counted(self: Sd1, components: Components, pixels: Tensor) -> tuple[Tensor, Tensor]:
        encoded[-1] += 1
        return original(self, components, pixels)

    monkeypatch.setattr(Sd1, "encode_images", counted)
    wanted: dict[str, Any] = {"steps": 2, "token_learning_rate": 0.0, "identifier": LONG, "validation_every": 2}
    jobs = []
    for _ in range(2):
        encoded.append(0)
        jobs.append(submit(stores, tiny_model, **wanted))
        assert train_dreambooth(jobs[-1].id, 1, return_state=True).is_completed()

    first, second = encoded
    assert first - second == 12, "2 photos, 3 class images, 7 of the validation; evaluation encodes what was just drawn"
    assert weights_of(stores, jobs[0].id) == weights_of(stores, jobs[1].id)
    kept = {path.name for path in (stores.cache_folder / "encodings").iterdir()}
    assert len(kept - {ENCODINGS_OF_NO_PHOTO}) == 2
    assert f"the identifier '{LONG}' is" in run_log.text
    assert "; the text encoder reads the first " in run_log.text
