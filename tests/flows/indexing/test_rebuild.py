"""A rebuild goes on beside reads and writes, and leaves the old index in place wherever it dies."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from flows.indexing import builds
from flows.indexing import rebuild as rebuilding
from flows.indexing.new_builds import begin, ensure_live_builds
from flows.indexing.queue_drain import drain
from flows.indexing.rebuild import rebuild
from flows.runs.flow_names import REBUILD
from flows.upkeep.reconcile import reconcile_search
from storage.errors import StoreUnavailable, WrongState
from storage.postgres.catalog import models
from storage.postgres.connection import Query, column
from storage.postgres.search import search_builds
from storage.records.search.search import Build, BuildState, Kind
from storage.settings import JobSettings, SearchSettings, Settings
from storage.stores import open_stores
from tests.flows.indexing.conftest import Catalogue
from tests.flows.indexing.processes import REBUILD_STEPS, rebuild_once, run_flow
from tests.storage.makers import a_published_model


def published(catalogue: Catalogue, count: int) -> list[int]:
    """The ids of new listed models; their events are not taken yet."""
    made = [a_published_model(catalogue.stores.database, catalogue.owner, f"mug {number}") for number in range(count)]
    return [model.id for model in made]


def test_a_rebuild_has_every_listed_row_and_is_read(catalogue: Catalogue) -> None:
    before = catalogue.live()
    published(catalogue, 5)
    catalogue.take_events()
    build = rebuild(catalogue.stores, Kind.MODEL)
    assert catalogue.live().id == catalogue.stores.search.reading(Kind.MODEL) == build.id
    assert len(catalogue.listed()) == 5
    assert catalogue.indexed() == catalogue.listed()
    assert catalogue.stores.database.run(search_builds.written(Kind.MODEL, build.engine))[0].id == before.id


def test_shards_are_filled_side_by_side(catalogue: Catalogue) -> None:
    published(catalogue, 7)
    catalogue.take_events()
    rebuild(catalogue.stores, Kind.MODEL, shard=3)
    assert catalogue.indexed() == catalogue.listed()


@pytest.mark.parametrize("search_settings", ["embedded"], indirect=True)
def test_a_large_build_keeps_its_vectors_in_several_graphs(
    catalogue: Catalogue, search_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(catalogue, 5)
    catalogue.take_events()
    monkeypatch.setattr("flows.indexing.new_builds.SEGMENT", 2)
    encoding = search_settings.search.model_copy(update={"encoder_folder": SearchSettings().encoder_folder})
    with open_stores(search_settings.model_copy(update={"search": encoding})) as stores:
        build = rebuild(stores, Kind.MODEL)
    assert build.vector_segments == 3
    graphs = "select indexname as name from pg_indexes where tablename = %(table)s and indexdef like '%% hnsw %%'"
    made = catalogue.stores.database.run(column(graphs, {"table": f"search_build_{build.id}"}, str))
    assert len(made) == build.vector_segments


def test_the_old_build_stays_for_open_readers_and_goes_later(catalogue: Catalogue) -> None:
    before = catalogue.live()
    build = rebuild(catalogue.stores, Kind.MODEL)
    assert builds.drop_retired(catalogue.stores) == []
    assert before.id in catalogue.stores.search.existing()
    assert [old.id for old in builds.drop_retired(catalogue.stores, after_seconds=0)] == [before.id]
    assert catalogue.stores.search.existing() == [build.id]


@pytest.mark.parametrize("search_settings", ["embedded"], indirect=True)
def test_two_rebuilds_of_a_kind_do_not_run_at_once(catalogue: Catalogue) -> None:
    with (
        catalogue.stores.database.session_lock(f"{REBUILD}:models") as held,
        pytest.raises(WrongState, match="running already"),
    ):
        assert held
        rebuild(catalogue.stores, Kind.MODEL)


@pytest.mark.parametrize("search_settings", ["embedded"], indirect=True)
def test_without_a_relay_the_old_index_stays_and_the_reason_is_told(
    catalogue: Catalogue, search_settings: Settings
) -> None:
    before = catalogue.live()
    published(catalogue, 1)
    hasty = search_settings.model_copy(update={"jobs": JobSettings(patience_seconds=0.3)})
    with open_stores(hasty) as stores, pytest.raises(StoreUnavailable, match="relay"):
        rebuild(stores, Kind.MODEL)
    assert catalogue.live().id == before.id


@pytest.mark.parametrize(
    ("search_settings", "step"),
    [
        *(("embedded", step) for step in ("load", "complete", "write", "refresh", "revisions", "swap")),
        # Which call is tried again is the same for both engines.
        *(("elasticsearch", step) for step in ("load", "swap")),
    ],
    indirect=["search_settings"],
)
def test_a_store_that_is_busy_for_a_moment_costs_a_rebuild_nothing_but_time(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    a_published_model(catalogue.stores.database, catalogue.owner)
    catalogue.take_events()
    search, refusals = catalogue.stores.search, list[StoreUnavailable]()
    call, fill = getattr(search, step), rebuilding.fill

    def fill_then_catch_up(*arguments: Any, **named: Any) -> int:
        rows = fill(*arguments, **named)
        if step != "load":
            refusals.append(StoreUnavailable("Too busy."))
        return rows

    def busy_once(*arguments: Any, **named: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return call(*arguments, **named)

    if step == "load":
        refusals.append(StoreUnavailable("Too busy."))
    monkeypatch.setattr(rebuilding, "fill", fill_then_catch_up)
    monkeypatch.setattr(search, step, busy_once)
    assert rebuild(catalogue.stores, Kind.MODEL).id == catalogue.live().id
    assert refusals == []
    assert catalogue.indexed() == catalogue.listed()


def test_what_a_build_lacks_has_older_or_should_not_have_is_mended(catalogue: Catalogue) -> None:
    first, second, third = published(catalogue, 3)
    catalogue.take_events()
    drain(catalogue.stores)
    live = catalogue.live()
    database = catalogue.stores.database
    catalogue.touch(first, "update models set description = 'newer' where id = %(id)s returning id")
    database.run(models.unpublish(database.run(models.lock(second))))
    catalogue.stores.search.drop(live)
    catalogue.stores.search.create(live)
    catalogue.stores.search.complete(live)
    assert builds.repair(catalogue.stores, live) == 2
    assert [identity for identity, _ in catalogue.indexed()] == [first, third]
    database.run(models.unpublish(database.run(models.lock(third))))
    assert builds.repair(catalogue.stores, live) == 1
    assert catalogue.indexed() == catalogue.listed()
    assert builds.repair(catalogue.stores, live) == 0


def test_differences_are_found_across_pages(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = published(catalogue, 9)
    catalogue.take_events()
    drain(catalogue.stores)
    assert catalogue.indexed() == catalogue.listed()
    monkeypatch.setattr(builds, "PAGE", 2)
    database = catalogue.stores.database
    for identity in ids[::3]:
        database.run(models.unpublish(database.run(models.lock(identity))))
    for identity in ids[1::3]:
        catalogue.touch(identity, "update models set description = 'newer' where id = %(id)s returning id")
    pages = list(builds.differences(catalogue.stores, catalogue.live()))
    assert sorted(number for missing, _ in pages for number in missing) == ids[1::3]
    assert sorted(number for _, extra in pages for number in extra) == ids[::3]


def test_an_index_that_no_row_names_is_dropped(catalogue: Catalogue) -> None:
    stray = begin(catalogue.stores, Kind.MODEL)
    catalogue.stores.database.run(search_builds.forget(stray.id))
    assert builds.drop_strays(catalogue.stores) == [stray.id]
    assert catalogue.stores.search.existing() == [catalogue.live().id]
    assert builds.drop_strays(catalogue.stores) == []


def test_a_kind_without_an_index_gets_one_that_is_filled_by_the_next_drain(catalogue: Catalogue) -> None:
    published(catalogue, 2)
    catalogue.take_events()
    ensure_live_builds(catalogue.stores)
    assert ensure_live_builds(catalogue.stores) == []
    drain(catalogue.stores)
    catalogue.stores.database.run(search_builds.retire_live(Kind.MODEL, catalogue.stores.search.engine))
    for build in builds.drop_retired(catalogue.stores, after_seconds=0):
        assert build.state is BuildState.RETIRED
    [made] = ensure_live_builds(catalogue.stores)
    assert (made.kind, catalogue.live().id, catalogue.indexed()) == (Kind.MODEL, made.id, [])
    assert drain(catalogue.stores) == 2
    assert catalogue.indexed() == catalogue.listed()


@pytest.mark.parametrize(
    ("search_settings", "point"),
    [
        *(("embedded", step) for step in REBUILD_STEPS),
        *(("elasticsearch", f"rebuild-{step}") for step in ("batch-written", "swapped")),
    ],
    indirect=["search_settings"],
)
def test_a_rebuild_that_is_killed_leaves_a_whole_index_and_the_next_one_clears_up(
    catalogue: Catalogue, search_settings: Settings, tmp_path: Path, point: str
) -> None:
    published(catalogue, 3)
    catalogue.take_events()
    drain(catalogue.stores)
    assert run_flow(rebuild_once, search_settings, Kind.MODEL, kill_at=point, folder=tmp_path)
    reading = catalogue.stores.search.reading(Kind.MODEL)
    assert catalogue.live().id == reading
    assert catalogue.indexed() == catalogue.listed()
    build = rebuilt_once_the_dead_one_is_noticed(catalogue)
    assert catalogue.indexed() == catalogue.listed()
    states = {row.id: row.state for row in catalogue.stores.database.run(search_builds.of_engine(build.engine))}
    assert set(states.values()) == {BuildState.LIVE, BuildState.RETIRED}
    assert catalogue.stores.search.existing() == sorted(states)


def rebuilt_once_the_dead_one_is_noticed(catalogue: Catalogue) -> Build:
    """A rebuild; Postgres holds the lock of a process that was killed until it notices, which takes it a moment."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return rebuild(catalogue.stores, Kind.MODEL)
        except WrongState:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("search_settings", ["elasticsearch"], indirect=True)
def test_after_a_death_between_the_swap_and_its_row_the_row_is_mended(catalogue: Catalogue) -> None:
    published(catalogue, 1)
    catalogue.take_events()
    build = rebuild(catalogue.stores, Kind.MODEL)
    database = catalogue.stores.database
    old = search_builds.written(Kind.MODEL, build.engine)
    [before, *_] = database.run(old)
    database.run(
        Query("update search_builds set state = 'building' where id = %(id)s returning id", {"id": build.id}, len)
    )
    restore = "update search_builds set state = 'live', retired_at = null where id = %(id)s returning id"
    database.run(Query(restore, {"id": before.id}, len))
    assert builds.clear_unfinished(catalogue.stores, Kind.MODEL) == []
    assert catalogue.live().id == build.id


def test_reconcile_mends_a_missing_index_a_stray_one_and_rows_that_differ(catalogue: Catalogue) -> None:
    published(catalogue, 3)
    catalogue.take_events()
    ensure_live_builds(catalogue.stores)
    drain(catalogue.stores)
    assert reconcile_search(catalogue.stores) == []
    live = catalogue.live()
    stray = begin(catalogue.stores, Kind.MODEL)
    catalogue.stores.database.run(search_builds.forget(stray.id))
    catalogue.stores.search.drop(live)
    catalogue.stores.search.create(live)
    catalogue.stores.search.complete(live)
    catalogue.stores.search.swap(live)
    assert reconcile_search(catalogue.stores) == [
        f"search index {stray.id} was named by no row: dropped",
        "3 models differed in the search index: written again",
    ]
    assert catalogue.indexed() == catalogue.listed()
    assert reconcile_search(catalogue.stores) == []
