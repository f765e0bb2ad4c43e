"""Pages of a list: the order of the moment of the first page, whatever changes meanwhile, for every sort."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from storage.errors import CursorExpired, InvalidCursor
from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, listing, models
from storage.postgres.catalog.listing import PageOfIds
from storage.postgres.connection import Database, Query, Script
from storage.postgres.upkeep import invariants, retention
from storage.records.catalog.catalog import NewImage
from storage.records.catalog.listing import (
    KEEP_HOURS,
    Cursor,
    ImageFilter,
    ImageSort,
    ModelFilter,
    ModelSort,
    is_snapshot,
)
from storage.settings import PostgresSettings
from tests.storage.makers import a_published_model

SORTS = [*ModelSort, *ImageSort]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "hide", "show", "count", "begin", "commit", "page"]),
        st.integers(0, 40),
        st.integers(0, 3),
    ),
    max_size=14,
)


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Database]:
    with Database(PostgresSettings(url=SecretStr(module_database_url), pool_size=8)) as opened:
        yield opened


def execute(database: Database, statement: str, **parameters: object) -> None:
    database.run(Query(statement, parameters, len))


@dataclass
class Shelf:
    """Models with an image each, changed by others while a list of them is read.

    `late` is another client's transaction that is open while pages are read: what it did becomes visible with its
    commit, which may come after the first page although its transaction number is smaller.
    """

    database: Database
    owner: UUID
    sort: ModelSort | ImageSort
    late: psycopg.Connection[Any]
    made: list[int] = field(default_factory=list)
    hidden: set[int] = field(default_factory=set)
    deleted: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)
    shown_as: dict[int, int] = field(default_factory=dict)
    once_hidden: set[int] = field(default_factory=set)

    @property
    def of_images(self) -> bool:
        return isinstance(self.sort, ImageSort)

    def publish(self) -> int:
        """A new public model; returns the id that its list shows."""
        model = a_published_model(self.database, self.owner, f"m{len(self.made)}")
        image = NewImage(sha256=f"{model.id:064x}", size=1, media_type="image/png", width=1, height=1, blurhash="x")
        image_id = self.database.run(catalog.add_images(model.public_versions[0], self.owner, [image]))[0]
        self.made.append(model.id)
        self.shown_as[model.id] = image_id if self.of_images else model.id
        return self.shown_as[model.id]

    def change(self, what: str, which: int, amount: int) -> None:
        """One change by somebody else, committed at once, or with `late` when that is open."""
        model_id = self.made[which % len(self.made)]
        if what == "insert":
            self.publish()
        elif what == "begin" and not self.held:
            for number in self.made[:amount]:
                self.held.add(number)
            if self.held:
                self.late.execute("begin")
                self.count(self.late, sorted(self.held), which)
        elif what == "commit" and self.held:
            self.late.execute("commit")
            self.held.clear()
        elif model_id in self.held or model_id in self.deleted:
            return
        elif what == "hide":
            execute(self.database, "update models set status = 'Unpublished' where id = %(id)s", id=model_id)
            self.hidden.add(model_id)
            self.once_hidden.add(self.shown_as[model_id])
        elif what == "show":
            execute(self.database, "update models set status = 'Published' where id = %(id)s", id=model_id)
            self.hidden.discard(model_id)
        elif what == "delete":
            self.database.run(models.delete(self.database.run(catalog.model_by_id(model_id)), "deleted by its owner"))
            self.deleted.add(model_id)
        elif what == "count":
            batch = [number for number in self.made[which % 3 :: 2] if number not in self.held]
            with psycopg.connect(self.late.info.dsn, password=self.late.info.password, autocommit=True) as other:
                self.count(other, batch, amount)

    def count(self, connection: psycopg.Connection[Any], batch: list[int], amount: int) -> None:
        """A batch of counts that moves what it counts."""
        connection.execute(
            """
            insert into model_stats (model_id, thumbs_up_count, download_count, comment_count, collected_count,
                                     image_count)
            select id, n, n, n, n, n from (select id, (id * 7 + %s * 13) %% 5 as n from unnest(%s::bigint[]) id) counted
            on conflict (model_id) do update
               set thumbs_up_count = excluded.thumbs_up_count, download_count = excluded.download_count,
                   comment_count = excluded.comment_count, collected_count = excluded.collected_count,
                   image_count = excluded.image_count
            """,
            (amount, batch),
        )
        connection.execute(
            """
            insert into image_stats (image_id, like_count, comment_count, collected_count)
            select id, n, n, n from (select image.id, (image.id * 7 + %s * 13) %% 5 as n
                                       from images image join model_versions version on version.id = version_id
                                      where version.model_id = any(%s::bigint[])) counted
            on conflict (image_id) do update
               set like_count = excluded.like_count, comment_count = excluded.comment_count,
                   collected_count = excluded.collected_count
            """,
            (amount, batch),
        )

    def page(self, limit: int, cursor: Cursor | None) -> PageOfIds:
        """A page, and in the same moment nothing else."""
        return self.database.run(self.read(limit, cursor))

    def read(self, limit: int, cursor: Cursor | None = None) -> Script[PageOfIds]:
        if isinstance(self.sort, ImageSort):
            return listing.images(ImageFilter(), self.sort, limit=limit, cursor=cursor)
        return listing.models(ModelFilter(), self.sort, limit=limit, cursor=cursor)

    def public(self) -> set[int]:
        """What is public now, as the list shows it."""
        return {self.shown_as[number] for number in self.made if number not in self.hidden | self.deleted}


@pytest.mark.parametrize("sort", SORTS, ids=lambda sort: f"{type(sort).__name__}-{sort.name}")
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(before=CHANGES, during=CHANGES, limit=st.integers(1, 4))
def test_each_item_of_the_first_moment_comes_once_and_in_order(
    database: Database,
    module_database_url: str,
    sort: ModelSort | ImageSort,
    before: list[tuple[str, int, int]],
    during: list[tuple[str, int, int]],
    limit: int,
) -> None:
    execute(database, "update models set status = 'Unpublished' where status = 'Published'")
    owner = database.run(accounts.ensure_account(f"owner {id(before)} {datetime.now(UTC)}")).id
    with psycopg.connect(module_database_url, autocommit=True) as late:
        shelf = Shelf(database, owner, sort, late)
        for _ in range(7):
            shelf.publish()
        for change in before:
            shelf.change(*change)

        # Every item of this moment in one page, read in the very transaction that reads the first page.
        def both() -> Script[tuple[PageOfIds, PageOfIds]]:
            first = yield from shelf.read(limit)
            return first, (yield from shelf.read(200))

        page, whole = database.run(both())
        shelf.once_hidden.clear()
        shown, hidden_before_read = list(page.ids), set[int]()
        pending = list(during)
        while page.next is not None:
            while pending:
                change = pending.pop(0)
                if change[0] == "page":
                    break
                shelf.change(*change)
            hidden_before_read = set(shelf.shown_as.values()) - shelf.public()
            page = shelf.page(limit, page.next)
            assert not set(page.ids) & hidden_before_read, "what is hidden is not shown after that"
            shown += page.ids
        assert len(shown) == len(set(shown)), "nothing comes twice"
        assert [item for item in whole.ids if item in shown] == [item for item in shown if item in whole.ids]
        missed = (set(whole.ids) & shelf.public()) - set(shown)
        assert not missed - shelf.once_hidden, "nothing that stayed public is missed"
        late.execute("rollback" if shelf.held else "select 1")
    assert not [fault for fault in database.run(invariants.broken(1e9)) if "stand in the lists" in fault]


def test_a_cursor_is_good_for_its_own_list_and_for_a_day(database: Database) -> None:
    owner = database.run(accounts.ensure_account("of cursors")).id
    for number in range(3):
        a_published_model(database, owner, f"c{number}")
    page = database.run(listing.models(ModelFilter(), ModelSort.NEWEST, limit=1))
    assert page.next is not None
    for sort, wanted in ((ModelSort.OLDEST, ModelFilter()), (ModelSort.NEWEST, ModelFilter(levels=2))):
        with pytest.raises(InvalidCursor, match="another sort or filter"):
            database.run(listing.models(wanted, sort, limit=1, cursor=page.next))
    cases: dict[type[Exception], list[dict[str, Any]]] = {
        CursorExpired: [
            {"started_at": page.next.started_at - 24 * 3600},
            {"epoch": "another cluster"},
            {"snapshot": f"{2**62}:{2**62}:"},
        ],
        InvalidCursor: [{"snapshot": text} for text in ("", "1:2", "2:1:", "1:9:7,5", "1:9:12", "x:y:", "0:1:")],
    }
    for error, changes in cases.items():
        for change in changes:
            with pytest.raises(error):
                changed = msgspec.structs.replace(page.next, **change)
                database.run(listing.models(ModelFilter(), ModelSort.NEWEST, limit=1, cursor=changed))


def test_snapshots_are_what_postgres_takes(database: Database) -> None:
    for text in ("1:1:", "5:9:5,7,8", "700:700:"):
        assert is_snapshot(text)
        execute(database, "select %(text)s::pg_snapshot", text=text)


def forget(database: Database) -> int:
    """Delete the places that retention deletes."""
    before = database.run(retention.now()) - timedelta(hours=KEEP_HOURS)
    return database.run(retention.delete_batch("sort_keys", before, 1_000_000))


def test_places_are_dropped_when_no_cursor_can_ask_for_them(database: Database) -> None:
    model = a_published_model(database, database.run(accounts.ensure_account("of places")).id)
    database.run(models.unpublish(model))
    count = "select count(*) as n from sort_keys where item_id = %(id)s and list = 'newest'"
    kept = Query(count, {"id": model.id}, lambda rows: int(rows[0]["n"]))
    assert forget(database) == 0
    assert database.run(kept) == 1
    age = timedelta(hours=25)
    execute(database, "update sort_keys set replaced_at = replaced_at - %(age)s where replaced is not null", age=age)
    assert forget(database) > 0
    assert database.run(kept) == 0


def test_a_page_is_planned_for_its_own_filters_however_often_it_is_asked(database: Database) -> None:
    mode = Query("select current_setting('plan_cache_mode') as mode", {}, lambda rows: rows[0]["mode"])

    def page_and_mode() -> Script[str]:
        yield from listing.models(ModelFilter(), ModelSort.NEWEST, limit=5)
        return (yield from mode)

    assert database.run(page_and_mode()) == "force_custom_plan"
    assert database.run(mode) == "auto"
