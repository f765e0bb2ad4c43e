"""What is late on the embedded platform, a run or a day, is noticed and made good."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import httpx

from flows.relay.alerts import update_alerts
from flows.relay.prefect_alerts import OURS, Firings
from flows.runs.flow_names import SYNC
from flows.runs.orchestrator import Orchestrator, open_prefect
from storage.postgres.connection import Database, Query
from storage.records.metrics.rollups import ROLL_UP
from tests.deployments.platform import Platform
from tests.faults.late_run import IMPATIENT, LATE_RUN, leave_a_run_late
from tests.faults.test_whole_platform import found


def late_of(firings: Firings) -> list[str]:
    """What our own automation has fired for, not those that fire for runs which other tests killed."""
    return [line for line in firings.read_new(datetime.now(UTC)) if line.startswith(IMPATIENT.removeprefix(OURS))]


def test_a_day_with_the_schedule_paused_is_late_aloud_and_made_good_by_the_next_run(
    platform: Platform, prefect: httpx.Client
) -> None:
    api = httpx.Client(base_url=platform.api_url, headers={"Authorization": f"Bearer {platform.key}"}, timeout=30)
    settings = platform.settings
    assert platform.cli("pause", ROLL_UP).returncode == 0
    (roll_up,) = found(prefect, "deployments", deployments={"name": {"any_": [ROLL_UP]}})
    scheduled = {"deployment_id": {"any_": [roll_up["id"]]}, "state": {"name": {"any_": ["Scheduled"]}}}
    assert (roll_up["paused"], found(prefect, "flow_runs", flow_runs=scheduled)) == (True, [])

    with Database(settings.postgres) as database:
        # The clock goes on by a day, seen from what was done before.
        for ahead in (
            "update watched_flows set started_at = started_at - interval '1 day' where flow = %(flow)s",
            "update flow_partitions set day = day - 1, finished_at = finished_at - interval '1 day'"
            " where flow = %(flow)s",
        ):
            database.run(Query(ahead, {"flow": ROLL_UP}, len))
        update_alerts(database, datetime.now(UTC), settings.metrics.late_after_seconds)
        stopped = api.get("/api/v1/freshness").json()
        [flow] = [flow for flow in stopped["flows"] if flow["flow"] == ROLL_UP]
        # A third day is due where midnight came since the platform was started.
        assert (flow["state"], [day["state"] for day in flow["partitions"]].count("late")) == ("late", 2)
        assert flow["pausedAt"] is not None
        [alert] = [alert for alert in stopped["alerts"] if alert["name"] == f"late {ROLL_UP}"]
        assert f"it goes on with: darkroom resume {ROLL_UP}" in alert["detail"]

        assert platform.cli("resume", ROLL_UP).returncode == 0
        prefect.post(f"deployments/{roll_up['id']}/create_flow_run", json={}).raise_for_status()
        deadline = time.monotonic() + 120
        while flow["state"] != "fresh" and time.monotonic() < deadline:
            time.sleep(0.2)
            [flow] = [flow for flow in api.get("/api/v1/freshness").json()["flows"] if flow["flow"] == ROLL_UP]
        assert ({day["state"] for day in flow["partitions"]}, flow["pausedAt"]) == ({"fresh"}, None)
        update_alerts(database, datetime.now(UTC), settings.metrics.late_after_seconds)
    assert f"late {ROLL_UP}" not in [alert["name"] for alert in api.get("/api/v1/freshness").json()["alerts"]]


def test_a_run_that_stays_late_reaches_moderators_once_an_hour(platform: Platform, prefect: httpx.Client) -> None:
    with (
        Database(platform.settings.postgres) as database,
        open_prefect(platform.settings.prefect) as client,
    ):
        database.run(Query("update accounts set role = 'moderator'", {}, len))
        firings = Firings(database, Orchestrator(client))
        # Prefect promises no firing for each event: a run that it has missed, seen once, is followed by another.
        heard = heard_within(60, firings)
        if not heard:
            prefect.delete(f"flow_runs/{late_run(prefect)['id']}").raise_for_status()
            leave_a_run_late(platform.settings)
            heard = heard_within(120, firings)
        late = late_run(prefect)
        line = f"{IMPATIENT.removeprefix(OURS)}: flow run {LATE_RUN} of {SYNC} ({late['id']}), now Late"
        assert heard == [line], late["state"]
        assert late_of(firings) == []
        late_of(Firings(database, Orchestrator(client)))
        alerts = "select details from notifications where key like %(key)s"
        told = database.run(Query(alerts, {"key": f"alert:{IMPATIENT.removeprefix(OURS)}:%"}, list))
    assert [row["details"]["title"] for row in told] == [f"Alert: {IMPATIENT.removeprefix(OURS)}"]
    prefect.delete(f"flow_runs/{late['id']}").raise_for_status()


def heard_within(seconds: float, firings: Firings) -> list[str]:
    """The first lines of our own automation, asked for again and again; none if there are none in time."""
    deadline = time.monotonic() + seconds
    while not (heard := late_of(firings)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return heard


def late_run(prefect: httpx.Client) -> dict[str, Any]:
    """The run that stays late, as Prefect has it."""
    [run] = found(prefect, "flow_runs", flow_runs={"name": {"any_": [LATE_RUN]}})
    return run
