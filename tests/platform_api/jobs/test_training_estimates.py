"""POST /api/v1/training-jobs/estimate: the whole request, and what it needs, before anything is submitted."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from platform_api.jobs import training_estimates
from storage.blobs.store import BlobStore
from storage.postgres.connection import Query
from storage.postgres.jobs import base_models, data_sets, job_stages, jobs, submissions
from storage.records.accounts.accounts import Scope
from storage.records.jobs.choices import TrainingMethod
from storage.records.jobs.costs.memory import MemoryEstimate, estimate_memory
from storage.records.jobs.costs.sizes import ModelSizes
from storage.records.jobs.jobs import Job, Progress, Stage
from storage.records.jobs.training import TrainingRecipe, TrainingRequest
from tests.platform_api.door import Door
from tests.storage.makers import a_card, a_data_set
from tests.storage.model_files import PARAMETERS, stored_model

ROUTE = "/api/v1/training-jobs/estimate"


@pytest.fixture
def door(shared_door: Door, tmp_path: Path) -> Door:
    """An API with a base model `small` that has weights."""
    files = stored_model(BlobStore(shared_door.settings.blobs), tmp_path / "model")
    shared_door.database.run(base_models.register("small", "5" * 64, a_card(), files))
    return shared_door


def asked(door: Door, **body: Any) -> dict[str, Any]:
    response = door.client().post(ROUTE, json={"classWord": "mug", "baseModel": "small", **body})
    assert response.status_code == 200, response.text
    return response.json()


def test_the_request_comes_back_with_nothing_left_out_and_means_the_same(door: Door) -> None:
    first = asked(door, steps=5, sampler={"steps": 3}, preset="cpu")["request"]
    assert (first["steps"], first["learningRate"], first["preset"], first["splitBackward"]) == (5, 5e-6, "cpu", True)
    assert first["sampler"] == {"steps": 3, "guidanceScale": 3.0}
    assert first["evaluationScenes"] == ["on the beach", "in the snow"]
    assert (first["name"], first["availability"]) == ("sks mug", "Private")
    assert "seed" not in first
    assert "loraRank" not in first
    assert asked(door, **first)["request"] == first


def test_an_adapters_request_has_its_own_fields(door: Door) -> None:
    first = asked(door, method="lora", loraRank=4, seed=3)["request"]
    assert (first["loraRank"], first["loraAlpha"], first["learningRate"], first["seed"]) == (4, 4.0, 1e-4, 3)
    assert asked(door, **first)["request"] == first


def test_epochs_are_counted_of_the_photos_that_are_named(door: Door) -> None:
    without = asked(door, steps=800, keepEveryEpochs=30)
    assert (without["request"].get("keepEvery"), without["request"]["keepEveryEpochs"]) == (None, 30)
    assert without["notes"][0] == training_estimates.NO_EPOCHS
    owner = door.account("owner of epochs")
    photos = str(a_data_set(door.database, owner))
    named = {"classWord": "mug", "baseModel": "small", "steps": 800, "keepEveryEpochs": 120, "dataSetId": photos}
    response = door.client(door.new_key(Scope.JOBS_WRITE, account="owner of epochs")).post(ROUTE, json=named)
    assert response.status_code == 200, response.text
    count = len(door.database.run(data_sets.images(UUID(photos))))
    assert response.json()["request"]["keepEvery"] == 120 * count
    assert training_estimates.NO_EPOCHS not in response.json()["notes"]
    of_another = door.client().post(ROUTE, json=named)
    assert (of_another.status_code, list(of_another.json()["errors"])) == (422, ["dataSetId"])


def test_memory_and_disk_are_counted_from_the_headers(door: Door) -> None:
    needs = asked(door)
    trained = PARAMETERS["unet"]
    assert needs["memory"]["trainedParameters"] == trained
    assert needs["memory"]["gradients"] == 4 * trained
    assert needs["memory"]["fitsCards"] == ["8 GB", "12 GB", "16 GB", "24 GB"]
    assert 12 * trained <= needs["disk"]["checkpoint"] < 12 * trained + 2**17  # and its header
    assert needs["disk"]["peakBytes"] > needs["disk"]["checkpoints"] + needs["disk"]["images"]
    parts = ("weights", "adapters", "gradients", "optimizer", "ema", "halfPrecisionCopies", "encodings", "activations")
    assert (
        needs["memory"]["peakBytes"] == sum(needs["memory"][part] for part in parts) - needs["memory"]["notConcurrent"]
    )


def trained(
    door: Door, owner: UUID, *, steps: int, step: float, fit: float, recorded_without: str = "", **fields: Any
) -> Job:
    """A job of so many steps that succeeded on a card: its steps took `step` seconds and half a second more between
    two, its fit `fit` in all; 30 s before it and 6 behind. recorded_without: a field that its release did not have."""
    request = TrainingRequest(
        data_set_id=a_data_set(door.database, owner), class_word="mug", base_model="small", steps=steps, **fields
    )
    job, _ = door.database.run(submissions.submit_training(request, owner, door.settings, seed=1))
    job = door.database.run(jobs.claim(job.id, 1, None))
    pace = {"steps": steps, "step_seconds": step, "pause_seconds": 0.5}
    for stage, result, seconds in (
        (Stage.REGULARIZE, {}, 30.0),
        (Stage.FIT, {"step": steps, "checkpoint": "c" * 64, **pace}, fit),
        (Stage.EVALUATE, {}, 4.0),
        (Stage.EXPORT, {}, 2.0),
    ):
        door.database.run(job_stages.put(job.id, 1, stage, "key", result, [], seconds=seconds, peak_bytes=1))
    recipe: dict[str, Any] = {**job.request["recipe"], "device": "a card", "threads": 1}  # pyright: ignore[reportGeneralTypeIssues]
    recipe.pop(recorded_without, None)
    done = """update jobs set state = 'succeeded', ended_at = now(), request = request || %(request)s
               where id = %(id)s"""
    door.database.run(Query(done, {"id": job.id, "request": Jsonb({"recipe": recipe})}, len))
    return job


def test_the_time_is_of_the_steps_and_of_what_comes_before_and_after_them(door: Door) -> None:
    owner = door.account("owner of paces")
    assert asked(door, steps=30)["times"] == []
    trained(door, owner, steps=10, step=1.5, fit=24.0)
    # 10 steps of 2 s are 20 of the 24 of the fit; 30 before it, 6 behind.
    known = {"device": "a card", "jobs": 1, "secondsPerStep": 2.0, "otherSeconds": 40.0}
    assert asked(door, steps=30)["times"] == [{**known, "seconds": 100.0}]
    assert asked(door, steps=300)["times"] == [{**known, "seconds": 640.0}]
    for fields in (
        {"optimizer": "adafactor"},
        {"splitBackward": True},
        {"priorLossWeight": 0},
        {"textEncoderLearningRate": 1e-6},
        {"tokenLearningRate": 1e-3},
        {"trainOnly": "unet.*"},
        {"compile": True},
    ):
        assert asked(door, steps=30, **fields)["times"] == [], fields
    assert asked(door, steps=30, priorLossWeight=0.5, sampleEvery=7)["times"] != []
    other = asked(door, method="lora")
    assert other["times"] == []
    assert "nothing is known of the time; other jobs on it took 2 s a step" in other["notes"][0]
    trained(door, owner, steps=10, step=3.5, fit=60.0)
    [median] = asked(door, steps=10)["times"]
    assert (median["jobs"], median["secondsPerStep"], median["otherSeconds"]) == (2, 3.0, 48.0)
    base = door.client().get("/api/v1/base-models/small").json()
    assert base["secondsPerStep"] == 3.0


def test_an_adapters_time_is_of_jobs_that_held_the_base_alike(door: Door) -> None:
    owner = door.account("owner of paces")
    lora = {"method": TrainingMethod.LORA}
    trained(door, owner, steps=10, step=1.5, fit=24.0, **lora)
    trained(door, owner, steps=10, step=1.5, fit=24.0, recorded_without="frozen_precision", **lora)
    [whole] = asked(door, method="lora")["times"]
    assert (whole["jobs"], whole["secondsPerStep"]) == (2, 2.0)
    assert asked(door, method="lora", frozenPrecision="bf16")["times"] == []
    trained(door, owner, steps=10, step=3.5, fit=60.0, **lora, frozen_precision="bf16")
    [half] = asked(door, method="lora", frozenPrecision="bf16")["times"]
    assert (half["jobs"], half["secondsPerStep"]) == (1, 4.0)
    assert asked(door, method="lora")["times"] == [whole]


def test_a_job_of_a_few_steps_sets_no_pace(door: Door) -> None:
    def known() -> object:
        return door.client().get("/api/v1/base-models/small").json().get("secondsPerStep")

    before = known()
    trained(door, door.account("owner of paces"), steps=9, step=60.0, fit=600.0, batch_size=2)
    assert asked(door, steps=30, batchSize=2)["times"] == []
    assert known() == before


def test_a_jobs_own_page_has_the_time_that_is_left_by_the_same_arithmetic(door: Door) -> None:
    trained(door, door.account("owner of paces"), steps=10, step=1.5, fit=24.0)
    data_set = a_data_set(door.database, door.account_id)
    body = {"dataSetId": str(data_set), "classWord": "mug", "baseModel": "small", "steps": 30}
    job = UUID(door.client().post("/api/v1/training-jobs", json=body).json()["id"])

    def left(phase: str = "", step: int = 0) -> float:
        progress = Progress(phase=phase, step=step, total=30)
        if phase:
            door.database.run(jobs.heartbeat(job, 1, progress))
        return door.client().get(f"/api/v1/training-jobs/{job}").json()["estimatedSeconds"]

    assert left() == 100.0
    door.database.run(jobs.claim(job, 1, None))
    assert left("regularize", 3) == 100.0
    assert left("fit", 10) == 6 + 20 * 2.0
    assert left("evaluate", 1) == 6.0


def test_the_arithmetic_holds_up_no_other_request(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def watched(sizes: ModelSizes, recipe: TrainingRecipe) -> MemoryEstimate:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            threads.append(True)
        return estimate_memory(sizes, recipe)

    monkeypatch.setattr(training_estimates, "estimate_memory", watched)
    asked(door, trainOnly="unet.*,text_*")
    assert threads == [True], "it ran on the event loop"


def test_a_base_without_its_weights_says_that_it_is_unknown(shared_door: Door) -> None:
    shared_door.database.run(base_models.register("empty", "6" * 64, a_card(), []))
    needs = asked(shared_door, baseModel="empty")
    assert (needs["memory"], needs["disk"]) == (None, None)
    assert "memory and disk are unknown: The base model has no weights" in needs["notes"][0]


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"learning_rate": 1}, "learning_rate", "did you mean learningRate?"),
        ({"steps": "5m"}, "steps", "unit: optimizer steps"),
        ({"baseModel": "none"}, "baseModel", "No base model 'none'"),
        ({"classWord": "dog"}, "classWord", "does not know 'dog'"),
        ({"preset": "gpu-8gb", "method": "full"}, "preset", "Available are: cpu with method lora"),
        ({"loraRank": 4}, "loraRank", "is of the method lora alone"),
        ({"frozenPrecision": "bf16"}, "frozenPrecision", "must be fp32 with the method full"),
        ({"trainOnly": "a*," * 51}, "trainOnly", "has 51 patterns, and 50 are the most"),
        ({"sampler": {"stepz": 4}}, "sampler.stepz", "did you mean steps?"),
    ],
)
def test_what_would_be_refused_is_refused_before_photos_are_sent(
    door: Door, body: dict[str, Any], field: str, words: str
) -> None:
    response = door.client().post(ROUTE, json={"classWord": "mug", "baseModel": "small", **body})
    assert response.status_code == 422
    assert words in response.json()["errors"][field]


def test_a_key_that_may_not_submit_is_refused(door: Door) -> None:
    reader = dataclasses.replace(door, key=door.new_key(Scope.JOBS_READ))
    assert reader.client().post(ROUTE, json={"classWord": "mug"}).status_code == 403
