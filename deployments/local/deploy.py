"""Brings Prefect in line with prefect.yaml: work pools, deployments, schedules, automations; removes what has left.

`python -m deployments.local.deploy` does it, because `prefect deploy` takes seconds; `darkroom up` starts it as a part
of its own, and only when something has changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpx
import yaml

from deployments.local.automations import deploy_automations
from deployments.local.environment import prefect_client_environment
from deployments.local.errors import PlatformError
from deployments.local.fingerprint import PREFECT_FILE, fingerprint, fingerprint_file, stanzas
from deployments.local.queued_runs import rename_parameters
from deployments.local.servers.prefect_http import prefect_http
from flows.runs.orchestrator import Orchestrator, open_prefect
from flows.upkeep.pausing import still_paused
from storage.postgres.connection import Database
from storage.postgres.upkeep import flow_deployments
from storage.settings import Settings, load_settings

# On every deployment of the file: what carries it and is not in the file any more is removed.
TAG = "managed-by:prefect.yaml"
WORK_POOLS = ("training", "light")
# What a worker starts for a run, whatever the run or its deployment asks for: nothing of it is a variable, and a run
# that brings variables is refused with 422. Without the key `env`, because an environment that is fixed here is merged
# with a run's own. The command skips Prefect's supervising process, which fetches code first (1.2 s a run). Nobody but
# root writes in the folder, which Python searches for modules before all others.
WORK_POOL_TEMPLATE: dict[str, Any] = {
    "job_configuration": {"command": "python -m prefect.engine", "working_dir": "/", "stream_output": True},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}


def deploy_all(settings: Settings, prefect_file: Path = PREFECT_FILE) -> None:
    """Deploy everything in the file. Repeatable. Raises PlatformError with Prefect's own message when it refuses."""
    # Before the deploy: what changes while it runs is not deployed, and has to be noticed by the next start.
    before = fingerprint(prefect_file)
    with open_prefect(settings.prefect) as prefect, Database(settings.postgres) as database:
        deployed = with_pauses(settings, prefect_file, still_paused(database, Orchestrator(prefect)))
    with prefect_http(settings.prefect) as client:
        for pool in WORK_POOLS:
            ensure_work_pool(client, pool)
        done = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "prefect"), "--no-prompt"),
                *("deploy", "--all", "--prefect-file", str(deployed)),
            ],
            cwd=prefect_file.parent,
            env={**os.environ, **prefect_client_environment(settings, "deploy")},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PlatformError(f"prefect deploy refused {prefect_file}:\n{done.stdout}\n{done.stderr}")
        prune(client, prefect_file)
        rename_parameters(client)
    with open_prefect(settings.prefect) as prefect:
        deploy_automations(prefect)
    with Database(settings.postgres) as database:
        database.run(flow_deployments.note(stanza["name"] for stanza in stanzas(prefect_file)))
    # Last: a deploy that died half-way is done again.
    fingerprint_file(settings).write_text(before)


def with_pauses(settings: Settings, prefect_file: Path, paused: Collection[str]) -> Path:
    """The file to deploy: the given one, or one beside the fingerprint that pauses what is `paused`. Prefect's own
    deploy lets everything go on that its file does not pause."""
    if not paused:
        return prefect_file
    document = yaml.safe_load(prefect_file.read_text())
    for stanza in document["deployments"]:
        if stanza["name"] in paused:
            stanza["paused"] = True
    file = fingerprint_file(settings).with_name("prefect.yaml")
    file.write_text(yaml.safe_dump(document))
    return file


def ensure_work_pool(client: httpx.Client, name: str) -> None:
    """Create a process work pool, or bring the one that is there in line."""
    template = {"base_job_template": WORK_POOL_TEMPLATE}
    response = client.post("work_pools/", json={"name": name, "type": "process", **template})
    # Not the other way round: the pool may be made by another starter between a look and the request.
    if response.status_code == 409:
        response = client.patch(f"work_pools/{name}", json=template)
    if not response.is_success:
        raise PlatformError(f"Prefect refused the work pool {name!r}: {response.status_code} {response.text}")


def prune(client: httpx.Client, prefect_file: Path) -> None:
    """Remove deployments and schedules that have left the file: `prefect deploy` leaves them in place."""
    by_name = {stanza["name"]: stanza for stanza in stanzas(prefect_file)}
    body = {"deployments": {"tags": {"all_": [TAG]}}, "limit": 200}
    for deployed in client.post("deployments/filter", json=body).raise_for_status().json():
        stanza = by_name.get(deployed["name"])
        if stanza is None:
            client.delete(f"deployments/{deployed['id']}").raise_for_status()
            continue
        wanted = {schedule["slug"] for schedule in stanza.get("schedules", [])}
        for schedule in deployed["schedules"]:
            # PrefectHQ/prefect issue 23097: otherwise a schedule that has left the file goes on.
            if schedule["slug"] not in wanted:
                client.delete(f"deployments/{deployed['id']}/schedules/{schedule['id']}").raise_for_status()


if __name__ == "__main__":
    deploy_all(load_settings())
