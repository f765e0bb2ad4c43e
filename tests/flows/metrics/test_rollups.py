"""The flow roll-up-metrics: it catches up by itself, and when it does not run somebody says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from mlflow.tracking import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.metrics.rollups import roll_up, roll_up_metrics
from flows.relay import Relay
from storage.postgres import activity, freshness, rollups
from storage.postgres.connection import Query
from storage.records.activity import Act, Counted, Metric
from storage.records.freshness import PartitionState
from storage.records.rollups import ROLL_UP, Totals
from storage.settings import Settings
from storage.stores import Stores
from tests.storage.makers import a_published_model, an_account

LATE_AFTER = 900.0


def count(stores: Stores, model_id: int, key: str, at: datetime) -> None:
    act = Act(key=key, entity=Counted.MODEL, entity_id=model_id, metric=Metric.VIEW, occurred_at=at)
    assert stores.database.run(activity.ingest("test", [act], now=at)).accepted == 1


def test_a_day_without_the_flow_raises_the_alarm_and_the_next_run_catches_up(
    stores: Stores, prefect: SyncPrefectClient
) -> None:
    relay = Relay(stores, prefect)
    model = a_published_model(stores.database, an_account(stores.database))
    now = datetime.now(UTC)
    count(stores, model.id, "before", now)
    roll_up(stores, now)
    assert relay.sound_alarms(now) == []

    ahead = now + timedelta(days=2, minutes=1)
    count(stores, model.id, "meanwhile", now + timedelta(days=1))
    [late] = stores.database.run(freshness.report(ahead, LATE_AFTER))
    assert late.state is PartitionState.LATE
    assert {partition.state for partition in late.partitions[1:]} == {PartitionState.LATE}
    assert relay.sound_alarms(ahead) == [f"late {ROLL_UP}"]
    assert relay.sound_alarms(ahead) == []
    [alarm] = stores.database.run(freshness.raised())
    assert "days are not finished in time" in alarm.detail

    done = roll_up(stores, ahead)
    assert [((part.day - now.date()).days, part.activities) for part in done] == [(0, 0), (1, 1), (2, 0)]
    [fresh] = stores.database.run(freshness.report(ahead, LATE_AFTER))
    assert fresh.state is PartitionState.FRESH
    assert relay.sound_alarms(ahead) == []
    assert stores.database.run(freshness.raised()) == []
    totals = stores.database.run(rollups.totals(Counted.MODEL, model.id, Metric.VIEW))
    assert totals == Totals(day=0, week=2, month=2, year=2, all_time=2)


def test_the_flow_as_prefect_runs_it_leaves_its_figures_and_its_table(
    stores: Stores,
    settings: Settings,
    prefect: SyncPrefectClient,
    mlflow_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DARKROOM_DATA_FOLDER", str(settings.data_folder))
    monkeypatch.setenv("DARKROOM_POSTGRES__URL", settings.postgres.url.get_secret_value())
    monkeypatch.setenv("DARKROOM_REDIS__URL", settings.redis.url.get_secret_value())
    monkeypatch.setenv("DARKROOM_MLFLOW__URL", mlflow_url)
    model = a_published_model(stores.database, an_account(stores.database))
    now = datetime.now(UTC)
    count(stores, model.id, "one", now)
    assert roll_up_metrics() == 1
    assert roll_up_metrics(day=now.date()) == 1
    with stores.database.session_lock(ROLL_UP):
        assert roll_up_metrics() == 0
    client = MlflowClient(tracking_uri=mlflow_url)
    experiment = client.get_experiment_by_name(ROLL_UP)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.metrics["activities"] for run in runs) == [1, 1]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {"seconds", "lag_seconds", "activities_per_second", "cells"} <= set(runs[0].data.metrics)
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[ROLL_UP]))
    assert len(prefect.read_artifacts(artifact_filter=wanted)) == 2


def test_while_the_flow_is_away_everything_else_is_counted_and_old_days_are_dropped(stores: Stores) -> None:
    model = a_published_model(stores.database, an_account(stores.database))
    now = datetime.now(UTC)
    for days in (450, 30, 0):
        count(stores, model.id, f"{days}", now - timedelta(days=days))
    began = "update watched_flows set started_at = now() - interval '460 days'"
    stores.database.run(Query(began, {}, len))
    roll_up(stores, now)
    totals = stores.database.run(rollups.totals(Counted.MODEL, model.id, Metric.VIEW))
    assert totals == Totals(day=1, week=1, month=1, year=2, all_time=3)
    assert stores.database.run(Query("select 1 from activity", {}, len)) == 2
    assert stores.database.run(Query("select 1 from activity_days", {}, len)) == 3
