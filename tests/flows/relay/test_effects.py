"""An event without effect is tried ten times in its order, then given up with an alert, and can be replayed."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient

from deployments.commands.events import events as command
from flows.relay import alerts
from flows.relay.deployments import miss_deployments
from flows.relay.effects import Effects
from flows.runs.flow_names import JOB_FLOWS
from flows.runs.orchestrator import Orchestrator, PrefectUnavailable
from storage.errors import NotFound
from storage.postgres.connection import Query
from storage.postgres.events import outbox
from storage.postgres.events.outbox import MAX_FAILURES
from storage.postgres.jobs import jobs
from storage.postgres.upkeep import alerts as alert_rows
from storage.postgres.upkeep import flow_deployments
from storage.records.jobs.jobs import JobKind
from storage.stores import Stores
from tests.storage.makers import a_job, an_account

TRAIN = JOB_FLOWS[JobKind.TRAINING]


@flow(name=TRAIN)
def train_dreambooth(job_id: UUID, attempt: int) -> None:
    """Stands for the deployment's flow; no worker ever runs it here."""


def deploy(prefect: SyncPrefectClient) -> None:
    schema = {"type": "object", "properties": {}}
    prefect.create_deployment(prefect.create_flow(train_dreambooth), TRAIN, parameter_openapi_schema=schema)


def no_server() -> SyncPrefectClient:
    """A client of a server that does not listen. It is refused at once: Prefect's own asks three times more, 1.5 s."""
    return SyncPrefectClient(api="http://127.0.0.1:9/api", httpx_settings={"transport": httpx.HTTPTransport()})


@pytest.fixture
def effects(stores: Stores, prefect: SyncPrefectClient) -> Effects:
    deploy(prefect)
    return Effects(stores, Orchestrator(prefect))


def add(stores: Stores, kind: str, subject: str, payload: str = "{}") -> int:
    statement = "insert into outbox (kind, subject, payload) values (%(kind)s, %(subject)s, %(payload)s) returning id"
    parameters = {"kind": kind, "subject": subject, "payload": payload}
    return stores.database.run(Query(statement, parameters, lambda rows: int(rows[0]["id"])))


def wait_is_over(stores: Stores) -> None:
    due = "update outbox set next_attempt_at = now() where done_at is null returning id"
    stores.database.run(Query(due, {}, len))


def waiting(stores: Stores) -> list[int]:
    found = stores.database.run(Query("select id from outbox where done_at is null order by id", {}, list))
    return [row["id"] for row in found]


def told(stores: Stores) -> list[str]:
    """The alerts that are raised now, on a platform that was put up now: the test's may be a copy of an older one."""
    stores.database.run(Query("update watched_flows set started_at = now()", {}, len))
    alerts.update_alerts(stores.database, datetime.now(UTC), stores.settings.metrics.late_after_seconds)
    return [
        row["name"] for row in stores.database.run(Query("select name from alerts where cleared_at is null", {}, list))
    ]


def test_a_failing_event_is_given_up_with_an_alert_and_its_subject_goes_on_then(
    stores: Stores, effects: Effects, capsys: pytest.CaptureFixture[str], environment: dict[str, str]
) -> None:
    moderator = an_account(stores.database)
    stores.database.run(Query("update accounts set role = 'moderator' where id = %(id)s", {"id": moderator}, len))
    broken = add(stores, "job.unheard_of", "job:1")
    later = add(stores, "follow.removed", "job:1", f'{{"follower_id": "{moderator}", "followed_id": "{moderator}"}}')
    other = add(stores, "follow.removed", "job:2", f'{{"follower_id": "{moderator}", "followed_id": "{moderator}"}}')
    for tries in range(1, MAX_FAILURES + 1):
        assert told(stores) == []
        effects.drain()
        assert other not in waiting(stores)
        if tries < MAX_FAILURES:
            assert waiting(stores) == [broken, later], f"after {tries} tries the later event overtook the failing one"
        wait_is_over(stores)
    effects.drain()
    assert waiting(stores) == [broken]
    assert (stores.database.run(outbox.backlog()).waiting, stores.database.run(outbox.backlog()).dead) == (0, 1)
    assert told(stores) == ["dead events: job.unheard_of"]
    [notice] = stores.database.run(Query("select details from notifications where key like 'alert:%%'", {}, list))
    assert f"after 10 tries ({broken} of job:1)" in notice["details"]["text"]
    assert "darkroom events replay" in notice["details"]["text"]

    command.list_in_trouble()
    assert f"{broken}" in capsys.readouterr().out
    repaired = "update outbox set kind = 'follow.removed', payload = (select payload from outbox where id = %(other)s)"
    stores.database.run(Query(f"{repaired} where id = %(id)s returning id", {"id": broken, "other": other}, len))
    command.replay([broken])
    assert told(stores) == []
    assert effects.drain() == 1
    assert waiting(stores) == []
    with pytest.raises(NotFound, match="darkroom events list"):
        command.replay([broken])


def test_what_can_never_have_an_effect_is_discarded(
    stores: Stores, effects: Effects, environment: dict[str, str]
) -> None:
    broken = add(stores, "job.unheard_of", "job:1")
    for _ in range(MAX_FAILURES):
        effects.drain()
        wait_is_over(stores)
    assert told(stores) == ["dead events: job.unheard_of"]
    command.discard([broken])
    assert (told(stores), waiting(stores)) == ([], [])


def test_an_event_at_which_relays_die_is_given_up_too(stores: Stores, effects: Effects) -> None:
    deadly = add(stores, "follow.removed", "account:1")
    for _ in range(MAX_FAILURES):
        assert [row.id for row in stores.database.run(outbox.claim(1))] == [deadly]  # and the relay dies here
        wait_is_over(stores)
    effects.iterate()
    [found] = stores.database.run(outbox.dead_events())
    assert (found.id, found.last_error) == (deadly, "the relay died each time it tried")


def test_the_absence_of_prefect_is_not_the_fault_of_an_event(stores: Stores, effects: Effects) -> None:
    job = a_job(stores.database)
    with no_server() as nobody:
        unreachable = Effects(stores, Orchestrator(nobody))
        for _ in range(MAX_FAILURES + 2):
            with pytest.raises(PrefectUnavailable):
                unreachable.drain()
    assert stores.database.run(outbox.dead_events()) == []
    assert told(stores) == []
    effects.drain()
    assert stores.database.run(jobs.get(job.id)).flow_run_id is not None


def test_jobs_whose_flow_is_not_deployed_keep_their_places_and_hold_up_nothing(
    stores: Stores, effects: Effects, prefect: SyncPrefectClient
) -> None:
    prefect.delete_deployment(prefect.read_deployment_by_name(f"{TRAIN}/{TRAIN}").id)
    submitted = [a_job(stores.database) for _ in range(2)]
    other = add(
        stores,
        "follow.removed",
        "account:1",
        f'{{"follower_id": "{submitted[0].account_id}", "followed_id": "{submitted[0].account_id}"}}',
    )
    for _ in range(MAX_FAILURES + 1):
        effects.drain()
    assert other not in waiting(stores)
    assert stores.database.run(outbox.backlog()).waiting == 2
    assert stores.database.run(outbox.dead_events()) == []
    assert stores.database.run(flow_deployments.absent()) == [TRAIN]
    deploy(prefect)
    miss_deployments(stores.database, Orchestrator(prefect))
    assert effects.drain() == 2
    runs = [stores.database.run(jobs.get(job.id)).flow_run_id for job in submitted]
    assert all(runs)


def test_a_missing_deployment_is_an_alert_from_the_second_look_until_it_is_back(
    stores: Stores, prefect: SyncPrefectClient
) -> None:
    deploy(prefect)
    orchestrator = Orchestrator(prefect)
    present = [deployment.name for deployment in orchestrator.deployments()]
    stores.database.run(flow_deployments.note([TRAIN, "back-up"]))
    stores.database.run(flow_deployments.compare([*present, "back-up"], []))
    assert told(stores) == []
    assert "back-up" in miss_deployments(stores.database, orchestrator)
    assert told(stores) == []
    miss_deployments(stores.database, orchestrator)
    assert told(stores) == ["missing deployments"]
    [detail] = stores.database.run(alert_rows.relay_alerts()).values()
    assert "back-up" in detail
    assert TRAIN not in detail
    stores.database.run(flow_deployments.compare([*present, "back-up", *JOB_FLOWS.values()], []))
    stores.database.run(Query("delete from flow_deployments where flow <> 'back-up'", {}, len))
    assert told(stores) == []
