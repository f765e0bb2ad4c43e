"""Which workflows have their runs made: what MLflow refuses holds up no others. What is in a run: test_images.py."""

from __future__ import annotations

from typing import cast
from uuid import UUID

import pytest
from mlflow.exceptions import RestException
from mlflow.tracking import MlflowClient

from flows.jobs import workflow_tracking
from flows.jobs.workflow_tracking import track_workflows
from storage.postgres.generation import workflows
from storage.postgres.jobs import jobs
from storage.records.jobs.jobs import Job
from storage.stores import Stores
from tests.flows.generation.bench import a_workflow


def test_those_that_mlflow_refuses_are_passed_over(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [a_workflow(stores.database) for _ in range(23)]
    for job in made:
        stores.database.run(jobs.claim(job.id, 1, None))
        stores.database.run(jobs.fail(job.id, 1, "test", "because"))
    refused = {job.id for job in made[:20]}

    def track(stores: Stores, _client: MlflowClient, job: Job) -> str:
        if job.id in refused:
            raise RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "too large"})
        stores.database.run(jobs.note_tracking_run(job.id, job.attempt, "run"))
        return "run"

    monkeypatch.setattr(workflow_tracking, "track_workflow", track)
    passed, client = set[UUID](), cast(MlflowClient, None)
    batches = [track_workflows(stores, client, passed) for _ in range(3)]
    assert [(len(one.made), len(one.refused)) for one in batches] == [(0, 20), (3, 0), (0, 0)]
    assert passed == refused
    assert {job.id for job in stores.database.run(workflows.untracked())} == refused, "the next run tries them again"
