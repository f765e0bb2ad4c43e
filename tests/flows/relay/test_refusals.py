"""An event that alone is refused holds up no other, and one that is refused as all others are keeps its place."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NoReturn
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient

from deployments.commands.events import events as command
from flows.relay.effects import NEED_PREFECT, Effects
from flows.relay.refusals import REFUSALS
from flows.runs.orchestrator import Orchestrator, PrefectUnavailable
from storage.errors import DiskFull, LockTimeout, NotFound
from storage.postgres.connection import Query
from storage.postgres.events import outbox
from storage.postgres.events.outbox import MAX_FAILURES
from storage.postgres.jobs import jobs
from storage.postgres.search import search_queue
from storage.records.search.search import Kind
from storage.stores import Stores
from tests.flows.relay.test_effects import add, deploy, no_server, wait_is_over, waiting
from tests.flows.relay.test_passing_errors import failures, impatient
from tests.storage.makers import a_job, a_published_model, an_account

__all__ = ["impatient"]
BROKEN_START = "/create_flow_run"


@contextmanager
def refusing(prefect: SyncPrefectClient, words: str) -> Generator[SyncPrefectClient]:
    """A client of Prefect's server that returns 500 to whatever has these words in its path or body."""
    server_url = str(prefect.api_url).removesuffix("/").removesuffix("/api")

    class Forwarding(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if words in self.path or words.encode() in body:
                status, content = 500, b'{"exception_message": "Internal Server Error"}'
            else:
                kept = {"content-type": self.headers.get("Content-Type", "application/json")}
                kept |= {name: value for name, value in self.headers.items() if name.lower().startswith("prefect")}
                response = httpx.request(
                    self.command, f"{server_url}{self.path}", content=body, headers=kept, timeout=60
                )
                status, content = response.status_code, response.content
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = _forward  # noqa: N815 - the names that the server calls

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Forwarding) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with SyncPrefectClient(api=f"http://127.0.0.1:{server.server_port}/api") as client:
                yield client
        finally:
            server.shutdown()


def started(stores: Stores, job_id: UUID) -> bool:
    return stores.database.run(jobs.get(job_id)).flow_run_id is not None


def queued_models(stores: Stores) -> dict[int, int]:
    """How often each model changed that waits for the search index."""
    return {row.id: row.changes for row in stores.database.run(search_queue.due(10)) if row.kind is Kind.MODEL}


def raising(stores: Stores, table: str, event: str, when: str) -> None:
    """Have Postgres say that the disk is full when a row is written."""
    body = "$$ begin raise exception 'no space left' using errcode = '53100'; end $$"
    function = f"create or replace function full_disk() returns trigger language plpgsql as {body}"
    stores.database.run(Query(function, {}, len))
    trigger = f"create trigger full_disk_{table} before {event} on {table} for each row when ({when})"
    stores.database.run(Query(f"{trigger} execute function full_disk()", {}, len))


def roomy(stores: Stores, *tables: str) -> None:
    for table in tables:
        stores.database.run(Query(f"drop trigger full_disk_{table} on {table}", {}, len))


def test_a_job_that_prefect_alone_refuses_is_given_up_and_the_others_start(
    stores: Stores, prefect: SyncPrefectClient
) -> None:
    deploy(prefect)
    refused, cancelled, other = (a_job(stores.database) for _ in range(3))
    [poison] = [row.id for row in stores.database.run(outbox.of_subject(f"job:{refused.id}"))]
    with refusing(prefect, str(refused.id)) as client:
        effects = Effects(stores, Orchestrator(client))
        for _ in range(REFUSALS - 1):
            with pytest.raises(PrefectUnavailable, match="500"):
                effects.drain()
            assert failures(stores)[0] == 0, "it may still be Prefect that is unavailable"
        effects.drain()
        assert (started(stores, cancelled.id), started(stores, other.id)) == (True, True)
        assert (waiting(stores), failures(stores)) == ([poison], [1])
        for count in range(2, MAX_FAILURES + 1):
            wait_is_over(stores)
            with pytest.raises(PrefectUnavailable):
                effects.drain()
            assert failures(stores) == [count - 1], "nothing else was asked for, so Prefect may be unavailable"
            another = a_job(stores.database)
            effects.drain()
            assert started(stores, another.id)
    [aside] = stores.database.run(outbox.dead_events())
    assert (aside.id, aside.failures) == (poison, MAX_FAILURES)
    assert aside.last_error == "prefect_unavailable: Prefect returns 500."


def test_while_prefect_refuses_all_that_it_is_asked_for_no_failure_counts(
    stores: Stores, prefect: SyncPrefectClient
) -> None:
    deploy(prefect)
    submitted = [a_job(stores.database) for _ in range(3)]
    stale = a_job(stores.database)
    stores.database.run(jobs.cancel(stale.id, stale.account_id))
    with refusing(prefect, BROKEN_START) as client:  # it reads, and cannot write
        effects = Effects(stores, Orchestrator(client))
        for _ in range(MAX_FAILURES + 2):
            with pytest.raises(PrefectUnavailable):
                effects.drain()
            assert not any(failures(stores))
            wait_is_over(stores)
    Effects(stores, Orchestrator(prefect)).drain()
    assert all(started(stores, job.id) for job in submitted)


class Slow(Orchestrator):
    """Refuses after a time in which the claim of whoever asks has run out."""

    def __init__(self, prefect: SyncPrefectClient, stores: Stores) -> None:
        super().__init__(prefect)
        self.stores, self.asked = stores, 0

    def start(self, *_: object, **__: object) -> NoReturn:
        self.asked += 1
        assert self.asked < 20, "one iteration never ends"
        wait_is_over(self.stores)
        raise PrefectUnavailable("Prefect does not respond (ReadTimeout).")


def test_an_outage_in_which_each_try_outlasts_its_claim_counts_as_no_failure(
    stores: Stores, prefect: SyncPrefectClient
) -> None:
    deploy(prefect)
    for _ in range(2):
        a_job(stores.database)
    slow = Slow(prefect, stores)
    effects = Effects(stores, slow)
    for iteration in range(1, 2 * REFUSALS):
        with pytest.raises(PrefectUnavailable):
            effects.drain()
        assert slow.asked <= 2 * iteration, "an event is tried once in an iteration"
        assert failures(stores) == [0, 0]


def test_a_row_that_stays_locked_holds_up_no_other_event(
    stores: Stores, impatient: Stores, prefect: SyncPrefectClient
) -> None:
    deploy(prefect)
    held, other = a_job(stores.database), a_job(stores.database)
    effects = Effects(impatient, Orchestrator(prefect))
    with stores.database.connect() as operator:
        operator.execute("begin")
        operator.execute("select from jobs where id = %s for update", (held.id,))
        for _ in range(REFUSALS - 1):
            with pytest.raises(LockTimeout):
                effects.drain()
        effects.drain()
        assert started(stores, other.id)
        assert failures(stores) == [1]
        operator.execute("rollback")
    wait_is_over(stores)
    effects.drain()
    assert started(stores, held.id)


def test_changes_go_on_although_one_of_them_stays_locked(
    stores: Stores, impatient: Stores, prefect: SyncPrefectClient
) -> None:
    owner = an_account(stores.database)
    held, other = (a_published_model(stores.database, owner, name).id for name in ("held", "other"))
    Effects(stores, Orchestrator(prefect)).drain()
    before = queued_models(stores)
    for model in (held, other):
        touch = "update models set description = description || 'x' where id = %(id)s"
        stores.database.run(Query(touch, {"id": model}, len))
    effects = Effects(impatient, Orchestrator(prefect))
    with stores.database.connect() as operator:
        operator.execute("begin")
        operator.execute("select from search_queue where kind = 'models' and id = %s for update", (held,))
        for _ in range(REFUSALS):
            try:
                effects.drain()
            except LockTimeout:
                continue
        operator.execute("rollback")
    after = queued_models(stores)
    assert (after[held], after[other]) == (before[held], before[other] + 1)
    assert failures(stores) == [1]


def test_events_that_need_no_prefect_have_their_effect_while_it_is_unavailable(stores: Stores) -> None:
    job = a_job(stores.database)
    a_published_model(stores.database, an_account(stores.database))
    with no_server() as nobody:
        effects = Effects(stores, Orchestrator(nobody), without=NEED_PREFECT)
        assert effects.drain() > 0
        in_prefect = Effects(stores, Orchestrator(nobody), only=NEED_PREFECT)
        with pytest.raises(PrefectUnavailable):
            in_prefect.drain()
    [row] = stores.database.run(outbox.of_subject(f"job:{job.id}"))
    assert waiting(stores) == [row.id]


def test_a_full_disk_sets_no_event_aside_and_mends_itself(stores: Stores, prefect: SyncPrefectClient) -> None:
    effects = Effects(stores, Orchestrator(prefect))
    model = a_published_model(stores.database, an_account(stores.database))
    count = len(waiting(stores))
    raising(stores, "search_queue", "insert", "true")
    for returns_places in (True, False):
        if not returns_places:  # there is no room even to say that the event keeps its place
            raising(stores, "outbox", "update", "new.failures < old.failures")
        for _ in range(MAX_FAILURES + 1):
            with pytest.raises(DiskFull):
                effects.iterate()
            wait_is_over(stores)
    roomy(stores, "search_queue", "outbox")
    effects.iterate()
    assert (waiting(stores), stores.database.run(outbox.dead_events())) == ([], [])
    assert count > 0
    assert model.id in queued_models(stores)


def test_an_event_that_waits_can_be_discarded_and_replayed(
    stores: Stores, prefect: SyncPrefectClient, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    job = a_job(stores.database)
    [row] = stores.database.run(outbox.of_subject(f"job:{job.id}"))
    with (
        no_server() as nobody,
        pytest.raises(PrefectUnavailable),
    ):
        Effects(stores, Orchestrator(nobody)).drain()
    command.list_in_trouble()
    assert f"{row.id}" in capsys.readouterr().out
    command.replay([row.id])
    command.discard([row.id])
    assert waiting(stores) == []
    broken = add(stores, "job.unheard_of", "job:1")
    Effects(stores, Orchestrator(prefect)).drain()
    command.replay([broken])
    assert failures(stores) == [0]
    for act in (command.replay, command.discard):
        with pytest.raises(NotFound, match="darkroom events list"):
            act([row.id])
