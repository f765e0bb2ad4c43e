"""The form in Prefect's pages for one stage submits like the API does."""

from __future__ import annotations

from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.jobs.rerun_stage import rerun_stage
from storage.errors import WrongState
from storage.postgres.jobs import job_stages, jobs
from storage.records.jobs.jobs import JobState, RepeatedStage, Stage, StageBlob
from storage.stores import Stores
from tests.storage.makers import a_job

EXPORTED = StageBlob(sha256="ab" * 32, size=7)


@pytest.mark.usefixtures("environment")
def test_the_form_submits_a_job_that_finds_every_stage_but_one(stores: Stores, prefect: SyncPrefectClient) -> None:
    job, database = a_job(stores.database), stores.database
    with pytest.raises(WrongState):
        rerun_stage(job.id)
    database.run(jobs.claim(job.id, 1, None))
    for stage in (Stage.FIT, Stage.EVALUATE, Stage.EXPORT):
        made = {"files": []} if stage is Stage.EXPORT else {}
        blobs = [EXPORTED] if stage is Stage.EXPORT else []
        row = database.run(job_stages.put(job.id, 1, stage, "key", made, blobs, seconds=1.5, peak_bytes=9))
        assert (row.stage, row.made_by, row.seconds) == (stage, job.id, 1.5)
    database.run(jobs.fail(job.id, 1, "stalled", "It hung."))
    again = UUID(rerun_stage(job.id, RepeatedStage.EVALUATE))
    new = database.run(jobs.get(again))
    assert (new.retry_of, new.state, new.account_id) == (job.id, JobState.SUBMITTED, job.account_id)
    found = {row.stage: row.made_by for row in database.run(job_stages.of_job(again))}
    assert found == {Stage.FIT: job.id, Stage.EXPORT: job.id}
    assert database.run(job_stages.release_blobs(again)) == [EXPORTED.sha256]
