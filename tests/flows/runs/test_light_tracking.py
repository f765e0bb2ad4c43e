"""Light flows leave their figures in MLflow: a rebuild in a run of its own, the drains of a day in one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from flows.indexing.new_builds import begin, ensure_live_builds
from flows.indexing.rebuild import rebuild
from flows.indexing.sync import drain_until_idle
from flows.jobs.tracking import tracking_client
from flows.runs.flow_names import REBUILD, SYNC
from flows.runs.light_tracking import FAILED, FLOW_TAG, KILLED, RUNNING, note
from storage.errors import StoreUnavailable
from storage.postgres.connection import Query
from storage.records.search.search import Kind
from storage.settings import JobSettings, MlflowSettings, SearchSettings, Settings
from storage.stores import Stores, open_stores
from tests.no_prefect import effects_without_prefect
from tests.storage.makers import a_published_model, an_account

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def stores(settings: Settings, mlflow_settings: MlflowSettings) -> Iterator[Stores]:
    """Stores whose MLflow is there, with empty indexes and a relay that is slow."""
    fields = {
        "mlflow": mlflow_settings,
        "search": SearchSettings(encoder_folder="off"),
        "jobs": JobSettings(patience_seconds=0.3),
    }
    with open_stores(settings.model_copy(update=fields)) as opened:
        ensure_live_builds(opened)
        yield opened


@pytest.fixture
def client(stores: Stores) -> MlflowClient:
    """MLflow's own client, to read with."""
    return tracking_client(stores.settings)


def runs(client: MlflowClient, experiment: str, name: str) -> list[Any]:
    """The runs of a name in an experiment."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], f"attributes.run_name = '{name}'"))


def publish(stores: Stores) -> None:
    """A model and a creator that wait to be written."""
    a_published_model(stores.database, an_account(stores.database), uuid.uuid4().hex)
    effects_without_prefect(stores).drain()


def test_the_drains_of_a_day_share_a_run_and_an_empty_one_adds_nothing(stores: Stores, client: MlflowClient) -> None:
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    publish(stores)
    assert drain_until_idle(stores, idle_seconds=0) == 2
    [run] = runs(client, SYNC, day)
    before = len(client.get_metric_history(run.info.run_id, "rows"))
    assert drain_until_idle(stores, idle_seconds=0) == 0
    publish(stores)
    assert drain_until_idle(stores, idle_seconds=0) == 2
    [run] = runs(client, SYNC, day)
    assert len(client.get_metric_history(run.info.run_id, "rows")) == before + 1
    assert (run.info.status, run.data.metrics["rows"], run.data.metrics["waiting_after"]) == ("FINISHED", 2, 0)
    assert run.data.metrics["lag_seconds"] > run.data.metrics["lag_seconds_after"] == 0
    assert run.data.metrics["rows_per_second"] > 0
    assert run.data.tags[FLOW_TAG] == SYNC


def test_a_rebuild_has_a_run_with_its_rows_its_lag_and_its_steps(stores: Stores, client: MlflowClient) -> None:
    publish(stores)
    drain_until_idle(stores, idle_seconds=0)
    dead = begin(stores, Kind.MODEL)
    note(stores.settings, REBUILD, f"models build {dead.id}", {}, status=RUNNING)
    build = rebuild(stores, Kind.MODEL)
    [run] = runs(client, REBUILD, f"models build {build.id}")
    assert (run.info.status, run.data.metrics["rows"], run.data.metrics["lag_seconds"]) == ("FINISHED", 1, 0)
    steps = sum(run.data.metrics[f"{step}_seconds"] for step in ("fill", "complete", "catch_up", "repair"))
    assert 0 < steps <= run.data.metrics["seconds"]
    assert run.data.params == {"kind": "models", "engine": "embedded", "build": str(build.id), "encoder": "None"}
    [run] = runs(client, REBUILD, f"models build {dead.id}")
    assert run.info.status == KILLED


def test_a_rebuild_that_fails_says_so(stores: Stores, client: MlflowClient) -> None:
    a_published_model(stores.database, an_account(stores.database))  # and no relay takes its event
    with pytest.raises(StoreUnavailable, match="relay"):
        rebuild(stores, Kind.MODEL)
    last = "select max(id) as id from search_builds where kind = 'models'"
    number = stores.database.run(Query(last, {}, lambda rows: rows[0]["id"]))
    [run] = runs(client, REBUILD, f"models build {number}")
    assert (run.info.status, "fill_seconds" in run.data.metrics) == (FAILED, True)


def test_without_mlflow_a_flow_goes_on(stores: Stores) -> None:
    blind = stores.settings.model_copy(update={"mlflow": MlflowSettings(url=NOBODY)})
    with open_stores(blind) as opened:
        publish(opened)
        assert drain_until_idle(opened, idle_seconds=0) == 2
        assert rebuild(opened, Kind.CREATOR).kind is Kind.CREATOR
    assert not note(blind, SYNC, "a day", {"rows": 1})
