"""The form in Prefect's pages submits like the API does."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest
from prefect.client.orchestration import SyncPrefectClient

from deployments.local.environment import settings_environment
from flows.training.request import request_training
from storage.postgres.jobs import jobs
from storage.records.catalog.vocabulary import Availability
from storage.records.jobs.jobs import JobState
from storage.records.jobs.training import TrainingJobRequest
from storage.stores import Stores
from tests.storage.makers import a_data_set, an_account


def test_the_form_submits_the_owners_job_as_the_form_says(
    stores: Stores, prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings_environment(stores.settings).items():
        monkeypatch.setenv(name, value)
    owner = an_account(stores.database)
    photos = a_data_set(stores.database, owner)
    job_id = UUID(request_training(data_set_id=photos, class_word="mug", seed=5, availability="Private"))
    job = stores.database.run(jobs.get(job_id))
    assert (job.account_id, job.state, job.data_set_id) == (owner, JobState.SUBMITTED, photos)
    asked = msgspec.convert(job.request, TrainingJobRequest)
    assert (asked.availability, asked.model_name) == (Availability.PRIVATE, "sks mug")
