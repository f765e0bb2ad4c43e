"""What passes by waiting sets no event aside: a changed secret, a busy Prefect, a row that somebody holds."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.relay.effects import Effects
from flows.runs.orchestrator import Orchestrator, PrefectUnavailable
from storage.errors import LockTimeout
from storage.postgres.connection import Query
from storage.postgres.events import outbox
from storage.postgres.events.outbox import MAX_FAILURES
from storage.postgres.jobs import jobs
from storage.settings import Settings
from storage.stores import Stores, open_stores
from tests.flows.relay.test_effects import add, deploy, told, wait_is_over
from tests.storage.makers import a_job


@contextmanager
def responding(status: int) -> Generator[str]:
    """The address of a server that refuses whatever it is asked, as Prefect does with a wrong secret."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


def failures(stores: Stores) -> list[int]:
    """What counts against each event that waits."""
    statement = "select failures from outbox where done_at is null order by id"
    return stores.database.run(Query(statement, {}, lambda rows: [row["failures"] for row in rows]))


@pytest.fixture
def impatient(settings: Settings) -> Iterator[Stores]:
    """Stores that wait for no lock."""
    postgres = settings.postgres.model_copy(update={"lock_timeout_seconds": 0.05})
    with open_stores(settings.model_copy(update={"postgres": postgres})) as opened:
        yield opened


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500])
def test_a_prefect_that_lets_nobody_in_loses_no_event(stores: Stores, prefect: SyncPrefectClient, status: int) -> None:
    deploy(prefect)
    job = a_job(stores.database)
    with responding(status) as address, SyncPrefectClient(api=address) as refused:
        locked_out = Effects(stores, Orchestrator(refused))
        for _ in range(MAX_FAILURES + 1):
            with pytest.raises(PrefectUnavailable, match=str(status)):
                locked_out.drain()
            assert failures(stores) == [0]
            wait_is_over(stores)
    assert (stores.database.run(outbox.dead_events()), told(stores)) == ([], [])
    Effects(stores, Orchestrator(prefect)).drain()
    assert stores.database.run(jobs.get(job.id)).flow_run_id is not None


def test_a_row_that_is_held_for_too_long_counts_against_no_event(
    stores: Stores, impatient: Stores, prefect: SyncPrefectClient
) -> None:
    deploy(prefect)
    job = a_job(stores.database)
    effects = Effects(impatient, Orchestrator(prefect))
    with stores.database.connect() as other:
        other.execute("begin")
        other.execute("select from jobs where id = %s for update", (job.id,))
        for _ in range(MAX_FAILURES + 1):
            with pytest.raises(LockTimeout):
                effects.drain()
            assert failures(stores) == [0]
            wait_is_over(stores)
        other.execute("rollback")
    effects.drain()
    assert stores.database.run(jobs.get(job.id)).flow_run_id is not None


def test_changes_that_wait_for_a_lock_together_are_all_given_their_failure_back(
    stores: Stores, impatient: Stores, prefect: SyncPrefectClient
) -> None:
    payload = '{"model_ids": [1], "lane": "edits"}'
    for number in range(5):
        add(stores, "models.changed", f"models:{number}", payload)
    for broken in (False, True):  # a broken one has each tried by itself
        effects = Effects(impatient, Orchestrator(prefect))
        if broken:
            add(stores, "models.changed", "models", "{}")
        with stores.database.connect() as other:
            other.execute("begin")
            other.execute("lock table search_queue in access exclusive mode")
            for _ in range(3):
                with pytest.raises(LockTimeout):
                    effects.drain()
                assert not any(failures(stores))
                wait_is_over(stores)
            other.execute("rollback")
    Effects(stores, Orchestrator(prefect)).drain()
    assert failures(stores) == [1]
