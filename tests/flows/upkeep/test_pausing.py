"""A paused flow is started by nobody, wherever it was paused; what it would do waits, and nothing of it is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient

from deployments.commands.upkeep import pause as command
from deployments.commands.upkeep.run import run
from flows.relay.alerts import update_alerts
from flows.relay.drains import wake_drain
from flows.relay.effects import Effects
from flows.runs.flow_names import JOB_FLOWS, SYNC
from flows.runs.orchestrator import FlowPaused, Orchestrator
from flows.upkeep.pausing import follow, still_paused
from storage.errors import NotFound
from storage.postgres.connection import Query
from storage.postgres.events import outbox
from storage.postgres.jobs import jobs
from storage.postgres.search import search_queue
from storage.postgres.upkeep import alerts, pauses
from storage.records.jobs.jobs import JobKind
from storage.records.metrics.freshness import Switch
from storage.records.search.search import Kind
from storage.stores import Stores
from tests.storage.makers import a_job, a_published_model, an_account

TRAIN = JOB_FLOWS[JobKind.TRAINING]
BY_HAND = "reconcile"
NOBODY = "http://127.0.0.1:9/api"
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
"""A time of day at which no partition of a watched flow begins or ends."""


@flow(name=SYNC)
def sync_search_index() -> None:
    """Stands for the deployment's flow; no worker ever runs it here."""


@flow(name=TRAIN)
def train_dreambooth(job_id: UUID, attempt: int) -> None:
    """Stands for the deployment's flow."""


@flow(name=BY_HAND)
def reconcile() -> None:
    """Stands for the deployment's flow."""


@pytest.fixture
def effects(
    stores: Stores, environment: dict[str, str], prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Effects]:
    """What has the effects of events, beside a command line with the same stores and the same Prefect."""
    monkeypatch.setenv("DARKROOM_PREFECT__API_URL", str(prefect.api_url))
    for stood_in in (sync_search_index, train_dreambooth, reconcile):
        schema = {"type": "object", "properties": {}}
        prefect.create_deployment(prefect.create_flow(stood_in), stood_in.name, parameter_openapi_schema=schema)
        set_flag(prefect, stood_in.name, paused=False)
    yield Effects(stores, Orchestrator(prefect))
    for name in (SYNC, TRAIN, BY_HAND):
        set_flag(prefect, name, paused=False)


def set_flag(prefect: SyncPrefectClient, name: str, *, paused: bool) -> None:
    """What the button on Prefect's page of a deployment does."""
    deployment = prefect.read_deployment_by_name(f"{name}/{name}")
    (prefect.pause_deployment if paused else prefect.resume_deployment)(deployment.id)


def wake(stores: Stores, prefect: SyncPrefectClient) -> UUID | None:
    return wake_drain(stores.database, Orchestrator(prefect), SYNC)


def sound(stores: Stores, now: datetime) -> list[str]:
    return update_alerts(stores.database, now, stores.settings.metrics.late_after_seconds)


def flag(prefect: SyncPrefectClient, name: str) -> bool:
    return prefect.read_deployment_by_name(f"{name}/{name}").paused


def paused_in(stores: Stores) -> dict[str, Switch]:
    return {pause.flow: pause.paused_in for pause in stores.database.run(pauses.every())}


def test_the_switch_of_the_command_line_holds_in_prefect_too_and_what_is_due_waits(
    stores: Stores, prefect: SyncPrefectClient, effects: Effects, capsys: pytest.CaptureFixture[str]
) -> None:
    a_published_model(stores.database, an_account(stores.database))
    command.pause(SYNC)
    effects.drain()
    assert (wake(stores, prefect), flag(prefect, SYNC)) == (None, True)
    set_flag(prefect, SYNC, paused=False)  # as a plain `prefect deploy` does
    follow(stores.database, Orchestrator(prefect))
    assert (wake(stores, prefect), flag(prefect, SYNC)) == (None, True)
    command.resume(SYNC)
    assert (wake(stores, prefect) is not None, flag(prefect, SYNC)) == (True, False)
    command.resume(SYNC)
    assert capsys.readouterr().out.splitlines() == [
        f"{SYNC} is paused; a run that has begun ends by itself. Go on with: darkroom resume {SYNC}",
        f"{SYNC} goes on",
        f"{SYNC} was not paused",
    ]
    with pytest.raises(NotFound, match=r"No flow 'sync'\. There are: .*sync-search-index"):
        command.pause("sync")


def test_a_scheduled_flow_is_started_by_hand_unless_it_is_paused(
    prefect: SyncPrefectClient, effects: Effects, capsys: pytest.CaptureFixture[str]
) -> None:
    run(BY_HAND)
    run(BY_HAND)
    first, second = (line.rsplit("/", 1)[1] for line in capsys.readouterr().out.splitlines())
    assert first != second
    assert "by-hand" in prefect.read_flow_run(UUID(first)).tags
    set_flag(prefect, BY_HAND, paused=True)
    with pytest.raises(FlowPaused, match="darkroom resume reconcile"):
        run(BY_HAND)
    with pytest.raises(NotFound, match=rf"No flow '{TRAIN}' has a schedule. There are: .*{BY_HAND}"):
        run(TRAIN)


def test_prefects_own_switch_is_respected_at_once_and_undone_there(
    stores: Stores, prefect: SyncPrefectClient, effects: Effects
) -> None:
    a_published_model(stores.database, an_account(stores.database))
    effects.drain()
    set_flag(prefect, SYNC, paused=True)
    assert wake(stores, prefect) is None
    assert paused_in(stores) == {SYNC: Switch.PREFECT}
    follow(stores.database, Orchestrator(prefect))
    assert flag(prefect, SYNC)
    set_flag(prefect, SYNC, paused=False)
    follow(stores.database, Orchestrator(prefect))
    assert paused_in(stores) == {}
    assert wake(stores, prefect) is not None


def test_jobs_of_a_paused_flow_keep_their_places_and_hold_up_nothing_else(
    stores: Stores, prefect: SyncPrefectClient, effects: Effects
) -> None:
    set_flag(prefect, TRAIN, paused=True)
    submitted = [a_job(stores.database) for _ in range(3)]
    model = a_published_model(stores.database, an_account(stores.database))
    effects.drain()
    assert [stores.database.run(jobs.get(job.id)).flow_run_id for job in submitted] == [None] * 3
    assert model.id in stores.database.run(search_queue.waiting_ids(Kind.MODEL))
    assert stores.database.run(outbox.backlog()).waiting == 3
    assert effects.drain() == 0
    command.resume(TRAIN)
    assert effects.drain() == 3
    runs = [stores.database.run(jobs.get(job.id)).flow_run_id for job in submitted]
    started = [prefect.read_flow_run(run) for run in runs if run]
    starts = [start for run in started if (start := run.expected_start_time)]
    assert len(starts) == 3
    assert starts == sorted(starts)


def test_a_pause_holds_while_prefect_is_unavailable_and_outlives_its_database(
    stores: Stores,
    prefect: SyncPrefectClient,
    effects: Effects,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    a_published_model(stores.database, an_account(stores.database))
    effects.drain()
    monkeypatch.setenv("DARKROOM_PREFECT__API_URL", NOBODY)
    command.pause(SYNC)
    assert "The relay reports it when it is back" in capsys.readouterr().out
    assert (wake(stores, prefect), flag(prefect, SYNC)) == (None, False)
    stores.database.run(pauses.add("lost-with-prefect", Switch.PREFECT))
    set_flag(prefect, TRAIN, paused=True)
    assert still_paused(stores.database, Orchestrator(prefect)) == {SYNC, TRAIN, "lost-with-prefect"}
    follow(stores.database, Orchestrator(prefect))
    assert flag(prefect, SYNC)


def test_a_pause_that_is_forgotten_is_said_aloud(stores: Stores, effects: Effects) -> None:
    allowed = timedelta(seconds=stores.settings.metrics.late_after_seconds)
    stores.database.run(pauses.add(SYNC, Switch.DARKROOM))
    stores.database.run(Query("update watched_flows set started_at = %(at)s", {"at": NOON}, len))
    stores.database.run(Query("update flow_pauses set paused_at = %(at)s", {"at": NOON - allowed}, len))
    assert sound(stores, NOON) == []
    assert sound(stores, NOON + timedelta(seconds=1)) == [f"paused {SYNC}"]
    [alert] = stores.database.run(alerts.raised())
    assert f"it goes on with: darkroom resume {SYNC}" in alert.detail
    stores.database.run(pauses.remove(SYNC))
    sound(stores, NOON)
    assert stores.database.run(alerts.raised()) == []
