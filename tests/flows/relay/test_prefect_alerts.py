"""What Prefect's automations fire for is told once, and only while it is so: a firing alone proves nothing."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Completed, Crashed, Failed, Running, Scheduled

from deployments.local.automations import silent_runs_are_crashed
from flows.relay.prefect_alerts import CRASHED_BY_US, FAIL, LOOK_BACK, OURS, SILENT, STAY_LATE, UNDECIDED, Firings
from flows.runs.orchestrator import Orchestrator
from storage.postgres.connection import Query
from storage.stores import Stores
from tests.storage.makers import an_account

NOW = datetime.now(UTC)
LATE = Scheduled(name="Late")
GONE = Crashed(message=f"{CRASHED_BY_US} 90 s; its process is gone.")
BY_WORKER = Crashed(message="Flow run process exited with non-zero status code -9.")

TRUTHS: Sequence[tuple[str, State[Any] | None, bool]] = [
    (SILENT, GONE, True),
    (SILENT, Failed(message="disk_full: the reason"), False),
    (SILENT, Completed(), False),
    (SILENT, Cancelled(), False),
    (SILENT, BY_WORKER, False),
    (SILENT, None, False),
    (STAY_LATE, LATE, True),
    (STAY_LATE, Running(), False),
    (STAY_LATE, Completed(), False),
    (STAY_LATE, Failed(), False),
    (STAY_LATE, None, False),
    (FAIL, Failed(message="a reason"), True),
    (FAIL, BY_WORKER, True),
    (FAIL, Running(), False),
    (FAIL, Completed(), False),
    (FAIL, Cancelled(), False),
    (FAIL, None, False),
]
"""What an automation fired for, how its run is when the relay looks (None: it was deleted), and whether it is so."""


@flow
def upkeep() -> None:
    """Stands for a flow; no worker ever runs it here."""


def fire(prefect: SyncPrefectClient, run: FlowRun, automation: str) -> str:
    """What the server's triggers write down when an automation fires for a run; returns the firing's id."""
    firing: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "occurred": NOW.isoformat(),
        "event": "prefect.automation.triggered",
        "resource": {"prefect.resource.id": f"prefect.automation.{automation}", "prefect.resource.name": automation},
        "payload": {"triggering_labels": {"prefect.resource.id": f"prefect.flow-run.{run.id}"}},
    }
    prefect.request("POST", "/events", json=[firing])
    return str(firing["id"])


def send(prefect: SyncPrefectClient, run: FlowRun, event: str, occurred: datetime) -> None:
    """An event of a flow run, as its process or the server writes it down."""
    sent = {
        "id": str(uuid.uuid4()),
        "occurred": occurred.isoformat(),
        "event": event,
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name},
    }
    prefect.request("POST", "/events", json=[sent])


def a_run(prefect: SyncPrefectClient, state: State[Any] | None) -> FlowRun:
    run = prefect.create_flow_run(upkeep)
    if state is None:
        prefect.delete_flow_run(run.id)
    else:
        prefect.set_flow_run_state(run.id, state, force=True)
    return run


def wait_for_firings(orchestrator: Orchestrator, ids: Sequence[str]) -> None:
    deadline = time.monotonic() + 60
    while not {str(firing.id) for firing in orchestrator.firings(NOW - LOOK_BACK)} >= set(ids):
        assert time.monotonic() < deadline, "the events never came"
        time.sleep(0.1)


@pytest.fixture
def moderator(stores: Stores) -> None:
    promote = "update accounts set role = 'moderator' where id = %(id)s"
    stores.database.run(Query(promote, {"id": an_account(stores.database)}, len))


@pytest.mark.usefixtures("moderator")
def test_a_firing_is_told_once_and_only_while_it_is_so(stores: Stores, prefect: SyncPrefectClient) -> None:
    runs = [(what, a_run(prefect, state), wrong) for what, state, wrong in TRUTHS]
    ids = [fire(prefect, run, f"{OURS}{what}") for what, run, _ in runs]
    ids.append(fire(prefect, a_run(prefect, GONE), "somebody else's automation"))
    orchestrator = Orchestrator(prefect)
    wait_for_firings(orchestrator, ids)

    firings = Firings(stores.database, orchestrator)
    said = firings.read_new(NOW)

    ours = {f"flow run {run.name} of": (what, wrong) for what, run, wrong in runs}
    heard = {(name, what) for name, (what, _) in ours.items() for line in said if line.startswith(f"{what}: {name}")}
    assert heard == {(name, what) for name, (what, wrong) in ours.items() if wrong}
    assert len(said) == sum(wrong for _, _, wrong in TRUTHS)
    assert any("of upkeep" in line and "now Crashed No heartbeat for 90 s" in line for line in said)
    assert firings.read_new(NOW) == []
    told = stores.database.run(Query("select key, details from notifications", {}, list))
    assert sorted(row["details"]["title"] for row in told) == sorted(
        f"Alert: {what}" for what in (SILENT, STAY_LATE, FAIL)
    )
    assert len(Firings(stores.database, orchestrator).read_new(NOW)) == len(said)  # a relay that starts: in its log


def test_a_firing_that_is_ahead_of_what_it_does_is_decided_later(stores: Stores, prefect: SyncPrefectClient) -> None:
    silent, alive = a_run(prefect, Running()), a_run(prefect, Running())
    orchestrator = Orchestrator(prefect)
    wait_for_firings(orchestrator, [fire(prefect, run, f"{OURS}{SILENT}") for run in (silent, alive)])
    firings = Firings(stores.database, orchestrator)
    mine = {silent.name, alive.name}

    assert not any(name in line for line in firings.read_new(NOW) for name in mine)
    prefect.set_flow_run_state(silent.id, GONE, force=True)
    assert [line for line in firings.read_new(NOW + timedelta(seconds=30)) if silent.name in line]
    assert firings.read_new(NOW + UNDECIDED) == []
    prefect.set_flow_run_state(alive.id, GONE, force=True)  # much later, and by somebody else
    assert firings.read_new(NOW + UNDECIDED) == []


@pytest.mark.soak
@pytest.mark.usefixtures("moderator")
def test_prefect_itself_fires_for_a_run_whose_last_heartbeat_comes_after_its_end_and_nobody_hears_of_it(
    stores: Stores, prefect: SyncPrefectClient
) -> None:
    """A heartbeat of before the end that reaches the server after it arms a trigger that nothing disarms."""
    automation = silent_runs_are_crashed(within=timedelta(seconds=10))
    identity = prefect.create_automation(automation)
    orchestrator = Orchestrator(prefect)
    try:
        time.sleep(3)  # the server's triggers are loaded
        failed, dead, orderly = a_run(prefect, Running()), a_run(prefect, Running()), a_run(prefect, Running())
        beat = datetime.now(UTC)
        send(prefect, orderly, "prefect.flow-run.heartbeat", beat)
        send(prefect, dead, "prefect.flow-run.heartbeat", beat)
        for run in (failed, orderly):
            prefect.set_flow_run_state(run.id, Failed(message="disk_full: the reason"), force=True)
        time.sleep(3)
        send(prefect, failed, "prefect.flow-run.heartbeat", beat)
        deadline, fired = time.monotonic() + 60, set[str]()
        while not fired >= {str(failed.id), str(dead.id)} and time.monotonic() < deadline:
            found = orchestrator.firings(beat)
            fired = {one.payload["triggering_labels"]["prefect.resource.id"].rpartition(".")[2] for one in found}
            time.sleep(0.5)
        assert fired >= {str(failed.id), str(dead.id)}
        assert str(orderly.id) not in fired, "an end that comes last disarms it"
        state = prefect.read_flow_run(failed.id).state
        assert state is not None
        assert (state.name, state.message) == ("Failed", "disk_full: the reason")

        firings, said = Firings(stores.database, orchestrator), list[str]()
        while not any(dead.name in line for line in said) and time.monotonic() < deadline:
            said += firings.read_new(datetime.now(UTC))
            time.sleep(0.5)
        mine = [line for line in said if any(run.name in line for run in (failed, dead, orderly))]
        assert [dead.name in line for line in mine] == [True], mine
    finally:
        prefect.delete_automation(identity)
