"""What MLflow is told of a training job beside its metrics: tags, parameters and what it learns from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec
from mlflow.entities import Dataset, DatasetInput, InputTag, SourceType
from mlflow.utils.git_utils import get_git_commit
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_RUN_NAME,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from flows.jobs.tracking import RETRY_TAG
from storage.records.jobs.jobs import Job
from storage.records.jobs.training import TrainingJobRequest, regularization_recipe

PROJECT = Path(__file__).parents[2]
REQUEST_TAG = "darkroom.request_id"


def shortened(value: object) -> str:
    """A parameter as MLflow takes it."""
    return str(value)[:500]


def job_tags(job: Job) -> dict[str, str]:
    """What the run of a training job is found by, and where it comes from, in MLflow's own tags where it has one."""
    request = msgspec.convert(job.request, TrainingJobRequest)
    asked = {REQUEST_TAG: job.request_id} if job.request_id else {}
    # Only of a checkout of this project: what is installed inside another repository has not that one's commit.
    commit = get_git_commit(str(PROJECT)) if (PROJECT / ".git").exists() else None
    return {
        MLFLOW_RUN_NAME: f"{request.model_name} {str(job.id)[:8]}",
        MLFLOW_USER: str(job.account_id),
        MLFLOW_SOURCE_NAME: "train-dreambooth",
        MLFLOW_SOURCE_TYPE: SourceType.to_string(SourceType.JOB),
        **({MLFLOW_GIT_COMMIT: commit} if commit else {}),
        "darkroom.version": version("darkroom"),
        "base_model": request.base_model,
        **({RETRY_TAG: str(job.retry_of)} if job.retry_of else {}),
        **asked,
    }


def job_params(job: Job) -> dict[str, object]:
    """The recipe of a training job, as parameters of its run."""
    recipe = msgspec.to_builtins(msgspec.convert(job.request, TrainingJobRequest).recipe)
    return {name: value for name, value in recipe.items() if name != "libraries"}


def job_inputs(job: Job, photos: int) -> list[DatasetInput]:
    """What a training job learns from: the photos, and the class images where it has some."""
    request = msgspec.convert(job.request, TrainingJobRequest)
    recipe = request.recipe
    found = [_input("photos", "training", recipe.data_set_hash, {"data_set_id": str(request.data_set_id)}, photos)]
    if recipe.prior_loss_weight > 0:
        key = regularization_recipe(recipe).key()
        source = {"regularization_set": key, "prompt": recipe.class_prompt}
        found.append(_input("class images", "regularization", key, source, recipe.regularization_count))
    return found


def _input(name: str, context: str, digest: str, source: Mapping[str, str], images: int) -> DatasetInput:
    # MLflow takes 36 characters of a digest; the whole one is the recipe's.
    dataset = Dataset(name, digest[:36], "darkroom", json.dumps(source), profile=json.dumps({"images": images}))
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, context)])
