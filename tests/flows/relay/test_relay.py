"""The relay: every committed event has its effect once, in order, whatever dies in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Crashed

from flows.jobs.sweeps import publish_due, replace_dead_flow_runs, sweep_silent_jobs
from flows.relay import effects as effecting
from flows.relay.drains import wake_drain
from flows.relay.effects import Effects
from flows.runs.flow_names import DRAW, JOB_FLOWS, SYNC
from flows.runs.orchestrator import Orchestrator, PrefectUnavailable
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Query
from storage.postgres.events import drain_wakeups, outbox
from storage.postgres.jobs import jobs
from storage.postgres.search import search_queue
from storage.records.catalog.vocabulary import Status
from storage.records.events.events import Event, JobCancelling, Lane, ModelsChanged
from storage.records.jobs.jobs import JobKind, JobState
from storage.records.search.search import Kind
from storage.stores import Stores
from tests.flows.relay.test_effects import no_server
from tests.storage.makers import a_bare_generation, a_job, a_model, a_published_model, a_version, an_account


@flow(name="train-dreambooth")
def train_dreambooth(job_id: UUID, attempt: int) -> None:
    """Stands for the deployment's flow; no worker ever runs it here."""


@flow(name=DRAW)
def generate_images() -> None:
    """Stands for the deployment's flow."""


@pytest.fixture
def effects(stores: Stores, prefect: SyncPrefectClient) -> Effects:
    flow_id = prefect.create_flow(train_dreambooth)
    prefect.create_deployment(
        flow_id=flow_id, name=JOB_FLOWS[JobKind.TRAINING], parameter_openapi_schema={"type": "object", "properties": {}}
    )
    return Effects(stores, Orchestrator(prefect))


def wake(stores: Stores, prefect: SyncPrefectClient) -> UUID | None:
    return wake_drain(stores.database, Orchestrator(prefect), SYNC)


def flow_runs(prefect: SyncPrefectClient, stores: Stores, job_ids: list[UUID]) -> list[UUID | None]:
    return [stores.database.run(jobs.get(job_id)).flow_run_id for job_id in job_ids]


def test_jobs_get_flow_runs_in_the_order_of_submission(
    stores: Stores, prefect: SyncPrefectClient, effects: Effects
) -> None:
    owner = an_account(stores.database)
    submitted = [a_job(stores.database, owner) for _ in range(5)]
    assert effects.drain() == 5
    runs = [prefect.read_flow_run(run) for run in flow_runs(prefect, stores, [job.id for job in submitted]) if run]
    assert [run.parameters["job_id"] for run in runs] == [str(job.id) for job in submitted]
    starts = [start for run in runs if (start := run.expected_start_time)]
    assert len(starts) == 5
    assert starts == sorted(starts)
    assert stores.database.run(outbox.backlog()).waiting == 0


def test_a_relay_that_died_before_its_acknowledgement_does_no_harm(
    stores: Stores, prefect: SyncPrefectClient, effects: Effects
) -> None:
    job = a_job(stores.database)
    [row] = stores.database.run(outbox.claim(1))
    effects.effect(row.event())
    first = flow_runs(prefect, stores, [job.id])
    stores.database.run(outbox.wait_no_longer("the relay died here", row.id))
    assert effects.drain() == 1
    assert flow_runs(prefect, stores, [job.id]) == first


def test_while_prefect_is_unavailable_events_keep_their_place(
    stores: Stores, effects: Effects, prefect: SyncPrefectClient
) -> None:
    owner = an_account(stores.database)
    submitted = [a_job(stores.database, owner) for _ in range(3)]
    with no_server() as nobody:
        unreachable = Effects(stores, Orchestrator(nobody))
        for _ in range(2):
            with pytest.raises(PrefectUnavailable):
                unreachable.drain()
    assert stores.database.run(outbox.backlog()).waiting == 3
    effects.drain()
    runs = [prefect.read_flow_run(run) for run in flow_runs(prefect, stores, [job.id for job in submitted]) if run]
    assert [run.parameters["job_id"] for run in runs] == [str(job.id) for job in submitted]


def test_one_event_without_an_effect_does_not_hold_up_the_others(stores: Stores, effects: Effects) -> None:
    odd = "insert into outbox (kind, subject) values ('job.unheard_of', 'job:x') returning id"
    stores.database.run(Query(odd, {}, len))
    job = a_job(stores.database)
    effects.drain()
    assert stores.database.run(jobs.get(job.id)).flow_run_id is not None
    [waiting] = stores.database.run(Query("select last_error, attempts from outbox where done_at is null", {}, list))
    assert waiting["attempts"] == 1
    assert "job.unheard_of" in waiting["last_error"]


def test_many_changes_have_their_effect_as_one_and_one_that_breaks_holds_up_no_other(
    stores: Stores, effects: Effects
) -> None:
    model = a_published_model(stores.database, an_account(stores.database))
    effects.drain()
    stores.database.run(Query("delete from search_queue", {}, len))
    for _ in range(30):
        stores.database.run(Query("update models set description = description || 'x' returning id", {}, len))
    assert effects.drain() == 30
    [row] = [row for row in stores.database.run(search_queue.due(10)) if row.kind is Kind.MODEL]
    assert (row.id, row.changes) == (model.id, 1)
    broken = "insert into outbox (kind, subject, payload) values ('models.changed', 'models', '{}') returning id"
    stores.database.run(Query(broken, {}, len))
    stores.database.run(Query("update models set description = 'y' returning id", {}, len))
    assert effects.drain() == 2
    [row] = [row for row in stores.database.run(search_queue.due(10)) if row.kind is Kind.MODEL]
    assert (row.id, row.changes) == (model.id, 2)
    [waiting] = stores.database.run(Query("select last_error from outbox where done_at is null", {}, list))
    assert "model_ids" in waiting["last_error"]


def test_events_that_never_end_do_not_make_a_turn_that_never_ends(
    stores: Stores, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = a_published_model(stores.database, an_account(stores.database))
    effects.drain()
    touch = Query("update models set description = description || 'x' where id = %(id)s", {"id": model.id}, len)
    stores.database.run(touch)
    effect, acted = effects.effect, list[Event]()

    def have_effect_and_change_again(event: Event) -> None:
        effect(event)
        stores.database.run(touch)
        acted.append(event)

    monkeypatch.setattr(effecting, "ITERATION_SECONDS", 0.2)
    monkeypatch.setattr(effects, "effect", have_effect_and_change_again)
    assert effects.iterate() is True, "there is more to do at once"
    assert acted


def test_cancelling_a_waiting_job_cancels_its_flow_run(
    stores: Stores, prefect: SyncPrefectClient, effects: Effects
) -> None:
    job = a_job(stores.database)
    effects.drain()
    stores.database.run(jobs.cancel(job.id, job.account_id))
    effects.drain()
    [run] = flow_runs(prefect, stores, [job.id])
    assert run is not None
    state = prefect.read_flow_run(run).state
    assert state is not None
    assert state.is_cancelled()


def test_a_job_handed_out_again_gets_a_new_flow_run(
    stores: Stores, prefect: SyncPrefectClient, effects: Effects
) -> None:
    job = a_job(stores.database)
    effects.drain()
    first = flow_runs(prefect, stores, [job.id])
    stores.database.run(jobs.claim(job.id, 1, uuid4()))
    late = "update jobs set heartbeat_at = now() - interval '1 minute' where id = %(id)s"
    stores.database.run(Query(late, {"id": job.id}, len))
    [moved] = sweep_silent_jobs(stores.database, stores.settings.jobs)
    assert (moved.state, moved.attempt) == (JobState.SUBMITTED, 2)
    effects.drain()
    [second] = flow_runs(prefect, stores, [job.id])
    assert second is not None
    assert second != first[0]
    assert prefect.read_flow_run(second).parameters["attempt"] == 2


def test_what_was_scheduled_is_published_also_after_a_downtime_as_of_its_own_time(
    stores: Stores, effects: Effects
) -> None:
    owner, soon = an_account(stores.database), datetime.now(UTC) + timedelta(hours=1)
    overdue, waiting = a_model(stores.database, owner, "overdue"), a_model(stores.database, owner, "waiting")
    for model in (overdue, waiting):
        a_version(stores.database, model)
        stores.database.run(models.publish(model, soon))
    publish_due(stores.database)
    assert stores.database.run(catalog.model_by_id(overdue.id)).status is Status.SCHEDULED
    # Two days went by while no relay ran.
    for table, column in (("models", "id"), ("model_versions", "model_id")):
        past = f"update {table} set scheduled_for = now() - interval '2 days' where {column} = %(id)s returning id"
        assert stores.database.run(Query(past, {"id": overdue.id}, len)) == 1
    publish_due(stores.database)
    published = stores.database.run(catalog.model_by_id(overdue.id))
    assert (published.status, published.listed, published.scheduled_for) == (Status.PUBLISHED, True, None)
    assert published.published_at is not None
    assert timedelta(days=2) <= datetime.now(UTC) - published.published_at < timedelta(days=2, hours=1)
    assert stores.database.run(catalog.model_by_id(waiting.id)).status is Status.SCHEDULED
    events = [row.event() for row in stores.database.run(outbox.of_subject("models"))]
    assert events[-1] == ModelsChanged(model_ids=(overdue.id,), lane=Lane.VISIBILITY)


def test_a_flow_run_that_died_before_it_claimed_is_replaced(
    stores: Stores, prefect: SyncPrefectClient, effects: Effects
) -> None:
    job = a_job(stores.database)
    effects.drain()
    early = "update jobs set submitted_at = now() - interval '5 minutes' where id = %(id)s"
    stores.database.run(Query(early, {"id": job.id}, len))
    assert replace_dead_flow_runs(stores.database, Orchestrator(prefect), stores.settings.jobs) == []
    [run] = flow_runs(prefect, stores, [job.id])
    assert run is not None
    prefect.set_flow_run_state(run, Crashed(message="power loss"), force=True)
    [replaced] = replace_dead_flow_runs(stores.database, Orchestrator(prefect), stores.settings.jobs)
    assert replaced.attempt == 2


@flow(name=SYNC)
def sync_search_index() -> None:
    """Stands for the deployment's flow; no worker ever runs it here."""


def test_generations_share_a_run_that_is_started_once_and_that_a_cancellation_does_not_stop(
    stores: Stores, prefect: SyncPrefectClient, effects: Effects
) -> None:
    flow_id = prefect.create_flow(generate_images)
    prefect.create_deployment(flow_id=flow_id, name=DRAW, parameter_openapi_schema={"type": "object", "properties": {}})
    first, second = a_bare_generation(stores.database), a_bare_generation(stores.database)
    assert effects.drain() == 2
    assert flow_runs(prefect, stores, [first.id, second.id]) == [None, None]

    run = wake_drain(stores.database, Orchestrator(prefect), DRAW)
    assert run is not None
    assert wake_drain(stores.database, Orchestrator(prefect), DRAW) == run, "both are drawn by one run"
    assert prefect.read_flow_run(run).parameters == {}
    with stores.database.session_lock(DRAW):
        stores.database.run(drain_wakeups.advance(DRAW))
        assert wake_drain(stores.database, Orchestrator(prefect), DRAW) is None, "it draws"
        stores.database.run(jobs.claim(first.id, 1, run))
        stores.database.run(jobs.cancel(first.id, first.account_id))
        # As the API of an earlier release, which names the run that others share.
        stores.database.run(outbox.append(JobCancelling(job_id=first.id, flow_run_id=run)))
        effects.drain()
    state = prefect.read_flow_run(run).state
    assert state is not None
    assert state.is_scheduled()
    assert wake_drain(stores.database, Orchestrator(prefect), DRAW) != run


def test_a_drain_of_the_search_queue_is_started_once_for_a_wake_up(
    stores: Stores, prefect: SyncPrefectClient, effects: Effects
) -> None:
    flow_id = prefect.create_flow(sync_search_index)
    prefect.create_deployment(flow_id=flow_id, name=SYNC, parameter_openapi_schema={"type": "object", "properties": {}})
    assert wake(stores, prefect) is None
    model = a_published_model(stores.database, an_account(stores.database))
    effects.drain()
    due = stores.database.run(search_queue.due(10))
    assert [row.id for row in due if row.kind is Kind.MODEL] == [model.id]
    assert {row.kind for row in due} == {Kind.CREATOR, Kind.MODEL}
    first = wake(stores, prefect)
    assert first is not None
    assert wake(stores, prefect) == first
    with stores.database.session_lock(SYNC) as held:
        assert held
        assert wake(stores, prefect) is None
    stores.database.run(drain_wakeups.advance(SYNC))
    second = wake(stores, prefect)
    assert second not in (None, first)
    prefect.set_flow_run_state(second, Crashed(), force=True)
    assert wake(stores, prefect) == second
    assert wake(stores, prefect) not in (None, first, second)
