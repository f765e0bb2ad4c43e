"""Every change of the catalogue reaches the index, once, in its lane, whatever happens in between."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from flows.indexing import builds, queue_drain
from flows.indexing.new_builds import begin
from flows.indexing.queue_drain import drain, drain_batch
from flows.indexing.sync import drain_until_idle
from flows.runs.flow_names import SYNC
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Query
from storage.postgres.search import search_queue
from storage.postgres.upkeep import pauses
from storage.records.events.events import Lane
from storage.records.metrics.freshness import Switch
from storage.records.search.search import Kind, Removal
from storage.settings import Settings
from tests.flows.indexing.conftest import Catalogue
from tests.flows.indexing.processes import DRAIN_STEPS, drain_once, run_flow
from tests.storage.makers import a_model, a_published_model


def test_what_is_published_is_found_and_what_is_hidden_is_not(catalogue: Catalogue) -> None:
    database = catalogue.stores.database
    kept = a_published_model(database, catalogue.owner, "kept")
    hidden = a_published_model(database, catalogue.owner, "hidden")
    a_model(database, catalogue.owner, "draft")
    catalogue.take_events()
    assert drain(catalogue.stores) == 3
    assert [identity for identity, _ in catalogue.indexed()] == [kept.id, hidden.id]
    database.run(models.unpublish(hidden))
    catalogue.take_events()
    assert drain(catalogue.stores) == 1
    assert catalogue.indexed() == catalogue.listed() == [(kept.id, database.run(catalog.model_by_id(kept.id)).revision)]


def test_a_deleted_model_stays_unavailable_from_an_older_document(catalogue: Catalogue) -> None:
    database = catalogue.stores.database
    model = a_published_model(database, catalogue.owner)
    catalogue.take_events()
    drain(catalogue.stores)
    database.run(models.delete(model, "spam"))
    catalogue.take_events()
    drain(catalogue.stores)
    gone = database.run(catalog.model_by_id(model.id))
    assert gone.revision > model.revision
    written = catalogue.stores.search.write(catalogue.live(), [], [Removal(id=model.id, revision=model.revision)])
    assert written.superseded == 1
    assert catalogue.indexed() == []


@pytest.mark.parametrize("search_settings", ["embedded"], indirect=True)
def test_an_id_waits_once_in_its_most_urgent_lane(catalogue: Catalogue) -> None:
    database = catalogue.stores.database
    for lane in (Lane.COUNTS, Lane.EDITS, Lane.VISIBILITY, Lane.COUNTS):
        database.run(search_queue.add(Kind.MODEL, [7, 7, 8], lane))
    assert [(row.id, row.lane, row.changes) for row in database.run(search_queue.due(10))] == [(7, 1, 4), (8, 1, 4)]


@pytest.mark.parametrize("search_settings", ["embedded"], indirect=True)
def test_counts_wait_for_more_and_come_last(catalogue: Catalogue) -> None:
    database = catalogue.stores.database
    database.run(search_queue.add(Kind.MODEL, [1], Lane.COUNTS))
    assert database.run(search_queue.due(10)) == []
    later = database.run(search_queue.next_due())
    assert later is not None
    assert 0 < later <= search_queue.COUNTS_DELAY_SECONDS
    database.run(Query("update search_queue set due_at = now()", {}, len))
    database.run(search_queue.add(Kind.MODEL, [2], Lane.EDITS))
    database.run(search_queue.add(Kind.MODEL, [3], Lane.VISIBILITY))
    assert [row.id for row in database.run(search_queue.due(10))] == [3, 2, 1]


def test_a_row_that_changes_while_it_is_written_is_written_again(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = catalogue.stores.database
    model = a_published_model(database, catalogue.owner)
    catalogue.take_events()

    def change_then_write(*arguments: Any) -> None:
        write(*arguments)
        catalogue.touch(model.id, "update models set description = 'changed' where id = %(id)s returning id")
        catalogue.take_events()

    write = queue_drain.write_everywhere
    with monkeypatch.context() as patched:
        patched.setattr(queue_drain, "write_everywhere", change_then_write)
        assert drain_batch(catalogue.stores) == 1
    assert catalogue.indexed() != catalogue.listed()
    assert drain(catalogue.stores) == 1
    assert catalogue.indexed() == catalogue.listed()


@pytest.fixture
def restless(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> int:
    """A model that changes again whenever a batch is written."""
    model = a_published_model(catalogue.stores.database, catalogue.owner, "restless")
    catalogue.take_events()
    write = queue_drain.write_everywhere

    def write_then_change(*arguments: Any) -> None:
        write(*arguments)
        catalogue.touch(model.id, "update models set description = description || 'x' where id = %(id)s returning id")
        catalogue.take_events()

    monkeypatch.setattr(queue_drain, "write_everywhere", write_then_change)
    return model.id


def test_a_row_that_never_rests_lets_others_go_first_and_is_as_old_as_its_last_reading(
    catalogue: Catalogue, restless: int
) -> None:
    stores = catalogue.stores
    stores.database.run(Query("update search_queue set queued_at = now() - interval '1 hour'", {}, len))
    assert stores.database.run(search_queue.lag()).oldest_seconds >= 3600
    drain_batch(stores)
    assert stores.database.run(search_queue.lag()).oldest_seconds < 600
    stores.database.run(search_queue.add(Kind.MODEL, [restless + 1], Lane.VISIBILITY))
    stores.database.run(search_queue.add(Kind.MODEL, [restless], Lane.VISIBILITY))
    drain_batch(stores, limit=1)
    assert [row.id for row in stores.database.run(search_queue.due(10)) if row.kind is Kind.MODEL] == [
        restless + 1,
        restless,
    ]


@pytest.mark.parametrize("search_settings", ["embedded"], indirect=True)
def test_counts_that_change_while_they_are_written_wait_for_more(catalogue: Catalogue, restless: int) -> None:
    stores = catalogue.stores
    stores.database.run(Query("delete from search_queue", {}, len))
    stores.database.run(search_queue.add(Kind.MODEL, [restless], Lane.COUNTS))
    stores.database.run(Query("update search_queue set due_at = now()", {}, len))
    [row] = stores.database.run(search_queue.due(10))
    stores.database.run(search_queue.add(Kind.MODEL, [restless], Lane.COUNTS))
    stores.database.run(search_queue.done([row]))
    later = stores.database.run(search_queue.next_due())
    assert later is not None
    assert later > search_queue.COUNTS_DELAY_SECONDS / 2


def test_a_rebuild_catches_up_and_a_drain_stops_though_a_row_never_rests(catalogue: Catalogue, restless: int) -> None:
    builds.catch_up(catalogue.stores, patience_seconds=20)
    assert drain(catalogue.stores, seconds=0.5) > 1
    assert catalogue.indexed()[0][0] == restless


def test_a_document_that_the_engine_refuses_is_on_the_list_until_it_is_written(catalogue: Catalogue) -> None:
    database = catalogue.stores.database
    good = a_published_model(database, catalogue.owner, "good")
    bad = a_published_model(database, catalogue.owner, "bad")
    far = "update model_versions set published_at = '270000-01-01' where model_id = %(id)s returning id"
    catalogue.touch(bad.id, far)
    catalogue.take_events()
    drain(catalogue.stores)
    [letter] = database.run(search_queue.dead_letters())
    assert (letter.kind, letter.id, bool(letter.error)) == (Kind.MODEL, bad.id, True)
    assert [identity for identity, _ in catalogue.indexed()] == [good.id]
    assert database.run(search_queue.lag()).dead_letters == 1
    catalogue.touch(bad.id, far.replace("270000", "2025"))
    catalogue.take_events()
    drain(catalogue.stores)
    assert database.run(search_queue.dead_letters()) == []
    assert catalogue.indexed() == catalogue.listed()


def test_every_live_build_is_written_and_the_one_that_is_read_comes_last(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = begin(catalogue.stores, Kind.MODEL)
    order: list[int] = []
    write = type(catalogue.stores.search).write

    def noted(writer: Any, build: Any, *arguments: Any) -> Any:
        order.append(build.id)
        return write(writer, build, *arguments)

    monkeypatch.setattr(type(catalogue.stores.search), "write", noted)
    a_published_model(catalogue.stores.database, catalogue.owner)
    catalogue.take_events()
    drain(catalogue.stores)
    assert order == [beside.id, catalogue.live().id]
    assert catalogue.indexed(beside) == catalogue.indexed() == catalogue.listed()


def test_a_build_that_is_dropped_while_a_drain_knows_it_does_no_harm(catalogue: Catalogue) -> None:
    beside = begin(catalogue.stores, Kind.MODEL)
    catalogue.stores.search.drop(beside)
    a_published_model(catalogue.stores.database, catalogue.owner)
    catalogue.take_events()
    with pytest.raises(Exception, match="any more"):
        drain(catalogue.stores)
    builds.drop(catalogue.stores, beside)
    assert drain(catalogue.stores) == 1
    assert catalogue.indexed() == catalogue.listed()
    assert catalogue.stores.search.existing() == [catalogue.live().id]


@pytest.mark.parametrize("search_settings", ["embedded"], indirect=True)
def test_lag_counts_what_waits_also_before_the_relay_took_it(catalogue: Catalogue) -> None:
    database = catalogue.stores.database
    assert database.run(search_queue.lag()).oldest_seconds == 0
    a_published_model(database, catalogue.owner)
    before = database.run(search_queue.lag())
    assert (before.waiting, before.oldest_seconds > 0) == (0, True)
    catalogue.take_events()
    assert database.run(search_queue.lag()).waiting == 1
    drain(catalogue.stores)
    after = database.run(search_queue.lag())
    assert (after.waiting, after.oldest_seconds) == (0, 0)


def test_a_drain_that_is_killed_is_repeated_by_the_next_one(
    catalogue: Catalogue, search_settings: Settings, tmp_path: Path
) -> None:
    for point in DRAIN_STEPS:
        a_published_model(catalogue.stores.database, catalogue.owner, point)
        catalogue.take_events()
        assert run_flow(drain_once, search_settings, Kind.MODEL, kill_at=point, folder=tmp_path)
        assert catalogue.stores.database.run(search_queue.lag()).waiting == 1
        assert drain(catalogue.stores) == 1
        assert catalogue.indexed() == catalogue.listed()


@pytest.mark.parametrize("search_settings", ["embedded"], indirect=True)
def test_a_drain_goes_on_while_more_comes_and_ends_when_nothing_does(catalogue: Catalogue) -> None:
    assert drain_until_idle(catalogue.stores, idle_seconds=0.1) == 0
    a_published_model(catalogue.stores.database, catalogue.owner, "first")
    catalogue.take_events()

    def publish_another() -> None:
        a_published_model(catalogue.stores.database, catalogue.owner, "second")
        catalogue.take_events()

    later = threading.Timer(0.3, publish_another)
    later.start()
    assert drain_until_idle(catalogue.stores, idle_seconds=3.0) >= 2
    later.join()
    assert catalogue.indexed() == catalogue.listed()


@pytest.mark.parametrize("search_settings", ["embedded"], indirect=True)
def test_a_drain_whose_flow_is_paused_ends_with_what_it_took(catalogue: Catalogue) -> None:
    catalogue.stores.database.run(pauses.add(SYNC, Switch.DARKROOM))
    a_published_model(catalogue.stores.database, catalogue.owner)
    catalogue.take_events()
    assert drain_until_idle(catalogue.stores, idle_seconds=3600.0) >= 1
    assert catalogue.indexed() == catalogue.listed()
