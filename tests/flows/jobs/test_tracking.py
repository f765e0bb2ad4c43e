"""The run of a job in MLflow: found again, described, and below the run of the job that it retries."""

from __future__ import annotations

from uuid import uuid4

from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from flows.jobs.tracking import (
    EXPERIMENT,
    EXPERIMENT_NOTE,
    JOB_TAG,
    RETRY_TAG,
    experiment_named,
    find_or_create_run,
    tracking_client,
)
from flows.jobs.tracking_facts import job_tags
from storage.postgres.jobs import jobs, submissions
from storage.settings import Settings
from storage.stores import Stores
from tests.storage.makers import a_job


def test_a_retry_has_a_run_of_its_own_below_that_of_the_first_job(stores: Stores, tracked: Settings) -> None:
    client = tracking_client(tracked)
    tried = [a_job(stores.database)]
    runs = [find_or_create_run(client, EXPERIMENT, tried[0].id, job_tags(tried[0]))]
    for _ in range(2):
        stores.database.run(jobs.claim(tried[-1].id, 1, None))
        stores.database.run(jobs.fail(tried[-1].id, 1, "test", "because"))
        again, _ = stores.database.run(submissions.retry(tried[-1].id, tried[0].account_id, tracked))
        tried.append(again)
        runs.append(find_or_create_run(client, EXPERIMENT, again.id, job_tags(again)))
    assert len(set(runs)) == 3
    tags = [client.get_run(run).data.tags for run in runs]
    assert [each.get(MLFLOW_PARENT_RUN_ID) for each in tags] == [None, runs[0], runs[0]]
    assert [each.get(RETRY_TAG) for each in tags] == [None, str(tried[0].id), str(tried[1].id)]
    assert find_or_create_run(client, EXPERIMENT, tried[2].id, {}) == runs[2], "an attempt goes on in its job's run"


def test_a_retry_of_a_job_that_mlflow_never_knew_stands_alone(tracked: Settings) -> None:
    client = tracking_client(tracked)
    run = find_or_create_run(client, EXPERIMENT, uuid4(), {RETRY_TAG: str(uuid4())})
    tags = client.get_run(run).data.tags
    assert MLFLOW_PARENT_RUN_ID not in tags
    assert JOB_TAG in tags


def test_the_experiment_says_what_it_is_and_what_somebody_wrote_there_stays(tracked: Settings) -> None:
    client = tracking_client(tracked)
    experiment = experiment_named(client, EXPERIMENT)
    client.set_experiment_tag(experiment, MLFLOW_RUN_NOTE, "ours")
    assert experiment_named(client, EXPERIMENT) == experiment
    assert client.get_experiment(experiment).tags[MLFLOW_RUN_NOTE] == "ours"
    client.delete_experiment_tag(experiment, MLFLOW_RUN_NOTE)  # as one of an earlier release
    experiment_named(client, EXPERIMENT)
    assert client.get_experiment(experiment).tags[MLFLOW_RUN_NOTE] == EXPERIMENT_NOTE
