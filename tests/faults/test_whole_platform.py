"""The embedded platform, whole and real: what runs, what listens, and what was deployed."""

from __future__ import annotations

import contextlib
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deployments.local.automations import AUTOMATIONS
from deployments.local.deploy import WORK_POOL_TEMPLATE, prune
from deployments.local.environment import NO_TELEMETRY
from deployments.local.fingerprint import PREFECT_FILE, deploy_is_needed, stanzas
from deployments.local.leftovers import processes_of
from deployments.local.parts import Steps, deploy
from deployments.local.steps import delete_overdue_runs
from flows.runs.flow_names import SYNC
from storage.postgres.connection import Database
from storage.postgres.upkeep import alerts
from tests.deployments.platform import Platform, children
from tests.faults.late_run import IMPATIENT

OPEN_POOL = {
    "job_configuration": {"command": "{{ command }}"},
    "variables": {"type": "object", "properties": {"command": {"type": "string"}}},
}
PARTS = ("postgres", "valkey", "prefect", "mlflow", "worker-training", "worker-light", "relay", "api", "engine")


def paused_of(client: httpx.Client) -> dict[str, bool]:
    """Which deployments are paused in Prefect."""
    return {deployment["name"]: deployment["paused"] for deployment in found(client, "deployments")}


def found(client: httpx.Client, what: str, **body: Any) -> list[dict[str, Any]]:
    return client.post(f"{what}/filter", json=body).raise_for_status().json()


def test_status_shows_every_part_healthy(platform: Platform) -> None:
    status = platform.cli("status")

    assert status.returncode == 0, status.stdout + status.stderr
    for part in PARTS:
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
    for part in ("prefect", "mlflow", "worker-training", "worker-light", "relay", "api", "engine"):
        environment = psutil.Process(platform.pid(part)).environ()
        assert {name: environment.get(name) for name in NO_TELEMETRY} == NO_TELEMETRY, part


def test_no_secret_is_on_a_command_line(platform: Platform) -> None:
    secrets = [platform.key, platform.settings.signing_key_file.read_text().strip()]

    for part, process in processes_of(platform.folder):
        line = " ".join(process.cmdline())
        assert not any(secret in line for secret in secrets), part


def test_what_computes_steps_back_behind_the_other_parts(platform: Platform) -> None:
    for part in ("worker-training", "worker-light", "engine"):
        pid = platform.pid(part)
        assert psutil.Process(pid).nice() == 5
        autogroup = Path(f"/proc/{pid}/autogroup")
        assert not autogroup.exists() or autogroup.read_text().endswith("nice 5\n")


def test_flow_runs_of_trainings_are_forked_from_a_process_that_has_torch(platform: Platform) -> None:
    libraries, deadline = {"libtorch_cpu.so", "tokenizers.abi3.so"}, time.monotonic() + 120
    while not (found := loaded_by_children(platform.pid("worker-training"))) >= libraries:
        assert time.monotonic() < deadline, sorted(found)
        time.sleep(0.2)


def loaded_by_children(pid: int) -> set[str]:
    """The names of the libraries that what a process has started has loaded."""
    names: set[str] = set()
    for child in children(psutil.Process(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            names |= {Path(mapped.path).name for mapped in child.memory_maps()}
    return names


def test_a_second_up_on_the_folder_is_refused_with_the_pid_of_the_first(platform: Platform) -> None:
    assert platform.process is not None

    second = platform.cli("up")

    assert second.returncode == 1
    assert f"process {platform.process.pid}" in second.stderr


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
        deadline = time.monotonic() + 300
        while not lost <= paused_of(prefect).keys() and time.monotonic() < deadline:
            time.sleep(0.5)
        assert lost <= paused_of(prefect).keys()
        # An alert is raised only where they were missed for longer than it took to deploy them.
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
