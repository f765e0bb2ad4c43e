"""Search equals the catalogue, on both engines, whatever is written and whatever dies meanwhile.

Accounts and models are made, changed, hidden, deleted, counted and banned at random; drains and rebuilds run in
processes of their own and are killed at each of their steps; a reader asks all the time, as the API does.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from flows.indexing.builds import index_faults
from flows.indexing.documents import read_rows
from flows.indexing.new_builds import ensure_live_builds
from flows.indexing.queue_drain import drain
from flows.upkeep.reconcile import check_invariants
from storage.postgres.accounts import accounts
from storage.postgres.connection import Query, Script
from storage.postgres.search import search_queue, search_sources
from storage.records.events.events import Lane
from storage.records.search.search import FACETS, SORTS, Kind, SearchQuery
from storage.settings import JobSettings, MlflowSettings, PostgresSettings, RedisSettings, SearchSettings, Settings
from storage.stores import Stores, open_async_stores, open_stores
from tests.contracts import oracle
from tests.faults.catalogue import WORDS, Reader, World
from tests.flows.indexing.processes import DRAIN_STEPS, REBUILD_STEPS, drain_once, rebuild_once, run_flow
from tests.no_prefect import effects_without_prefect
from tests.storage.makers import a_published_model, an_account, an_image

LAST_WRITES, LATE_SECONDS = 60, 900.0
STEPS = (*DRAIN_STEPS, *REBUILD_STEPS)
"""Where drains and rebuilds are killed."""


@pytest.fixture(params=["embedded", "elasticsearch"])
def stores(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[Stores]:
    """Stores on one engine, without an encoder and without MLflow; every kind has an empty index."""
    url = request.getfixturevalue("elasticsearch_url") if request.param == "elasticsearch" else ""
    settings = Settings(
        data_folder=tmp_path,
        postgres=PostgresSettings(url=SecretStr(database_url)),
        redis=RedisSettings(url=SecretStr("redis://127.0.0.1:9/0")),
        mlflow=MlflowSettings(url="http://127.0.0.1:9"),
        jobs=JobSettings(patience_seconds=120),
        search=SearchSettings(
            elasticsearch_url=SecretStr(url),
            index_prefix=f"test-{uuid.uuid4().hex[:12]}",
            encoder_folder="off",
            timeout_seconds=60,
        ),
    )
    with open_stores(settings) as opened:
        ensure_live_builds(opened)
        yield opened
        for number in opened.search.existing():
            opened.search.drop_stray(number)


def follow(stores: Stores, stop: threading.Event) -> None:
    """What the relay does, with counts made due at once."""
    while not stop.is_set():
        effects_without_prefect(stores).drain()
        stores.database.run(Query("update search_queue set due_at = now() where due_at > now()", {}, len))
        stop.wait(0.02)


def kill_at_each_step(stores: Stores, folder: Path, writing: threading.Event, killed: set[str]) -> None:
    """Drain and rebuild while somebody writes, killed at each step in turn, then whole; `killed` gets those steps."""
    kinds = itertools.cycle(Kind)
    while writing.is_set():
        for step in (*STEPS, ""):
            kind = next(kinds)
            died = run_flow(drain_once, stores.settings, kind, kill_at=step, folder=folder)
            if not died and step not in DRAIN_STEPS:
                died = run_flow(rebuild_once, stores.settings, kind, kill_at=step, folder=folder)
            if died:
                killed.add(step)


def settle(stores: Stores) -> None:
    """Nothing happens any more: what waits is written."""
    effects_without_prefect(stores).drain()
    stores.database.run(Query("update search_queue set due_at = now()", {}, len))
    drain(stores)
    lag = stores.database.run(search_queue.lag())
    assert (lag.waiting, lag.oldest_seconds, lag.dead_letters) == (0, 0, 0)
    assert index_faults(stores) == []  # and what was written is found from now on


async def compare_responses(stores: Stores) -> None:
    """Every order, facet and word returns what the rows give when each of them is looked at."""
    async with open_async_stores(stores.settings) as reading:
        for kind in Kind:
            ids = [number for number, _ in stores.database.run(search_sources.revisions(kind, 0, 1000))]
            documents = read_rows(stores, kind, ids).documents
            asked = [SearchQuery(sort=sort, facets=FACETS[kind], limit=1000) for sort in SORTS[kind]]
            asked += [SearchQuery(text=word, limit=1000) for word in (*WORDS, "steady", "creator", "xx")]
            for query in asked:
                response = await reading.search.find(kind, query)
                assert [hit.id for hit in response.hits] == [hit.id for hit in oracle.matches(documents, query, kind)]
                assert response.facets == {facet: oracle.facet(documents, query, facet, kind) for facet in query.facets}


@pytest.mark.timeout(86400)
@pytest.mark.parametrize(
    ("writes", "together"),
    [
        pytest.param(600, 20, marks=pytest.mark.timeout(1800)),  # rows to a commit
        pytest.param(10_000, 20, marks=pytest.mark.soak),
        pytest.param(10_000, 1, marks=pytest.mark.soak),
        pytest.param(1_000_000, 100, marks=pytest.mark.soak),
    ],
)
def test_search_equals_the_catalogue_whatever_is_written_and_whatever_dies(
    stores: Stores, tmp_path: Path, writes: int, together: int
) -> None:
    world = World(stores, seed=writes)
    settle(stores)
    reader = Reader(stores.settings, world.steady)
    stop, writing, killed = threading.Event(), threading.Event(), set[str]()
    failures: list[Exception] = []
    writing.set()

    def write() -> None:
        """So much, and then on until something was killed at every step meanwhile, or will not be."""
        try:
            for _ in range(writes // together):
                world.write(together)
            late = time.monotonic() + LATE_SECONDS
            while not stop.is_set() and len(killed) < len(STEPS) and time.monotonic() < late:
                world.write(together)
                stop.wait(0.5)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test says so
            failures.append(error)
        finally:
            writing.clear()

    threads = [
        threading.Thread(target=write),
        threading.Thread(target=follow, args=(stores, stop)),
        threading.Thread(target=lambda: asyncio.run(reader.read(stop))),
    ]
    for thread in threads:
        thread.start()
    try:
        kill_at_each_step(stores, tmp_path, writing, killed)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert killed == set(STEPS)
    for _ in range(LAST_WRITES):  # no rebuild comes after these
        world.write()
    settle(stores)
    asyncio.run(compare_responses(stores))
    assert reader.faults == []
    assert reader.responses > max(3, 10 * reader.refusals)
    assert sum(reader.likes.values()) > 0


def test_an_index_that_is_not_its_rows_is_a_fault(stores: Stores) -> None:
    model = a_published_model(stores.database, an_account(stores.database))
    image = an_image(stores.database, model)
    settle(stores)

    def hide_without_telling() -> Script[None]:
        yield from Query("set local session_replication_role = replica", {}, len)
        yield from Query("update models set listed = false", {}, len)

    stores.database.run(hide_without_telling())
    creator = stores.database.run(accounts.account(model.account_id)).number
    expected = [
        f"the search index of {kind} is not its rows: 1 differ, {number} among them"
        for kind, number in ((Kind.MODEL, model.id), (Kind.IMAGE, image), (Kind.CREATOR, creator))
    ]
    assert [fault for fault in check_invariants(stores) if "index" in fault] == expected
    stores.database.run(search_queue.add(Kind.IMAGE, [image], Lane.EDITS))
    assert index_faults(stores) == [expected[0], expected[2]]
