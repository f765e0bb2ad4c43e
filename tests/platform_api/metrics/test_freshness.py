"""Freshness at the door, and in its health."""

from __future__ import annotations

import time

from platform_api.upkeep.health_checks import KEPT_SECONDS
from storage.postgres.connection import Query
from storage.postgres.upkeep import alerts, pauses
from storage.records.metrics.freshness import PartitionState, Switch
from tests.platform_api.door import Door


def test_a_flow_that_stands_still_is_seen_in_freshness_and_health(door: Door) -> None:
    door.database.run(Query("update watched_flows set started_at = now()", {}, len))
    client = door.client()
    fresh = client.get("/api/v1/freshness").json()
    states = [(flow["flow"], flow["state"]) for flow in fresh["flows"]]
    assert states == [("rank-leaderboards", "fresh"), ("roll-up-metrics", "due")]
    assert (fresh["alerts"], client.get("/health").json()["parts"]["metrics"]["state"]) == ([], "due")

    time.sleep(KEPT_SECONDS)  # health is looked at once a second
    began = "update watched_flows set started_at = now() - interval '3 days' where flow = 'roll-up-metrics'"
    door.database.run(Query(began, {}, len))
    [now] = door.database.run(Query("select now() as now", {}, lambda rows: [row["now"] for row in rows]))
    door.database.run(alerts.update(now, door.settings.metrics.late_after_seconds))
    door.database.run(pauses.add("roll-up-metrics", Switch.DARKROOM))
    late = client.get("/api/v1/freshness").json()
    assert late["flows"][1]["pausedAt"] == late["paused"][0]["pausedAt"] is not None
    assert (late["paused"][0]["flow"], late["paused"][0]["pausedIn"]) == ("roll-up-metrics", "darkroom")
    in_time = (now.hour, now.minute) < (0, 15)  # yesterday's partition has the first minutes of today
    yesterday = PartitionState.DUE if in_time else PartitionState.LATE
    states = [partition["state"] for partition in late["flows"][1]["partitions"]]
    assert states == [PartitionState.LATE, yesterday, PartitionState.LATE, PartitionState.LATE]
    assert [alert["name"] for alert in late["alerts"]] == ["late roll-up-metrics"]
    health = client.get("/health").json()
    assert (health["status"], health["parts"]["metrics"]["state"]) == ("degraded", "late")
    assert health["parts"]["metrics"]["alerts"] == ["late roll-up-metrics"]
    figures = door.client("").get("/metrics").text
    assert 'darkroom_flow_late{flow="roll-up-metrics"} 1.0' in figures
    assert 'darkroom_flow_paused{flow="roll-up-metrics"} 1.0' in figures
    assert 'darkroom_flow_waiting{flow="roll-up-metrics"} 0.0' in figures
