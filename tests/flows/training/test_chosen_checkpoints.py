"""A checkpoint that stayed behind a finished job is chosen, and becomes a version of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from flows.training.dreambooth import train_dreambooth
from flows.training.tensor_files import read_metadata
from storage.errors import InvalidRequest, WrongState
from storage.postgres.catalog import catalog
from storage.postgres.jobs import job_files, submissions
from storage.records.jobs.choices import LearningRateSchedule
from storage.records.jobs.jobs import JobState
from storage.records.jobs.training import TrainingJobRequest
from storage.settings import Settings
from storage.stores import Stores
from tests.flows.training.test_dreambooth import (  # noqa: F401 - fixtures of the main job
    end_of,
    environment,
    settings,
    submit,
    weights_of,
)

UNET = "unet/diffusion_pytorch_model.safetensors"


def test_a_checkpoint_that_stayed_is_published_as_it_is(
    stores: Stores,
    tiny_model: Path,
    tmp_path: Path,
    environment: Callable[..., dict[str, str]],  # noqa: F811
    settings: Settings,  # noqa: F811
) -> None:
    wanted = {"learning_rate_schedule": LearningRateSchedule.LINEAR, "regularization_count": 2}
    job = submit(stores, tiny_model, **wanted, steps=5, checkpoint_every=1, keep_every=2)
    assert train_dreambooth(job.id, 1, return_state=True).is_completed()
    kept = {row.step: row.sha256 for row in stores.database.run(job_files.checkpoints(job.id))}
    assert sorted(kept) == [2, 4]
    with pytest.raises(WrongState):
        stores.database.run(submissions.retry(job.id, job.account_id, settings))
    with pytest.raises(InvalidRequest, match="no checkpoint of step 3 has stayed; those there are: 2, 4"):
        stores.database.run(submissions.retry(job.id, job.account_id, settings, step=3))
    chosen, _ = stores.database.run(submissions.retry(job.id, job.account_id, settings, step=2))
    assert train_dreambooth(chosen.id, 1, return_state=True).is_completed()
    assert end_of(stores, chosen.id).state is JobState.SUCCEEDED
    # It was trained as one of five steps, and says so: a recipe of two has another schedule, and other weights.
    recipe = msgspec.convert(end_of(stores, chosen.id).request, TrainingJobRequest).recipe
    assert (recipe.steps, recipe.chosen_step, recipe.last_step) == (5, 2, 2)
    version = stores.database.run(catalog.version_of_job(chosen.id))
    assert version is not None
    assert version.steps == 2
    assert msgspec.convert(version.recipe, TrainingJobRequest).recipe == recipe
    stores.blobs.fetch(weights_of(stores, chosen.id)["model.safetensors"], tmp_path / "single")
    facts = read_metadata(tmp_path / "single")
    assert (facts["ss_steps"], facts["ss_max_train_steps"]) == ("2", "5")
    stores.blobs.fetch(kept[2], tmp_path / "checkpoint")
    stores.blobs.fetch(weights_of(stores, chosen.id)[UNET], tmp_path / "unet")
    checkpoint, unet = load_file(tmp_path / "checkpoint"), load_file(tmp_path / "unet")
    assert unet.keys() == {
        name.removeprefix("weights/unet.") for name in checkpoint if name.startswith("weights/unet.")
    }
    for name, tensor in unet.items():
        assert torch.equal(tensor, checkpoint[f"weights/unet.{name}"].to(tensor.dtype)), name
    assert weights_of(stores, chosen.id)[UNET] != weights_of(stores, job.id)[UNET]
