"""What nobody announces: jobs that fell silent, jobs whose flow run died, times that have come."""

from __future__ import annotations

import logging

from flows.runs.orchestrator import Orchestrator
from storage.errors import JobLost
from storage.logs import log_context
from storage.postgres.catalog import models
from storage.postgres.connection import Database
from storage.postgres.jobs import jobs
from storage.records.jobs.jobs import Job
from storage.settings import JobSettings

log = logging.getLogger("darkroom.relay")

START_SECONDS = 45.0
"""A flow run that has not claimed its job for so long is looked at."""


def publish_due(database: Database) -> int:
    """Publish what was scheduled for a time that has come; returns how many models and versions."""
    published = database.run(models.publish_due)
    if published:
        log.info("%d scheduled models and versions are published", published)
    return published


def sweep_silent_jobs(database: Database, settings: JobSettings) -> list[Job]:
    """Start another attempt of jobs that fell silent, or fail them; returns those it moved."""
    moved = database.run(
        lambda: jobs.sweep_silent(
            silent_after_seconds=settings.silent_after_seconds, max_silent_attempts=settings.max_silent_attempts
        )
    )
    for job in moved:
        with log_context(request_id=job.request_id):
            log.warning("job %s was silent: now %s, attempt %d", job.id, job.state, job.attempt)
    return moved


def replace_dead_flow_runs(database: Database, orchestrator: Orchestrator, settings: JobSettings) -> list[Job]:
    """Start a new attempt of jobs whose flow run ended in Prefect before it claimed them; returns those it moved."""
    replaced: list[Job] = []
    for job in database.run(jobs.waiting_with_flow_run(START_SECONDS)):
        # Outside of any transaction: this asks Prefect, and takes as long as it takes.
        if job.flow_run_id is not None and orchestrator.is_dead(job.flow_run_id):
            try:
                replaced.append(database.run(jobs.replace_dead_flow_run(job, settings.max_silent_attempts)))
            # It was claimed, cancelled or swept between the look and the statement, which names the attempt.
            except JobLost:
                continue
    for job in replaced:
        with log_context(request_id=job.request_id):
            log.warning("job %s lost its flow run before it began: attempt %d", job.id, job.attempt)
    return replaced
