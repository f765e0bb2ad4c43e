"""Stages that have ended are found, by the next attempt, by a retry of the job and by Prefect's Retry button."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.training.dreambooth import train_dreambooth
from flows.training.stages import publication_stage
from flows.training.stages.stage_results import Fitted
from flows.training.work import TrainingWork
from storage.errors import InvalidRequest, JobCannotSucceed, WrongState
from storage.postgres.catalog import catalog
from storage.postgres.jobs import job_files, job_stages, jobs, submissions
from storage.records.jobs.jobs import JobFileRole, JobState, RepeatedStage, Stage
from storage.stores import Stores
from tests.flows.training.test_dreambooth import (  # noqa: F401 - fixtures of the main job
    STEPS,
    end_of,
    environment,
    settings,
    submit,
    weights_of,
)

KEPT = {Stage.REGULARIZE, Stage.FIT, Stage.EVALUATE, Stage.EXPORT}


def refused(*_: object) -> None:
    """What fails a job at its very end."""
    raise JobCannotSucceed("The catalogue is closed today.")


def no_model(*_: object) -> None:
    """A stage that was done needs none."""
    raise AssertionError("a model was loaded")


def failed_at_the_end(stores: Stores, tiny_model: Path, patch: pytest.MonkeyPatch, **wanted: Any) -> UUID:
    """A job that has done everything but publish."""
    job = submit(stores, tiny_model, **wanted)
    with patch.context() as broken:
        broken.setattr(publication_stage.publication, "publish", refused)
        assert train_dreambooth(job.id, 1, return_state=True).is_failed()
    return job.id


def artifact(client: SyncPrefectClient, key: str) -> str:
    """The newest artifact of this key."""
    found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return str(max(found, key=lambda one: one.created or 0).data)


def evaluation_of(stores: Stores, job_id: UUID) -> dict[str, object]:
    version = stores.database.run(catalog.version_of_job(job_id))
    assert version is not None
    return dict(version.evaluation or {})


@dataclass(frozen=True)
class Straight:
    """What a job publishes that runs through. Equal recipes make equal bytes, so one does for the whole file."""

    weights: dict[str, str]
    evaluation: dict[str, object]


ONCE: list[Straight] = []


@pytest.fixture
def straight(stores: Stores, tiny_model: Path, environment: Callable[..., dict[str, str]]) -> Straight:  # noqa: F811
    if not ONCE:
        job = submit(stores, tiny_model)
        assert train_dreambooth(job.id, 1, return_state=True).is_completed()
        ONCE.append(Straight(weights_of(stores, job.id), evaluation_of(stores, job.id)))
    return ONCE[0]


def test_a_retry_loads_no_model_for_what_was_done_and_publishes_the_same(
    stores: Stores, tiny_model: Path, straight: Straight, prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = failed_at_the_end(stores, tiny_model, monkeypatch)
    rows = {row.stage: row for row in stores.database.run(job_stages.of_job(failed))}
    assert rows.keys() == KEPT
    assert all(row.seconds > 0 and row.peak_bytes > 0 for row in rows.values()), rows
    fitted = msgspec.convert(rows[Stage.FIT].result, Fitted)
    assert fitted.steps == STEPS
    assert 0 < fitted.steps * fitted.step_seconds < rows[Stage.FIT].seconds, "estimates are made of it"
    assert fitted.pause_seconds > 0
    page = artifact(prefect, "summary")
    assert "**Failed** in the stage `publish`: `job_failed`" in page
    assert f"`darkroom jobs retry {failed}`" in page
    assert f"at step {STEPS}, its newest checkpoint" in page
    retry, _ = stores.database.run(submissions.retry(failed, end_of(stores, failed).account_id, stores.settings))
    with monkeypatch.context() as watched:
        watched.setattr(TrainingWork, "load_components", no_model)
        assert train_dreambooth(retry.id, 1, return_state=True).is_completed()
    assert weights_of(stores, retry.id) == straight.weights
    assert evaluation_of(stores, retry.id) == straight.evaluation
    made = {file.role for file in stores.database.run(job_files.files(retry.id))}
    assert {JobFileRole.GRID, JobFileRole.EVALUATION, JobFileRole.METRICS} <= made
    page = artifact(prefect, "summary")
    version = end_of(stores, retry.id).model_version_id
    assert f"Published as [model version {version}]" in page
    assert f"Step {STEPS} of {STEPS}: the last." in page
    assert f"| {STEPS} | " in page, "the loss of the step that was taken, though the retry has measured none"
    stages = {row["stage"]: row for row in json.loads(artifact(prefect, "stages"))}
    assert list(stages) == [stage.value for stage in Stage]
    assert stages["fit"]["made by"] == f"attempt 1 of job {failed}"
    assert stages["publish"]["made by"] == "this attempt"
    named = stores.database.run(job_stages.release_blobs(retry.id))
    assert named == [], "the version names them"


def test_one_stage_is_done_again_alone(
    stores: Stores,
    tiny_model: Path,
    straight: Straight,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = failed_at_the_end(stores, tiny_model, monkeypatch)
    owner = end_of(stores, failed).account_id
    again, _ = stores.database.run(submissions.retry(failed, owner, stores.settings, stage=RepeatedStage.EVALUATE))
    fit, _ = stores.database.run(submissions.retry(failed, owner, stores.settings, stage=RepeatedStage.FIT))
    assert stores.database.run(job_files.checkpoints(fit.id)) == [], "it begins at its first step"
    assert {row.stage for row in stores.database.run(job_stages.of_job(fit.id))} == {Stage.REGULARIZE}
    inherited = {row.stage for row in stores.database.run(job_stages.of_job(again.id))}
    assert inherited == KEPT - {Stage.EVALUATE}
    assert train_dreambooth(again.id, 1, return_state=True).is_completed()
    made = {row.stage: row.made_by for row in stores.database.run(job_stages.of_job(again.id))}
    assert made == {stage: again.id if stage is Stage.EVALUATE else failed for stage in KEPT}
    assert evaluation_of(stores, again.id) == straight.evaluation
    assert weights_of(stores, again.id) == straight.weights
    drawn = [file.step for file in stores.database.run(job_files.files(again.id)) if file.role is JobFileRole.SAMPLE]
    assert drawn == [STEPS] * 3, "its own page shows what it published"
    with pytest.raises(WrongState):
        stores.database.run(submissions.retry(again.id, owner, stores.settings))
    with pytest.raises(InvalidRequest, match=f"no checkpoint of step {STEPS} has stayed"):
        stores.database.run(submissions.retry(again.id, owner, stores.settings, stage=RepeatedStage.EVALUATE))


def test_prefects_retry_button_carries_out_a_retry_in_the_same_flow_run(
    stores: Stores, tiny_model: Path, straight: Straight, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = failed_at_the_end(stores, tiny_model, monkeypatch)
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", "2")
    monkeypatch.setattr(TrainingWork, "load_components", no_model)
    ended = train_dreambooth(failed, 1, return_state=True)
    assert ended.is_completed()
    [retry] = [
        job
        for job in stores.database.run(jobs.list_for_account(end_of(stores, failed).account_id))
        if job.retry_of == failed
    ]
    assert (retry.state, retry.attempt) == (JobState.SUCCEEDED, 1)
    assert end_of(stores, failed).state is JobState.FAILED, "what has ended never changes"
    assert weights_of(stores, retry.id) == straight.weights
    # The button is also there for a run that is completed.
    assert ended.state_details.flow_run_id is not None
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(ended.state_details.flow_run_id))
    once_more = train_dreambooth(failed, 1, return_state=True)
    assert (once_more.is_completed(), "nothing was done" in str(once_more.message)) == (True, True)


def test_a_training_that_hangs_fails_by_name_and_its_retry_ends_with_the_same_bytes(
    stores: Stores, tiny_model: Path, straight: Straight, prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(stores, tiny_model)
    monkeypatch.setenv("DARKROOM_JOBS__STALL_MINUTES", "0.05")
    with monkeypatch.context() as stuck:
        # Samples are drawn after step 4, whose checkpoint is kept before.
        stuck.setattr(TrainingWork, "_sample", lambda *_: threading.Event().wait())
        state = train_dreambooth(job.id, 1, return_state=True)
    assert state.is_failed()
    assert str(state.message).startswith("stalled: Nothing was done for 0.05 minutes in the phase 'fit' after 4 of 6,")
    assert end_of(stores, job.id).failure_code == "stalled"
    assert stores.database.run(job_files.checkpoints(job.id))[0].step == 4
    assert "**Failed** in the stage `fit`: `stalled`" in artifact(prefect, "summary")
    monkeypatch.delenv("DARKROOM_JOBS__STALL_MINUTES")
    retry, _ = stores.database.run(submissions.retry(job.id, job.account_id, stores.settings))
    assert train_dreambooth(retry.id, 1, return_state=True).is_completed()
    assert weights_of(stores, retry.id) == straight.weights
