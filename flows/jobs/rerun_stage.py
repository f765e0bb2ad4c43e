"""@flow rerun-stage: the form in the Prefect UI for one stage of a training. It submits like the API does."""

from __future__ import annotations

from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run

from flows.runs.retries import run_with_retries
from storage.postgres.connection import Script
from storage.postgres.jobs import jobs, submissions
from storage.records.jobs.jobs import Job, RepeatedStage
from storage.settings import Settings, load_settings
from storage.stores import open_stores


@flow(name="rerun-stage")
def rerun_stage(job_id: UUID, stage: RepeatedStage = RepeatedStage.EVALUATE) -> str:
    """Do one stage of a training that has ended again, as a job of its own; returns that job's id.

    Stages that it is not made from are found done, so nothing is trained again unless the stage is the fit. What comes
    out is published as a new version.

    Args:
        job_id: The id of a training job that failed or was cancelled; also of one that succeeded, where the checkpoint
            of its last step has stayed (keepEvery) or the stage is fit.
        stage: fit (with all that follows it, from the first step), evaluate or export; evaluate by default.
    """
    settings = load_settings()
    with open_stores(settings) as stores:
        job = run_with_retries(stores, lambda: _again(job_id, stage, settings))
    link = f"{settings.prefect.ui_url}/runs?tags=job%3A{job.id}"
    create_link_artifact(key="job", link=link, link_text=f"Flow runs of job {job.id}", description=f"Job {job.id}")
    get_run_logger().info("job %s does the stage %s of job %s again", job.id, stage.value, job_id)
    return str(job.id)


def _again(job_id: UUID, stage: RepeatedStage, settings: Settings) -> Script[Job]:
    old = yield from jobs.get(job_id)
    # The same flow run again, by Prefect's retry button for one, is the same job.
    key = f"prefect-rerun:{flow_run.id}"
    job, _ = yield from submissions.retry(job_id, old.account_id, settings, stage=stage, idempotency_key=key)
    return job
