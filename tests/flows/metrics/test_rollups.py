"""The flow roll-up-metrics: it catches up by itself, and when it does not run somebody says so, as of its boards."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from mlflow.tracking import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.metrics.leaderboards import rank_due, rank_leaderboards
from flows.metrics.rollups import roll_up, roll_up_metrics
from flows.relay.alerts import update_alerts
from flows.relay.relay import Relay
from flows.runs.orchestrator import Orchestrator
from flows.upkeep.retention.retention import apply
from flows.upkeep.retention.retention_rules import table_rules
from storage.postgres.connection import Query
from storage.postgres.metrics import activity, freshness, rollups
from storage.postgres.upkeep import alerts
from storage.records.metrics.activity import Act, Counted, Metric
from storage.records.metrics.freshness import PartitionState
from storage.records.metrics.leaderboards import RANK
from storage.records.metrics.rollups import ROLL_UP, Totals
from storage.settings import MlflowSettings
from storage.stores import Stores
from tests.flows.relay.test_effects import no_server
from tests.storage.makers import a_job, a_published_model, an_account

LATE_AFTER = 900.0


def count(stores: Stores, model_id: int, key: str, at: datetime) -> None:
    act = Act(key=key, entity=Counted.MODEL, entity_id=model_id, metric=Metric.VIEW, occurred_at=at)
    assert stores.database.run(activity.ingest("test", [act], now=at)).accepted == 1


def test_a_day_without_the_flow_raises_the_alarm_and_the_next_run_catches_up(
    stores: Stores,
) -> None:
    model = a_published_model(stores.database, an_account(stores.database))
    now = datetime.now(UTC)
    count(stores, model.id, "before", now)
    roll_up(stores, now)
    assert update_alerts(stores.database, now, LATE_AFTER) == []

    ahead = now.replace(hour=12) + timedelta(days=2)
    count(stores, model.id, "meanwhile", now + timedelta(days=1))
    boards, late = stores.database.run(freshness.report(ahead, LATE_AFTER))
    assert (boards.state, late.state) == (PartitionState.LATE, PartitionState.LATE)
    # Just after midnight also the day before is there, and may still be on its time.
    own = [partition for partition in late.partitions[1:] if partition.day >= now.date()]
    assert {partition.state for partition in own} == {PartitionState.LATE}
    assert update_alerts(stores.database, ahead, LATE_AFTER) == [f"late {RANK}", f"late {ROLL_UP}"]
    assert update_alerts(stores.database, ahead, LATE_AFTER) == []
    for alert in stores.database.run(alerts.raised()):
        assert "of its days are not finished in time" in alert.detail

    done = roll_up(stores, ahead)
    assert [((part.day - now.date()).days, part.activities) for part in done] == [(0, 0), (1, 1), (2, 0)]
    assert rank_due(stores, ahead)  # one day, or two when it is not late in the evening
    for fresh in stores.database.run(freshness.report(ahead, LATE_AFTER)):
        assert fresh.state is PartitionState.FRESH
    assert update_alerts(stores.database, ahead, LATE_AFTER) == []
    assert stores.database.run(alerts.raised()) == []
    totals = stores.database.run(rollups.totals(Counted.MODEL, model.id, Metric.VIEW))
    assert totals == Totals(day=0, week=2, month=2, year=2, all_time=2)


def test_the_relay_raises_the_alarm_while_prefect_is_unavailable_and_events_wait_for_it(stores: Stores) -> None:
    a_job(stores.database)
    began = "update watched_flows set started_at = now() - interval '1 day' where flow = 'roll-up-metrics'"
    stores.database.run(Query(began, {}, len))
    with no_server() as nobody:
        relay = Relay(stores, lambda: Orchestrator(nobody))
        running = threading.Thread(target=relay.run)
        running.start()
        deadline = time.monotonic() + 60
        while not (raised := stores.database.run(alerts.raised())) and time.monotonic() < deadline:
            time.sleep(0.05)
        relay.stopping.set()
        running.join(timeout=60)
    assert [alert.name for alert in raised] == [f"late {ROLL_UP}"]


def test_the_flows_as_prefect_runs_them_leave_their_figures_and_tables(
    stores: Stores,
    environment: dict[str, str],
    prefect: SyncPrefectClient,
    mlflow_settings: MlflowSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DARKROOM_MLFLOW__URL", mlflow_settings.url)
    monkeypatch.setenv("DARKROOM_MLFLOW__AUTH", mlflow_settings.auth.get_secret_value())
    model = a_published_model(stores.database, an_account(stores.database))
    now = datetime.now(UTC)
    count(stores, model.id, "one", now)
    assert roll_up_metrics() == 1
    assert roll_up_metrics(day=now.date()) == 1
    assert rank_leaderboards(day=now.date()) == 1
    with stores.database.session_lock(ROLL_UP), stores.database.session_lock(RANK):
        assert (roll_up_metrics(), rank_leaderboards()) == (0, 0)
    client = MlflowClient(tracking_uri=mlflow_settings.url)
    experiment = client.get_experiment_by_name(ROLL_UP)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.metrics["activities"] for run in runs) == [1, 1]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {"seconds", "lag_seconds", "activities_per_second", "cells"} <= set(runs[0].data.metrics)
    boards = client.get_experiment_by_name(RANK)
    assert boards is not None
    [run] = client.search_runs([boards.experiment_id])
    assert {"days", "boards", "places", "seconds", "days_left", "lag_seconds"} <= set(run.data.metrics)
    for flow, tables in ((ROLL_UP, 2), (RANK, 1)):
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[flow]))
        assert len(prefect.read_artifacts(artifact_filter=wanted)) == tables


def test_while_the_flow_is_unavailable_everything_else_is_counted_and_old_days_are_dropped(stores: Stores) -> None:
    model = a_published_model(stores.database, an_account(stores.database))
    now = datetime.now(UTC)
    for days in (450, 30, 0):
        count(stores, model.id, f"{days}", now - timedelta(days=days))
    began = "update watched_flows set started_at = now() - interval '3 days'"
    stores.database.run(Query(began, {}, len))
    [rule] = table_rules("activity")
    assert "wait for roll-up" in apply(stores, [rule]).done[0][1].note
    assert stores.database.run(Query("select 1 from activity", {}, len)) == 3
    roll_up(stores, now)
    assert apply(stores, [rule]).count >= 2
    totals = stores.database.run(rollups.totals(Counted.MODEL, model.id, Metric.VIEW))
    assert totals == Totals(day=1, week=1, month=1, year=2, all_time=3)
    assert stores.database.run(Query("select 1 from activity", {}, len)) == 2
    assert stores.database.run(Query("select 1 from activity_days", {}, len)) == 3
