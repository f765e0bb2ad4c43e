"""The embedded platform, whole and real: one `darkroom up` for this module, killed and started again in the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prefect.states import Scheduled

from deployments.local.automations import AUTOMATIONS, late_runs_are_reported
from deployments.local.deploy import WORK_POOL_TEMPLATE, prune
from deployments.local.environment import NO_TELEMETRY
from deployments.local.fingerprint import PREFECT_FILE, deploy_is_needed, stanzas
from deployments.local.leftovers import processes_of
from deployments.local.parts import Steps, deploy
from deployments.local.servers.prefect_http import prefect_http
from deployments.local.state import PartState
from deployments.local.steps import delete_overdue_runs
from flows.relay.alerts import update_alerts
from flows.relay.prefect_alerts import OURS, Firings
from flows.runs.flow_names import SYNC
from flows.runs.orchestrator import Orchestrator, open_prefect
from storage.postgres.connection import Database, Query
from storage.postgres.upkeep import alerts
from storage.records.metrics.rollups import ROLL_UP
from storage.settings import Settings
from tests.deployments.platform import Platform, running_platform

OPEN_POOL = {
    "job_configuration": {"command": "{{ command }}"},
    "variables": {"type": "object", "properties": {"command": {"type": "string"}}},
}
IMPATIENT, LATE_RUN = "darkroom: flow runs stay late, says a test", "late-run"
RESTARTED = ("postgres", "valkey", "prefect", "mlflow", "worker-training", "worker-light", "relay", "api")


def leave_a_run_late(settings: Settings) -> None:
    """A run of a queue that no worker asks, and our automation for it with less patience: it fires 10 s later."""
    automation = late_runs_are_reported(within=timedelta(seconds=10)).model_copy(update={"name": IMPATIENT})
    past = Scheduled(scheduled_time=datetime.now(UTC) - timedelta(hours=1))
    with open_prefect(settings.prefect) as client:
        client.create_automation(automation)
        client.create_work_queue("nobody", work_pool_name="light", is_paused=True)
        sync = client.read_deployment_by_name(f"{SYNC}/{SYNC}")
        client.create_flow_run_from_deployment(sync.id, state=past, name=LATE_RUN, work_queue_name="nobody")


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with running_platform() as platform:
        leave_a_run_late(platform.settings)
        yield platform


@pytest.fixture
def prefect(platform: Platform) -> Iterator[httpx.Client]:
    with prefect_http(platform.settings.prefect) as client:
        yield client


def paused_of(client: httpx.Client) -> dict[str, bool]:
    """Which deployments are paused in Prefect."""
    return {deployment["name"]: deployment["paused"] for deployment in found(client, "deployments")}


def found(client: httpx.Client, what: str, **body: Any) -> list[dict[str, Any]]:
    return client.post(f"{what}/filter", json=body).raise_for_status().json()


def test_status_shows_every_part_healthy(platform: Platform) -> None:
    status = platform.cli("status")

    assert status.returncode == 0, status.stdout + status.stderr
    for part in RESTARTED:
        assert part in status.stdout


def test_the_first_start_makes_an_owner_key_that_works_and_that_only_this_user_reads(platform: Platform) -> None:
    response = httpx.get(
        f"{platform.api_url}/api/v1/training-jobs", headers={"Authorization": f"Bearer {platform.key}"}
    )

    assert response.status_code == 200, response.text
    for file in (platform.settings.owner_key_file, platform.settings.signing_key_file):
        assert file.stat().st_mode & 0o777 == 0o600


def test_everything_listens_on_the_loopback_only(platform: Platform) -> None:
    addresses = {
        connection.laddr.ip
        for _, process in processes_of(platform.folder)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }

    assert addresses == {"127.0.0.1"}


def test_prefects_pages_are_written_into_the_data_folder_and_served(platform: Platform) -> None:
    assert list((platform.folder / "prefect" / "pages").rglob("index.html"))

    page = httpx.get(platform.settings.prefect.ui_url, follow_redirects=True)

    assert page.status_code == 200
    assert "<title>Prefect" in page.text


def test_every_part_is_told_to_send_no_telemetry(platform: Platform) -> None:
    for part in ("prefect", "mlflow", "worker-training", "worker-light", "relay", "api"):
        environment = psutil.Process(platform.pid(part)).environ()
        assert {name: environment.get(name) for name in NO_TELEMETRY} == NO_TELEMETRY, part


def test_no_secret_is_on_a_command_line(platform: Platform) -> None:
    secrets = [platform.key, platform.settings.signing_key_file.read_text().strip()]

    for part, process in processes_of(platform.folder):
        line = " ".join(process.cmdline())
        assert not any(secret in line for secret in secrets), part


def test_workers_and_what_they_start_step_back_behind_the_other_parts(platform: Platform) -> None:
    for part in ("worker-training", "worker-light"):
        pid = platform.pid(part)
        assert psutil.Process(pid).nice() == 5
        autogroup = Path(f"/proc/{pid}/autogroup")
        assert not autogroup.exists() or autogroup.read_text().endswith("nice 5\n")


def test_a_second_up_on_the_folder_is_refused_with_the_pid_of_the_first(platform: Platform) -> None:
    assert platform.process is not None

    second = platform.cli("up")

    assert second.returncode == 1
    assert f"process {platform.process.pid}" in second.stderr


def test_a_taken_port_is_named_with_its_setting_and_holder_before_anything_starts(platform: Platform) -> None:
    other = Platform(Path(tempfile.mkdtemp(prefix="dr-")))
    with socket.create_server(("127.0.0.1", other.settings.mlflow.port)):
        refused = other.cli("up")

    assert refused.returncode == 1
    assert f"port {other.settings.mlflow.port} (mlflow) is taken by process {os.getpid()}" in refused.stderr
    assert "DARKROOM_MLFLOW__PORT" in refused.stderr
    assert not (other.folder / "postgres").exists()


def test_what_was_deployed_is_what_the_file_says(platform: Platform, prefect: httpx.Client) -> None:
    deployed = {deployment["name"]: deployment for deployment in found(prefect, "deployments")}

    assert set(deployed) == {stanza["name"] for stanza in stanzas(PREFECT_FILE)}
    for stanza in stanzas(PREFECT_FILE):
        assert deployed[stanza["name"]]["work_pool_name"] == stanza["work_pool"]["name"]
        assert deployed[stanza["name"]]["entrypoint"] == stanza["entrypoint"]
        assert deployed[stanza["name"]]["pull_steps"] == []


def test_a_scheduled_deployment_gets_scheduled_runs(prefect: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    runs: list[dict[str, Any]] = []
    while not runs and time.monotonic() < deadline:
        runs = found(
            prefect,
            "flow_runs",
            deployments={"name": {"any_": ["reconcile"]}},
            flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}},
        )
        time.sleep(0.5)

    assert runs
    assert all(run["auto_scheduled"] for run in runs)


def test_deploying_again_doubles_nothing(platform: Platform, prefect: httpx.Client) -> None:
    assert not deploy_is_needed(platform.settings)
    before = {deployment["id"]: deployment["schedules"] for deployment in found(prefect, "deployments")}
    (paused,) = found(prefect, "deployments", deployments={"name": {"any_": ["rebuild-search-index"]}})
    # As an older version left them: a run may say how its process is started.
    prefect.patch("work_pools/light", json={"base_job_template": OPEN_POOL}).raise_for_status()
    was = {"paused": True, "job_variables": {"command": "python -m prefect.engine"}}
    prefect.patch(f"deployments/{paused['id']}", json=was).raise_for_status()
    again = deploy(platform.settings, Steps())

    subprocess.run(again.command, env=again.environment, check=True, timeout=300)

    after = {deployment["id"]: deployment["schedules"] for deployment in found(prefect, "deployments")}
    assert [len(schedules) for schedules in after.values()] == [len(schedules) for schedules in before.values()]
    assert set(after) == set(before)
    assert [name for name, is_paused in paused_of(prefect).items() if is_paused] == ["rebuild-search-index"]
    assert prefect.get("work_pools/light").json()["base_job_template"] == WORK_POOL_TEMPLATE
    assert [deployment["job_variables"] for deployment in found(prefect, "deployments")] == [{}] * len(after)
    prefect.patch(f"deployments/{paused['id']}", json={"paused": False}).raise_for_status()
    names = {automation["name"] for automation in found(prefect, "automations")}
    assert names == {automation.name for automation in AUTOMATIONS} | {IMPATIENT}


def test_a_run_that_stays_late_reaches_moderators_once_an_hour(platform: Platform, prefect: httpx.Client) -> None:
    (late,) = found(prefect, "flow_runs", flow_runs={"name": {"any_": [LATE_RUN]}})
    with (
        Database(platform.settings.postgres) as database,
        open_prefect(platform.settings.prefect) as client,
    ):
        database.run(Query("update accounts set role = 'moderator'", {}, len))
        firings = Firings(database, Orchestrator(client))
        deadline = time.monotonic() + 120
        while not (heard := firings.read_new(datetime.now(UTC))) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert heard == [f"{IMPATIENT.removeprefix(OURS)}: flow run {LATE_RUN} of {SYNC} ({late['id']}), now Late"]
        assert firings.read_new(datetime.now(UTC)) == []
        Firings(database, Orchestrator(client)).read_new(datetime.now(UTC))
        alerts = "select details from notifications where key like 'alert:flow runs stay late%%'"
        told = database.run(Query(alerts, {}, list))
    assert [row["details"]["title"] for row in told] == [f"Alert: {IMPATIENT.removeprefix(OURS)}"]
    prefect.delete(f"flow_runs/{late['id']}").raise_for_status()


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


def test_a_deployment_that_has_left_the_file_is_removed(
    platform: Platform, prefect: httpx.Client, tmp_path: Path
) -> None:
    (kept,) = found(prefect, "deployments", deployments={"name": {"any_": ["reconcile"]}})
    body = {"name": "left", "flow_id": kept["flow_id"], "tags": ["managed-by:prefect.yaml"]}
    prefect.post("deployments/", json=body).raise_for_status()
    prefect.post("deployments/", json={**body, "name": "by-hand", "tags": []}).raise_for_status()

    prune(prefect, PREFECT_FILE)

    names = {deployment["name"] for deployment in found(prefect, "deployments")}
    assert "left" not in names
    assert "by-hand" in names
    assert "reconcile" in names


@pytest.mark.soak
def test_a_deployment_that_prefect_has_lost_is_deployed_again(platform: Platform, prefect: httpx.Client) -> None:
    lost = {"reconcile", SYNC}
    for deployment in found(prefect, "deployments", deployments={"name": {"any_": sorted(lost)}}):
        prefect.delete(f"deployments/{deployment['id']}").raise_for_status()
    with Database(platform.settings.postgres) as database:
        raised, deadline = set[str](), time.monotonic() + 300
        while not lost <= paused_of(prefect).keys() and time.monotonic() < deadline:
            raised |= {alert.name for alert in database.run(alerts.raised())}
            time.sleep(0.5)
        assert lost <= paused_of(prefect).keys()
        assert "missing deployments" in raised
        while time.monotonic() < deadline and any(
            alert.name == "missing deployments" for alert in database.run(alerts.raised())
        ):
            time.sleep(0.5)
        assert "missing deployments" not in [alert.name for alert in database.run(alerts.raised())]
    assert platform.output.count("deploy is wanted again") == 1
    platform.wait_healthy()


def test_runs_of_a_schedule_that_fell_due_are_deleted_and_those_asked_for_are_kept(
    platform: Platform, prefect: httpx.Client
) -> None:
    (reconcile,) = found(prefect, "deployments", deployments={"name": {"any_": ["reconcile"]}})
    prefect.patch("work_pools/light", json={"is_paused": True}).raise_for_status()
    past, now = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC)
    window = {"start_time": past.isoformat(), "end_time": now.isoformat(), "min_runs": 1, "max_runs": 3}
    prefect.post(f"deployments/{reconcile['id']}/schedule", json=window).raise_for_status()
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": past.isoformat()}}
    asked = prefect.post(
        f"deployments/{reconcile['id']}/create_flow_run", json={"state": state, "idempotency_key": "asked-for"}
    ).raise_for_status()
    # Of this deployment alone: the relay may ask for a drain in the paused pool meanwhile.
    due = {
        "deployment_id": {"any_": [reconcile["id"]]},
        "state": {"type": {"any_": ["SCHEDULED"]}},
        "next_scheduled_start_time": {"before_": now.isoformat()},
    }
    assert len(found(prefect, "flow_runs", flow_runs=due)) >= 2

    deleted = delete_overdue_runs(platform.settings.prefect)

    left = [run["id"] for run in found(prefect, "flow_runs", flow_runs=due)]
    assert deleted >= 1
    assert left == [asked.json()["id"]]
    prefect.delete(f"flow_runs/{left[0]}").raise_for_status()
    prefect.patch("work_pools/light", json={"is_paused": False}).raise_for_status()


def test_every_part_that_is_killed_comes_back(platform: Platform) -> None:
    old = {part: platform.kill(part) for part in RESTARTED}

    platform.wait_healthy(restarted=old)

    assert platform.cli("status").returncode == 0
    assert all(platform.part(part).restarts >= 1 for part in RESTARTED)


def test_after_a_kill_of_up_the_next_one_stops_what_it_left_and_starts_anew(platform: Platform) -> None:
    assert platform.process is not None
    old = {part: platform.pid(part) for part in RESTARTED}
    key = platform.key
    platform.process.send_signal(signal.SIGKILL)
    platform.process.wait()
    assert all(psutil.pid_exists(pid) for pid in old.values())
    assert platform.cli("status").returncode == 1

    platform.start()
    platform.wait_healthy(restarted=old)

    assert not any(psutil.pid_exists(pid) for pid in old.values())
    assert platform.key == key
    assert f"stopped postgres (process {old['postgres']}), left by an earlier `up`" in platform.output


def test_after_a_kill_of_everything_the_next_one_is_healthy_and_deploys_nothing(platform: Platform) -> None:
    platform.kill_everything()

    platform.start()
    platform.wait_healthy()

    record = platform.record()
    assert record is not None
    deployed, server = record.parts["deploy"], record.parts["prefect"]
    assert (deployed.state, deployed.since < server.since) == (PartState.DONE, True), "it ran once Prefect was there"


def test_down_leaves_no_process_within_seconds(platform: Platform) -> None:
    began = time.monotonic()

    down = platform.cli("down")

    assert down.returncode == 0, down.stderr
    assert time.monotonic() - began < 30
    assert platform.process is not None
    assert platform.process.wait(timeout=10) == 0
    assert list(processes_of(platform.folder)) == []
    assert platform.cli("status").returncode == 1
    assert "does not run" in platform.cli("down").stdout
