"""Writing, on every engine: revisions never go back, builds are filled beside and swapped in one moment."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import msgspec
import pytest
from elasticsearch import Elasticsearch

from storage.errors import NotFound, StoreUnavailable
from storage.postgres.search import search_builds
from storage.records.search.search import Build, IndexDocument, Kind, Removal, SearchQuery
from storage.records.search.search_documents import ModelDocument
from storage.search.documents import models
from tests.contracts import corpus
from tests.contracts.conftest import Bench


def a_document(identity: int, revision: int = 1, name: str = "mug") -> IndexDocument:
    moment = corpus.START + timedelta(hours=identity)
    return models.build(
        ModelDocument(id=identity, revision=revision, name=name, creator="ada", type="LORA", published_at=moment)
    )


@pytest.fixture
def build(bench: Bench) -> Iterator[Build]:
    """An empty live build, dropped at the end."""
    made = bench.new_build()
    bench.publish(made)
    yield made
    bench.database.run(search_builds.retire_live(Kind.MODEL, bench.writer.engine))
    for old in bench.database.run(search_builds.written(Kind.MODEL, bench.writer.engine)):
        bench.writer.drop(old)
        bench.database.run(search_builds.forget(old.id))


def write(bench: Bench, build: Build, *changes: IndexDocument | Removal) -> tuple[int, int]:
    documents = [change for change in changes if isinstance(change, IndexDocument)]
    removals = [change for change in changes if isinstance(change, Removal)]
    written = bench.writer.write(build, documents, removals)
    bench.writer.refresh(build)
    assert written.refused == {}
    return written.stored, written.superseded


def test_a_newer_revision_replaces_and_an_older_one_is_passed_over(bench: Bench, build: Build) -> None:
    assert write(bench, build, a_document(1, 5, "old name"), a_document(2, 5, "other")) == (2, 0)
    assert write(bench, build, a_document(1, 6, "new name"), a_document(2, 4, "older")) == (1, 1)
    assert (bench.ids("new"), bench.ids("old"), bench.ids("older"), bench.ids("other")) == ([1], [], [], [2])
    assert bench.writer.revisions(build, after=0, limit=10) == [(1, 6), (2, 5)]


def test_writing_a_revision_again_changes_nothing(bench: Bench, build: Build) -> None:
    assert write(bench, build, a_document(1, 5)) == (1, 0)
    assert write(bench, build, a_document(1, 5)) == (1, 0)
    assert bench.ids("mug") == [1]


def test_a_removed_document_stays_unavailable_from_older_revisions(bench: Bench, build: Build) -> None:
    write(bench, build, a_document(1, 5), a_document(2, 5))
    assert write(bench, build, Removal(id=1, revision=6)) == (1, 0)
    assert write(bench, build, a_document(1, 5)) == (0, 1)
    assert bench.ids("mug") == [2]
    assert bench.find(SearchQuery()).total == 1
    assert bench.writer.revisions(build, after=0, limit=10) == [(2, 5)]
    assert write(bench, build, a_document(1, 7)) == (1, 0)
    assert sorted(bench.ids("mug")) == [1, 2]


def test_a_removal_that_comes_first_or_twice_is_remembered(bench: Bench, build: Build) -> None:
    assert write(bench, build, Removal(id=9, revision=3)) == (1, 0)
    assert write(bench, build, Removal(id=9, revision=3)) == (1, 0)
    assert write(bench, build, Removal(id=9, revision=2)) == (0, 1)
    assert write(bench, build, a_document(9, 2)) == (0, 1)
    assert bench.ids("mug") == []


def test_a_load_is_a_write_that_never_goes_back(bench: Bench, build: Build) -> None:
    write(bench, build, a_document(1, 5, "newer"), Removal(id=2, revision=5))
    impossible = msgspec.structs.replace(a_document(5), published_at=2**70)
    loaded = bench.writer.load(build, [a_document(1, 4), a_document(2, 4), a_document(3), a_document(4)])
    assert (loaded.stored, loaded.superseded, loaded.refused) == (2, 2, {})
    again = bench.writer.load(build, [a_document(4, 2, "cup"), impossible, a_document(6)])
    assert (again.stored, list(again.refused)) == (2, [5])
    bench.writer.refresh(build)
    assert (bench.ids("mug"), bench.ids("newer"), bench.ids("cup")) == ([6, 3], [1], [4])
    assert bench.writer.revisions(build, after=0, limit=10) == [(1, 5), (3, 1), (4, 2), (6, 1)]


def test_loads_side_by_side_keep_every_document_and_word(bench: Bench, build: Build) -> None:
    parts = [[a_document(first + step, 1, f"mug w{step}") for step in range(40)] for first in range(1, 400, 100)]
    with ThreadPoolExecutor(4) as threads:
        loaded = list(threads.map(lambda part: bench.writer.load(build, part), parts))
    assert [written.stored for written in loaded] == [40] * 4
    bench.writer.refresh(build)
    assert bench.find(SearchQuery(text="mug")).total == 160
    assert bench.ids("w39") == [340, 240, 140, 40]


def test_revisions_are_listed_in_pages(bench: Bench, build: Build) -> None:
    write(bench, build, *(a_document(number, number) for number in range(1, 8)))
    assert bench.writer.revisions(build, after=0, limit=3) == [(1, 1), (2, 2), (3, 3)]
    assert bench.writer.revisions(build, after=6, limit=3) == [(7, 7)]


def test_a_document_that_cannot_be_kept_is_named_and_the_others_are_written(bench: Bench, build: Build) -> None:
    impossible = msgspec.structs.replace(a_document(2), published_at=2**70)
    written = bench.writer.write(build, [a_document(1), impossible, a_document(3)], [Removal(id=4, revision=1)])
    bench.writer.refresh(build)
    assert (written.stored, written.superseded, list(written.refused)) == (3, 0, [2])
    assert written.refused[2]
    assert bench.ids("mug") == [3, 1]


def test_writes_in_any_order_end_at_the_newest(bench: Bench, build: Build) -> None:
    chance = random.Random(4)
    changes: list[IndexDocument | Removal] = []
    newest: dict[int, int] = {}
    for _ in range(400):
        identity, revision = chance.randint(1, 40), chance.randint(1, 200) * 2
        gone = revision % 6 == 0
        changes.append(
            Removal(id=identity, revision=revision) if gone else a_document(identity, revision, f"mug r{revision}")
        )
        newest[identity] = max(newest.get(identity, 0), revision)
    for start in range(0, len(changes), 100):
        batch = {change.id: change for change in changes[start : start + 100]}
        left = [change for change in changes[start : start + 100] if batch[change.id] is not change]
        write(bench, build, *batch.values())
        for change in left:
            write(bench, build, change)
    expected = sorted((identity, revision) for identity, revision in newest.items() if revision % 6)
    assert bench.writer.revisions(build, after=0, limit=100) == expected
    for identity, revision in expected:
        assert identity in bench.ids(f"r{revision}")


def test_a_build_is_not_seen_before_the_swap_and_the_old_one_not_after(bench: Bench, build: Build) -> None:
    write(bench, build, a_document(1, name="before"))
    beside = bench.new_build()
    write(bench, beside, a_document(2, name="after"))
    assert (bench.ids("before"), bench.ids("after")) == ([1], [])
    bench.publish(beside)
    assert (bench.ids("before"), bench.ids("after")) == ([], [2])
    assert {build.id, beside.id} <= set(bench.writer.existing())
    states = {row.id: row.state for row in bench.database.run(search_builds.written(Kind.MODEL, bench.writer.engine))}
    assert (states[build.id], states[beside.id]) == ("retired", "live")
    bench.writer.drop(build)
    bench.database.run(search_builds.forget(build.id))
    assert bench.ids("after") == [2]
    with pytest.raises(NotFound):
        bench.writer.write(build, [a_document(3)])
    assert build.id not in bench.writer.existing()
    assert bench.writer.reading(Kind.MODEL) == beside.id


def test_every_step_of_a_build_may_be_repeated(bench: Bench, build: Build) -> None:
    beside = bench.new_build()
    bench.writer.create(beside)
    write(bench, beside, a_document(1))
    bench.publish(beside)
    bench.publish(beside)
    assert bench.ids("mug") == [1]
    bench.writer.drop(build)
    bench.writer.drop(build)


def test_a_reader_sees_whole_builds_only_while_they_are_swapped(bench: Bench, build: Build) -> None:
    write(bench, build, *(a_document(number, 1, "mug") for number in range(1, 31)))
    stop = threading.Event()
    builds = [build]

    def swap_again_and_again() -> None:
        for revision in range(2, 8):
            beside = bench.new_build()
            bench.writer.write(beside, [a_document(number, revision, "mug") for number in range(1, 31)])
            bench.publish(beside)
            builds.append(beside)
        stop.set()

    swapper = threading.Thread(target=swap_again_and_again)
    swapper.start()
    looks = 0
    while not stop.is_set() and swapper.is_alive():
        found = bench.find(SearchQuery(text="mug", limit=50))
        assert (len(found.hits), found.total) == (30, 30)
        looks += 1
    swapper.join()
    assert len(builds) == 7
    assert looks > 10


def test_a_kind_without_an_index_is_unavailable_not_empty(bench: Bench) -> None:
    with pytest.raises(StoreUnavailable, match="darkroom rebuild creators"):
        bench.find(SearchQuery(text="mug"), Kind.CREATOR)


def test_a_live_build_is_not_forgotten(bench: Bench, build: Build) -> None:
    assert bench.database.run(search_builds.forget(build.id)) == []
    assert bench.ids("mug") == []


@pytest.mark.parametrize("bench", ["elasticsearch"], indirect=True)
def test_an_elasticsearch_index_is_refreshed_copied_and_merged_once_it_is_filled(
    bench: Bench, elasticsearch_url: str
) -> None:
    build = bench.new_build()
    with Elasticsearch(elasticsearch_url) as client:

        def told() -> dict[str, str]:
            [index] = client.indices.get_settings(index=f"test-*-{build.id}", flat_settings=True).values()
            asked = ("refresh_interval", "auto_expand_replicas", "merge.policy.segments_per_tier")
            return {key: index["settings"][f"index.{key}"] for key in asked if f"index.{key}" in index["settings"]}

        assert told() == {"refresh_interval": "-1", "merge.policy.segments_per_tier": "100"}
        bench.writer.complete(build)
        assert told() == {"refresh_interval": "1s", "auto_expand_replicas": "0-1"}
    bench.writer.drop(build)
    bench.database.run(search_builds.forget(build.id))
