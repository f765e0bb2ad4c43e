"""What Prefect's automations fire for is told once, and not when all is well with the run after all."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Crashed

from flows.alarms import LOOK_BACK, OURS, Firings
from flows.orchestrator import Orchestrator
from storage.postgres.connection import Query
from storage.stores import Stores
from tests.storage.makers import an_account

NOW = datetime.now(UTC)


@flow
def upkeep() -> None:
    """Stands for a flow; no worker ever runs it here."""


def fire(prefect: SyncPrefectClient, run: FlowRun, automation: str) -> None:
    """What the server's triggers write down when an automation fires for a run."""
    firing: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "occurred": NOW.isoformat(),
        "event": "prefect.automation.triggered",
        "resource": {"prefect.resource.id": f"prefect.automation.{automation}", "prefect.resource.name": automation},
        "payload": {"triggering_labels": {"prefect.resource.id": f"prefect.flow-run.{run.id}"}},
    }
    prefect.request("POST", "/events", json=[firing])


def test_a_firing_is_told_once_and_only_while_something_is_wrong(stores: Stores, prefect: SyncPrefectClient) -> None:
    moderator = an_account(stores.database)
    promote = "update accounts set role = 'moderator' where id = %(id)s"
    stores.database.run(Query(promote, {"id": moderator}, len))
    crashed, again, done, gone, others = [prefect.create_flow_run(upkeep) for _ in range(5)]
    for run in (crashed, again, others):
        prefect.set_flow_run_state(run.id, Crashed(message="power loss"), force=True)
    prefect.set_flow_run_state(done.id, Completed(), force=True)
    prefect.delete_flow_run(gone.id)
    for run in (done, gone, crashed, again):
        fire(prefect, run, f"{OURS}flow runs fall over")
    fire(prefect, others, "somebody else's automation")
    orchestrator = Orchestrator(prefect)
    deadline = time.monotonic() + 60
    while len(orchestrator.firings(NOW - LOOK_BACK)) < 5 and time.monotonic() < deadline:
        time.sleep(0.1)

    firings = Firings(stores.database, orchestrator)
    said = firings.hear(NOW)

    assert sorted(line.partition(" (")[0] for line in said) == sorted(
        f"flow runs fall over: flow run {run.name} of upkeep" for run in (crashed, again)
    )
    assert all("Crashed power loss" in line for line in said)
    assert firings.hear(NOW) == []
    assert len(Firings(stores.database, orchestrator).hear(NOW)) == 2  # a relay that starts: in its log
    told = stores.database.run(Query("select key, readers, details from notifications", {}, list))
    assert [row["details"]["title"] for row in told] == ["Alarm: flow runs fall over"]
