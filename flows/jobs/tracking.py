"""MLflow's client, and the run that belongs to a job, found again after a crash by the job's id."""

from __future__ import annotations

import os
from collections.abc import Mapping
from uuid import UUID

import requests
from mlflow.entities import Run
from mlflow.exceptions import MlflowException, RestException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from storage.records.jobs.jobs import JobState
from storage.settings import Settings

EXPERIMENT = "dreambooth"
EXPERIMENT_NOTE = (
    "Fine-tunes of subjects, one run a training job. An attempt that dies is gone on with in its run; a job that "
    "retries another one has a run of its own below it. `loss`, `instance_loss` and `prior_loss` are of each step, "
    "`validation_loss.*` of fixed noise and timesteps, `memory_peak_gb.*` of each phase; samples are images of the "
    "run. Models are in the registry, where `mlflow.pyfunc.load_model` draws with them."
)
JOB_TAG = "darkroom.job_id"
RETRY_TAG = "darkroom.retry_of"
"""The job that a job retries."""
RUN_STATUS = {JobState.SUCCEEDED: "FINISHED", JobState.FAILED: "FAILED", JobState.CANCELLED: "KILLED"}
PATIENCE = {
    # One at once, for a connection that the server has closed meanwhile. More would wait inside a call for longer than
    # a TrackingRun says, which repeats by itself what MLflow did not take.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    # Seconds. A server that shares two cores with a training responds slowly.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""How long a call of MLflow's client may take."""

MLFLOW_UNAVAILABLE = (MlflowException, requests.RequestException, ConnectionError, TimeoutError)
_BUSY = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")


def is_refusal(error: Exception) -> bool:
    """Whether MLflow, or this machine, refused one thing, so that others may still be taken. False when MLflow did not
    respond, or is busy."""
    if isinstance(error, requests.HTTPError):
        return error.response is not None and 400 <= error.response.status_code < 500
    if isinstance(error, MlflowException):
        # Without a response, or with one of something in between, MLflow's client has no code but the general one.
        general = error.error_code == "INTERNAL_ERROR" and not isinstance(error, RestException)
        return not general and error.error_code not in _BUSY
    return not isinstance(error, MLFLOW_UNAVAILABLE)


def tracking_client(settings: Settings) -> MlflowClient:
    """An MLflow client that signs in, and that gives up after seconds: by itself it would after four minutes.

    MLflow reads user, password, retries and time-out from the environment, and has no other place for them; so does its
    client of artifacts, in `flows.upkeep.retention`. Light flows have a client of their own
    (`flows.runs.light_tracking`), because importing this one takes longer than their work.
    """
    if settings.mlflow.credentials:
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = settings.mlflow.credentials
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    return MlflowClient(tracking_uri=settings.mlflow.url, registry_uri=settings.mlflow.url)


def find_or_create_run(
    client: MlflowClient, experiment: str, job_id: UUID, tags: Mapping[str, str], began: int | None = None
) -> str:
    """The id of the job's tracking run, running again if it had ended. Raises MlflowException when MLflow is
    unavailable.

    began: when a new run started, in milliseconds since 1970; None: now.
    A new run of a job that retries another one stands below the run of the first of them, as nested runs do.
    """
    experiment_id = experiment_named(client, experiment)
    # By our own tag, since a process that died between creating a run and writing its id down has left one.
    run = _run_of(client, experiment_id, str(job_id))
    if run is not None:
        client.update_run(str(run.info.run_id), status="RUNNING")
        return str(run.info.run_id)
    wanted = {JOB_TAG: str(job_id), **tags}
    first = _run_of(client, experiment_id, tags[RETRY_TAG]) if RETRY_TAG in tags else None
    if first is not None:
        wanted[MLFLOW_PARENT_RUN_ID] = first.data.tags.get(MLFLOW_PARENT_RUN_ID, str(first.info.run_id))
    return str(client.create_run(experiment_id, start_time=began, tags=wanted).info.run_id)


def experiment_named(client: MlflowClient, name: str) -> str:
    """The id of an experiment, made with its description when it is new."""
    found = client.get_experiment_by_name(name)
    if found is None:
        note = {MLFLOW_RUN_NOTE: EXPERIMENT_NOTE} if name == EXPERIMENT else {}
        try:
            return client.create_experiment(name, tags=note)
        # Another process has made it between the look and this.
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if name == EXPERIMENT and MLFLOW_RUN_NOTE not in found.tags:
        # Made by an earlier release. What somebody has written since stays.
        client.set_experiment_tag(found.experiment_id, MLFLOW_RUN_NOTE, EXPERIMENT_NOTE)
    return str(found.experiment_id)


def _run_of(client: MlflowClient, experiment_id: str, job_id: str) -> Run | None:
    wanted = f"tags.`{JOB_TAG}` = '{job_id}'"
    runs = client.search_runs([experiment_id], wanted, max_results=1, order_by=["start_time"])
    return runs[0] if runs else None
