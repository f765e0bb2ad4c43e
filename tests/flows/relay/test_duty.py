"""Each duty of the relay stands alone: one that fails or hangs stops no other, and says so where operators look."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.relay import duty as dutying
from flows.relay.duty import Duty, DutyThread
from flows.relay.relay import Relay
from flows.runs.flow_names import SYNC
from flows.runs.orchestrator import DeploymentMissing, Orchestrator
from storage.errors import StatementTimeout
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Query
from storage.postgres.events import duties
from storage.postgres.jobs import jobs
from storage.postgres.search import search_queue
from storage.postgres.upkeep import alerts
from storage.records.catalog.vocabulary import Status
from storage.records.events.duties import SILENT_SECONDS, DutyReport
from storage.records.jobs.jobs import JobState
from storage.stores import Stores
from tests.flows.relay.test_effects import no_server
from tests.platform_api.door import serving
from tests.storage.makers import a_job, a_model, a_published_model, a_version, an_account


def wait_until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


@contextmanager
def working(relay: Relay) -> Iterator[None]:
    """The relay at work for as long as the block lasts; it has to end soon after, whatever hangs in it."""
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        yield
    finally:
        relay.stopping.set()
        thread.join(timeout=10)
        assert not thread.is_alive(), "a duty that hangs kept the relay from ending"


@contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that takes connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"


class ThingsToDo:
    """A silent job, a model whose time has come, and a change of the catalogue: work of three duties."""

    def __init__(self, stores: Stores) -> None:
        self._stores, database = stores, stores.database
        owner = an_account(database)
        self._job = a_job(database, owner)
        database.run(jobs.claim(self._job.id, 1, uuid4()))
        late = "update jobs set heartbeat_at = now() - interval '1 minute' where id = %(id)s"
        database.run(Query(late, {"id": self._job.id}, len))
        self._model = a_model(database, owner, "due")
        a_version(database, self._model)
        database.run(models.publish(self._model, datetime.now(UTC) + timedelta(hours=1)))
        for table, column in (("models", "id"), ("model_versions", "model_id")):
            past = f"update {table} set scheduled_for = now() - interval '1 minute' where {column} = %(id)s"
            database.run(Query(past, {"id": self._model.id}, len))
        a_published_model(database, owner)

    def are_done(self) -> bool:
        job = self._stores.database.run(jobs.get(self._job.id))
        model = self._stores.database.run(catalog.model_by_id(self._model.id))
        return (job.state, job.attempt, model.status) == (JobState.SUBMITTED, 2, Status.PUBLISHED)


def reports(stores: Stores) -> dict[str, DutyReport]:
    return {duty.name: duty for duty in stores.database.run(duties.every())}


def test_a_deployment_that_prefect_does_not_know_stops_no_duty_but_its_own(
    stores: Stores, prefect: SyncPrefectClient
) -> None:
    found = [one for one in Orchestrator(prefect).deployments() if one.name == SYNC]
    for one in found:
        prefect.delete_deployment(one.id)
    work = ThingsToDo(stores)
    with working(Relay(stores, lambda: Orchestrator(prefect))):
        assert wait_until(work.are_done)
        assert wait_until(lambda: reports(stores)[SYNC].failures > 0)
        assert wait_until(lambda: all(report.succeeded_at for name, report in reports(stores).items() if name != SYNC))
    assert stores.database.run(search_queue.lag()).waiting > 0
    failing = reports(stores)[SYNC]
    assert failing.error == f"{DeploymentMissing.code}: {DeploymentMissing(SYNC)}"
    assert {name for name, report in reports(stores).items() if report.failures} == {SYNC}


def test_a_prefect_that_hangs_stops_no_duty_that_does_not_ask_it(stores: Stores) -> None:
    work = ThingsToDo(stores)
    with silent_server() as url, SyncPrefectClient(api=url) as hanging:
        with working(Relay(stores, lambda: Orchestrator(hanging))):
            assert wait_until(work.are_done)
            alone = {"effects", "listening", "silent-jobs", "scheduled-publishing", "alerts"}
            assert wait_until(lambda: all(reports(stores)[name].succeeded_at for name in alone))
        assert reports(stores)["pauses"].succeeded_at is None
        assert reports(stores)["pauses"].failures == 0, "it still waits for its response"


class CountedRelay(Relay):
    """A relay whose duties only count their iterations; one of them fails each time."""

    def __init__(self, stores: Stores, failing: str) -> None:
        super().__init__(stores, lambda: Orchestrator(no_server()))
        self.failing, self.iterations = failing, Counter[str]()

    def duties(self) -> list[Duty]:
        return [replace(one, every_seconds=0.01, iterate=self._counted(one.name)) for one in super().duties()]

    def _counted(self, name: str) -> Callable[[], bool]:
        def iterate() -> bool:
            self.iterations[name] += 1
            if name == self.failing:
                raise ValueError("strange")
            return False

        return iterate


def test_whichever_duty_fails_it_goes_on_and_so_does_every_other(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dutying, "MAX_PAUSE_SECONDS", 0.01)
    names = [one.name for one in Relay(stores, lambda: Orchestrator(SyncPrefectClient(api="http://nobody"))).duties()]
    for failing in names:
        relay = CountedRelay(stores, failing)
        with working(relay):
            assert wait_until(lambda: all(relay.iterations[name] > 3 for name in names))  # noqa: B023


def test_a_turn_that_ends_soon_after_the_stop_is_waited_for(stores: Stores, prefect: SyncPrefectClient) -> None:
    began, ended = threading.Event(), threading.Event()

    def iterate() -> bool:
        began.set()
        time.sleep(1)
        ended.set()
        return False

    class OneSlow(Relay):
        def duties(self) -> list[Duty]:
            return [Duty("slow", 0.1, iterate), *(Duty(f"quick {n}", 0.1, lambda: False) for n in range(11))]

    with working(OneSlow(stores, lambda: Orchestrator(prefect))):
        assert began.wait(10)
    assert ended.is_set()


def test_a_relay_that_has_stopped_listens_no_more(stores: Stores) -> None:
    listening = "select 1 from pg_stat_activity where query = 'listen outbox' and datname = current_database()"
    listens = Query(listening, {}, bool)
    with no_server() as nobody:
        with working(Relay(stores, lambda: Orchestrator(nobody))):
            assert wait_until(lambda: stores.database.run(listens))
        assert wait_until(lambda: not stores.database.run(listens))


def test_an_event_in_the_middle_of_which_a_relay_stops_is_due_again_and_has_not_failed(stores: Stores) -> None:
    a_job(stores.database)
    claimed = "select failures, next_attempt_at <= now() as due from outbox where done_at is null"
    rows = Query(claimed, {}, lambda found: [(row["failures"], row["due"]) for row in found])
    with silent_server() as url, SyncPrefectClient(api=url) as hanging:
        with working(Relay(stores, lambda: Orchestrator(hanging))):
            assert wait_until(lambda: stores.database.run(rows) == [(1, False)])
        assert stores.database.run(rows) == [(0, True)]


def test_a_duty_that_fails_is_tried_again_ever_more_slowly_and_what_it_says_is_kept(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dutying, "FIRST_PAUSE_SECONDS", 0.1)
    times, stopping = list[float](), threading.Event()

    def iterate() -> bool:
        times.append(time.monotonic())
        if len(times) <= 4:
            raise StatementTimeout("It took too long.") if len(times) > 1 else ValueError("a fault of ours")
        return False

    stores.database.run(duties.begin({"odd": 0.01}))
    thread = DutyThread(Duty("odd", 0.01, iterate), stores.database, stopping)
    thread.start()
    assert wait_until(lambda: reports(stores)["odd"].failures == 4)
    assert reports(stores)["odd"].error == "statement_timeout: It took too long."
    assert wait_until(lambda: reports(stores)["odd"].failures == 0)
    stopping.set()
    thread.join(10)
    assert reports(stores)["odd"].error is None
    pauses = [after - before for before, after in pairwise(times[:5])]
    assert all(pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.4, 0.8), strict=True)), pauses


@pytest.mark.soak  # a report with a lone surrogate ends a process of pytest-xdist
def test_a_duty_whose_failure_or_success_cannot_be_noted_goes_on(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dutying, "FIRST_PAUSE_SECONDS", 0.1)
    succeeded, iterations, unnoted, stopping = duties.succeeded, list[int](), list[int](), threading.Event()

    def iterate() -> bool:
        iterations.append(1)
        if len(iterations) == 1:
            raise ValueError("Postgres has no \ud800")
        return False

    def unnoted_once(name: str) -> Query[Any]:
        if not unnoted:
            unnoted.append(1)
            raise TypeError("a fault of ours")
        return succeeded(name)

    monkeypatch.setattr(duties, "succeeded", unnoted_once)
    stores.database.run(duties.begin({"odd": 0.01}))
    thread = DutyThread(Duty("odd", 0.01, iterate), stores.database, stopping)
    thread.start()
    assert wait_until(lambda: reports(stores)["odd"].succeeded_at is not None)
    stopping.set()
    thread.join(10)
    assert (len(iterations) > 2, len(unnoted)) == (True, 1)


def test_only_a_duty_without_success_for_too_long_is_an_alert(
    stores: Stores, database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    database = stores.database
    database.run(duties.begin({"effects": 2.0, "pauses": 30.0}))
    database.run(duties.failed("effects", "store_unavailable: away"))
    assert database.run(alerts.relay_alerts()) == {}, "one failure is none yet"
    age = "update relay_duties set started_at = now() - %(age)s * interval '1 second' returning name"
    database.run(Query(age, {"age": SILENT_SECONDS + 10}, len))
    [(name, detail)] = database.run(alerts.relay_alerts()).items()
    assert name == "relay duties fail"
    assert "effects has not succeeded for 70 s: 1 iterations failed, the last with: store_unavailable: away" in detail
    assert "pauses" not in detail, "it works every 30 s and is not late yet"

    with serving(tmp_path / "door", database_url, valkey_url) as door:
        health = httpx.get(f"{door.url}/health").json()
        assert (health["status"], health["parts"]["relay"]["failing"]) == ("degraded", ["effects"])
        assert 'darkroom_relay_failing{duty="effects"} 1.0' in httpx.get(f"{door.url}/metrics").text

        database.run(duties.succeeded("effects"))
        database.run(duties.succeeded("pauses"))
        assert database.run(alerts.relay_alerts()) == {}
        # The response is kept for a second.
        assert wait_until(lambda: httpx.get(f"{door.url}/health").json()["parts"]["relay"]["failing"] == [])
        stamp = 'darkroom_relay_last_success_timestamp_seconds{duty="effects"}'

        def last_success() -> float:
            lines = httpx.get(f"{door.url}/metrics").text.splitlines()
            return next(float(line.split()[1]) for line in lines if line.startswith(stamp))

        # Kept for a second as well, since it was last asked for, which was after the health.
        assert wait_until(lambda: abs(last_success() - time.time()) < 60)
        assert "darkroom_events_dead 0.0" in httpx.get(f"{door.url}/metrics").text

    database.run(Query(age, {"age": SILENT_SECONDS + 91}, len))
    database.run(Query("update relay_duties set succeeded_at = null returning name", {}, len))
    [detail] = database.run(alerts.relay_alerts()).values()
    assert "pauses has not succeeded for 151 s: its iteration does not end" in detail


def test_a_relay_that_starts_again_and_again_without_success_is_late(stores: Stores) -> None:
    database = stores.database
    database.run(duties.begin({"effects": 2.0, "pauses": 2.0}))
    hour = "interval '1 hour'"
    age = f"update relay_duties set started_at = started_at - {hour}, succeeded_at = succeeded_at - {hour}"
    for name in ("effects", "pauses"):
        database.run(duties.succeeded(name))
    database.run(duties.failed("effects", "prefect_unavailable: no response"))
    database.run(Query(age, {}, len))
    database.run(duties.begin({"effects": 2.0, "pauses": 2.0}))  # after an hour in which no relay ran
    assert not any(report.is_failing or report.failures for report in reports(stores).values())
    for _ in range(3):
        database.run(Query(age, {}, len))
        database.run(duties.succeeded("pauses"))
        database.run(duties.failed("effects", "prefect_unavailable: no response"))
        database.run(duties.begin({"effects": 2.0, "pauses": 2.0}))
    assert {name: report.is_failing for name, report in reports(stores).items()} == {"effects": True, "pauses": False}
    assert reports(stores)["effects"].failures == 3
