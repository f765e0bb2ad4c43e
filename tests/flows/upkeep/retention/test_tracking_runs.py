"""Old tracking runs of flows are erased, and nobody else's."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient
from pydantic import SecretStr

from deployments.local.servers.postgres import EmbeddedPostgres
from flows.jobs.tracking import JOB_TAG, tracking_client
from flows.runs.light_tracking import FLOW_TAG
from flows.upkeep.retention.retention import apply
from flows.upkeep.retention.retention_rules import RULES
from flows.upkeep.retention.tracking_runs import MARK
from storage.records.metrics.leaderboards import RANK
from storage.settings import MlflowSettings, RetentionSettings
from storage.stores import Stores


@pytest.fixture
def tracking(stores: Stores, mlflow_settings: MlflowSettings, postgres_server: EmbeddedPostgres) -> MlflowClient:
    """MLflow's client, with stores that reach its database."""
    store = postgres_server.url("mlflow").replace("postgresql://", "postgresql+psycopg://")
    stores.settings.mlflow = mlflow_settings
    stores.settings.retention = RetentionSettings(mlflow_store_url=SecretStr(store))
    return tracking_client(stores.settings)


def a_tracking_run(client: MlflowClient, experiment: str, name: str, tags: dict[str, str], days: int = 91) -> str:
    """A run with a figure and a file, that ended so many days ago."""
    run_id = str(client.create_run(experiment, tags=tags, run_name=name).info.run_id)
    client.log_metric(run_id, "rows", 1.0)
    client.log_text(run_id, "rows", "rows.txt")
    client.set_terminated(run_id, end_time=int((time.time() - days * 86400) * 1000))
    return run_id


def names_of(client: MlflowClient, experiment: str) -> set[str]:
    """Of every run that MLflow has, deleted or not."""
    return {str(run.info.run_name) for run in client.search_runs([experiment], run_view_type=ViewType.ALL)}


def test_old_tracking_runs_of_flows_are_erased_and_those_of_jobs_stay(stores: Stores, tracking: MlflowClient) -> None:
    experiment = tracking.create_experiment(f"a flow {uuid4()}")
    a_tracking_run(tracking, experiment, "old", {FLOW_TAG: "a flow"})
    a_tracking_run(tracking, experiment, "of a job", {JOB_TAG: "1", FLOW_TAG: "a flow"})
    a_tracking_run(tracking, experiment, "young", {FLOW_TAG: "a flow"}, days=89)
    tracking.create_run(experiment, run_name="running")
    [rule] = [rule for rule in RULES if "mlflow" in rule.folders]
    report = apply(stores, [rule])
    assert report.faults == []
    assert report.count >= 1
    assert names_of(tracking, experiment) == {"of a job", "young", "running"}
    stores.settings.mlflow = MlflowSettings(url="http://127.0.0.1:9")
    unreachable = apply(stores, [rule])
    assert (unreachable.count, unreachable.faults) == (0, [])
    assert "did not respond" in unreachable.done[0][1].note


def test_what_somebody_else_deleted_in_mlflow_is_not_erased(stores: Stores, tracking: MlflowClient) -> None:
    experiment, gone = (tracking.create_experiment(f"{name} {uuid4()}") for name in ("a flow", "deleted by hand"))
    a_tracking_run(tracking, experiment, "old", {FLOW_TAG: "a flow"})
    tracking.delete_run(a_tracking_run(tracking, experiment, "of a job, by hand", {JOB_TAG: "1"}))
    tracking.delete_run(a_tracking_run(tracking, experiment, "by hand", {}))
    tracking.delete_run(a_tracking_run(tracking, experiment, "of a job, marked", {JOB_TAG: "1", MARK: "deleted"}))
    kept = a_tracking_run(tracking, gone, "in a deleted experiment", {})
    tracking.delete_experiment(gone)
    [rule] = [rule for rule in RULES if "mlflow" in rule.folders]
    assert apply(stores, [rule]).faults == []
    assert names_of(tracking, experiment) == {"of a job, by hand", "by hand", "of a job, marked"}
    tracking.restore_experiment(gone)
    assert names_of(tracking, gone) == {"in a deleted experiment"}
    assert [file.path for file in tracking.list_artifacts(kept)] == ["rows.txt"]


def test_a_tracking_run_of_somebody_else_stays_and_one_of_a_flow_from_before_it_was_tagged_goes(
    stores: Stores, tracking: MlflowClient
) -> None:
    theirs = tracking.create_experiment(f"a trial of mine {uuid4()}")
    found = tracking.get_experiment_by_name(RANK)
    ranked = str(found.experiment_id) if found else tracking.create_experiment(RANK)
    name = str(uuid4())
    a_tracking_run(tracking, theirs, "theirs", {})
    a_tracking_run(tracking, ranked, name, {})
    [rule] = [rule for rule in RULES if "mlflow" in rule.folders]
    assert apply(stores, [rule]).faults == []
    assert names_of(tracking, theirs) == {"theirs"}
    assert name not in names_of(tracking, ranked)
