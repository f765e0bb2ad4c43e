"""What reconcile repairs in MLflow: missing runs, missing versions, versions that are gone, runs left open."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flows.jobs.kept_metrics import read_metrics
from flows.jobs.refused_values import send_what_is_taken
from flows.jobs.registration import register
from flows.jobs.registry.withdrawal import withdraw
from flows.jobs.tracking import (
    EXPERIMENT,
    JOB_TAG,
    MLFLOW_UNAVAILABLE,
    RUN_STATUS,
    find_or_create_run,
    is_refusal,
    tracking_client,
)
from flows.jobs.tracking_facts import job_params, job_tags, shortened
from flows.jobs.tracking_run import MAX_METRICS
from flows.jobs.workflow_tracking import track_workflow, track_workflows
from storage.errors import BlobCorrupted, BlobMissing, NotFound, StoreFailure
from storage.postgres.catalog import catalog
from storage.postgres.jobs import job_files, jobs
from storage.records.jobs.jobs import TERMINAL, Job, JobKind
from storage.stores import Stores

MAX_BATCHES = 50
"""Of workflows in one go; what is left is the next one's."""


def reconcile_tracking(stores: Stores) -> list[str]:
    """Make the tracking runs that jobs lack, register versions that MLflow's registry lacks, take out those that are
    gone, end runs left open."""
    client = tracking_client(stores.settings)
    findings: list[str] = []
    try:
        findings += _make_missing_runs(stores, client)
        findings += _make_runs_of_workflows(stores, client)
        findings += _register_missing_versions(stores, client)
        findings += _withdraw_versions(stores, client)
        findings += _end_open_runs(stores, client)
    except MLFLOW_UNAVAILABLE as error:
        findings.append(f"MLflow did not take it, tried again next time: {_first_line(error)}")
    except StoreFailure as error:
        findings.append(f"{error}")
    return findings


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _make_missing_runs(stores: Stores, client: MlflowClient) -> Iterator[str]:
    for job in stores.database.run(jobs.untracked()):
        try:
            run_id = find_or_create_run(client, EXPERIMENT, job.id, job_tags(job))
            filled = _fill_and_end(stores, client, job, run_id)
        except MLFLOW_UNAVAILABLE as error:
            if not is_refusal(error):
                raise
            yield f"job {job.id} has no tracking run, MLflow refuses it: {_first_line(error)}"
            continue
        stores.database.run(jobs.note_tracking_run(job.id, job.attempt, run_id))
        yield f"job {job.id} had no tracking run that we knew of: now {run_id}, {filled}"


def _make_runs_of_workflows(stores: Stores, client: MlflowClient) -> Iterator[str]:
    refused = set[UUID]()
    # Those that MLflow refuses are the oldest, and hold up no others.
    for _ in range(MAX_BATCHES):
        batch = track_workflows(stores, client, refused)
        yield from (*batch.made, *batch.refused)
        if not batch.made and not batch.refused:
            return


def _register_missing_versions(stores: Stores, client: MlflowClient) -> Iterator[str]:
    for version in stores.database.run(catalog.unregistered()):
        try:
            name = register(stores, client, version)
        # One whose bytes or base are gone, or that MLflow refuses, must not keep the others out.
        except (NotFound, BlobMissing, BlobCorrupted, MlflowException, OSError) as error:
            if not is_refusal(error):
                raise
            yield f"model version {version.id} cannot be put into MLflow's registry: {_first_line(error)}"
        else:
            yield f"model version {version.id} was not in MLflow's registry: now {name}"


def _withdraw_versions(stores: Stores, client: MlflowClient) -> Iterator[str]:
    for version in stores.database.run(catalog.withdrawn()):
        if version.registered_as is None or version.job_id is None:
            continue
        try:
            withdraw(client, version.registered_as, version.job_id, stores.settings.mlflow.url)
        except (MlflowException, OSError) as error:
            if not is_refusal(error):
                raise
            yield f"model version {version.id} is gone and stays in MLflow's registry: {_first_line(error)}"
        else:
            # One that is restored is registered again.
            stores.database.run(catalog.note_registered(version.id, None))
            yield f"model version {version.id} is gone: no longer in MLflow's registry as {version.registered_as}"


def _end_open_runs(stores: Stores, client: MlflowClient) -> Iterator[str]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    # A killed process ends no run: MLflow shows it as running for ever.
    for run in client.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=500):
        job, run_id = _job_of(stores, run.data.tags.get(JOB_TAG)), str(run.info.run_id)
        if job is None or job.state not in TERMINAL:
            continue
        try:
            filled = _fill_and_end(stores, client, job, run_id)
        except MLFLOW_UNAVAILABLE as error:
            if not is_refusal(error):
                raise
            yield f"tracking run {run_id} of job {job.id} stays open, MLflow refuses its end: {_first_line(error)}"
        else:
            yield f"tracking run {run_id} of job {job.id} was open: {filled}, {job.state}"


def _fill_and_end(stores: Stores, client: MlflowClient, job: Job, run_id: str) -> str:
    if job.kind is JobKind.GENERATION:
        track_workflow(stores, client, job)
        return "filled"
    filled = _fill(stores, client, job, run_id)
    client.set_terminated(run_id, RUN_STATUS[job.state])
    return filled


def _job_of(stores: Stores, tag: str | None) -> Job | None:
    """The job that a tracking run says it belongs to; None for a run of another installation, or of nobody."""
    try:
        # MLflow may be shared: its other runs are not ours to end.
        return None if tag is None else stores.database.run(jobs.get(UUID(tag)))
    except (NotFound, ValueError):
        return None


def _fill(stores: Stores, client: MlflowClient, job: Job, run_id: str) -> str:
    """Send a job's parameters, and the points of its metrics that MLflow lacks; returns how many points."""
    # A process that ends while MLflow is away takes those along that it has not sent. Equal ones may come again.
    params = [Param(name, shortened(value)) for name, value in job_params(job).items()]
    send_what_is_taken(client, run_id, job.id, params)
    points = read_metrics(stores.blobs, stores.database.run(job_files.files(job.id)))
    known: dict[str, int] = {}
    for name in {point.name for point in points}:
        history = client.get_metric_history(run_id, name)
        # Points of a name are sent in the order of their steps, so all after the last one are missing, and none before
        # it.
        known[name] = max((point.step for point in history), default=-1)
    missing = [point for point in points if point.step > known[point.name]]
    taken = 0
    for start in range(0, len(missing), MAX_METRICS):
        batch = [Metric(one.name, one.value, one.at, one.step) for one in missing[start : start + MAX_METRICS]]
        taken += send_what_is_taken(client, run_id, job.id, batch)
    return f"{taken} points filled" + (f", {len(missing) - taken} refused" if taken < len(missing) else "")
