"""The catalogue's rows: what is public is listed, every change is told once, nothing returns by being hidden."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from storage.errors import InvalidRequest, WrongState
from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Database, Query, Script
from storage.postgres.events import outbox
from storage.postgres.migrating import MIGRATIONS, migrate
from storage.postgres.upkeep import invariants
from storage.records.catalog.catalog import Model, NewImage
from storage.records.catalog.vocabulary import Status
from storage.records.events.events import Lane, ModelsChanged
from tests.conftest import EmbeddedPostgres
from tests.storage.makers import a_model, a_published_model, a_version


def execute(database: Database, statement: str, **parameters: object) -> int:
    return database.run(Query(statement, parameters, len))


def changes(database: Database) -> list[ModelsChanged]:
    """Every change that was told, oldest first."""
    events = [row.event() for row in database.run(outbox.of_subject("models"))]
    return [event for event in events if isinstance(event, ModelsChanged)]


def current(database: Database, model: Model) -> Model:
    return database.run(catalog.model_by_id(model.id))


@pytest.fixture
def owner(database: Database) -> UUID:
    return database.run(accounts.ensure_account("owner")).id


def test_a_model_is_listed_when_it_is_published_with_a_file(database: Database, owner: UUID) -> None:
    model = a_model(database, owner)
    with pytest.raises(WrongState, match="no version with a file"):
        database.run(models.publish(model))
    version = a_version(database, model)
    assert not current(database, model).visible
    database.run(models.publish(model))
    shown = current(database, model)
    assert (shown.visible, shown.listed, shown.public_versions) == (True, True, (version.id,))
    assert (shown.base_models, shown.last_version_at) == (("SD 1.5",), shown.published_at)


HIDDEN: dict[str, str] = {
    "draft": "update models set status = 'Draft'",
    "unpublished": "update models set status = 'Unpublished'",
    "private": "update models set availability = 'Private'",
    "taken down": "update models set mode = 'TakenDown', gone_at = now(), gone_reason = 'because'",
    "no public version": "update model_versions set availability = 'Private'",
    "draft version": "update model_versions set status = 'Draft'",
    "no file": "update version_files set gone_at = now()",
    "private file": "update version_files set visibility = 'Private'",
    "banned creator": "update accounts set status = 'banned', ban_reason = 'spam'",
}


@pytest.mark.parametrize("how", HIDDEN)
def test_what_is_not_public_is_in_no_list(database: Database, owner: UUID, how: str) -> None:
    model = a_published_model(database, owner)
    execute(database, HIDDEN[how])
    hidden = current(database, model)
    assert (hidden.visible, hidden.listed) == (False, False)
    assert changes(database)[-1] == ModelsChanged(model_ids=(model.id,), lane=Lane.VISIBILITY)
    assert hidden.revision > model.revision
    misplaced = [fault for fault in database.run(invariants.broken()) if "stand in the lists" in fault]
    assert misplaced == []


def test_an_unsearchable_model_is_visible_and_in_no_list(database: Database, owner: UUID) -> None:
    model = a_published_model(database, owner)
    changed = database.run(models.change(model, {"availability": "Unsearchable"}))
    shown = current(database, changed)
    assert (shown.visible, shown.listed) == (True, False)


def test_a_transaction_tells_a_models_change_once(database: Database, owner: UUID) -> None:
    model = a_published_model(database, owner)
    before, revision = len(changes(database)), current(database, model).revision

    def several() -> Script[None]:
        yield from models.change(model, {"description": "new", "tags": ["style", "lighting"]})
        yield from models.change(model, {"description": "newer"})

    database.run(several())
    assert changes(database)[before:] == [ModelsChanged(model_ids=(model.id,), lane=Lane.EDITS)]
    assert current(database, model).revision > revision
    assert database.run(models.tags_of(model.id)) == {model.id: ["lighting", "style"]}


def test_a_batch_of_counts_is_one_event_and_moves_what_it_counts(database: Database, owner: UUID) -> None:
    found = [a_published_model(database, owner, f"m{n}") for n in range(3)]
    before = len(changes(database))
    execute(
        database,
        "insert into model_stats (model_id, thumbs_up_count) select id, id from models on conflict do nothing",
    )
    assert changes(database)[before:] == [ModelsChanged(model_ids=tuple(m.id for m in found), lane=Lane.COUNTS)]
    execute(database, "update model_stats set thumbs_up_count = thumbs_up_count")
    replaced = "select count(*)::int as n from sort_keys where replaced is not null"
    # Thumbs decide the order of every list but the newest, and the second update changed none of them.
    assert database.run(Query(replaced, {}, lambda rows: rows[0]["n"])) == 15
    assert database.run(invariants.broken()) == []


def test_two_writers_of_one_model_both_count(database: Database, owner: UUID) -> None:
    model = a_published_model(database, owner)
    second = a_version(database, model, name="v2")
    with database.connect() as one, database.connect() as other:
        one.execute("begin")
        one.execute("update model_versions set status = 'Published', published_at = now() where id = %s", (second.id,))
        other.execute("begin")
        other.execute("update model_versions set status = 'Unpublished' where id <> %s", (second.id,))
        late = threading.Thread(target=other.execute, args=("commit",))
        one.execute("select from models where id = %s for update", (model.id,))
        late.start()
        one.execute("commit")
        late.join()
    assert current(database, model).public_versions == (second.id,)


def test_publishing_again_never_makes_a_model_new(database: Database, owner: UUID) -> None:
    model = a_published_model(database, owner)
    first = model.published_at
    hidden = database.run(models.unpublish(model))
    assert not current(database, model).listed
    with pytest.raises(WrongState):
        database.run(models.unpublish(hidden))
    again = database.run(models.publish(hidden))
    assert (again.published_at, current(database, model).last_version_at) == (first, model.last_version_at)


def test_a_scheduled_model_is_published_when_its_time_has_come(database: Database, owner: UUID) -> None:
    model = a_model(database, owner)
    a_version(database, model)
    later = datetime.now(UTC) + timedelta(hours=1)
    scheduled = database.run(models.publish(model, later))
    assert (scheduled.status, scheduled.published_at, scheduled.scheduled_for) == (Status.SCHEDULED, None, later)
    assert database.run(models.publish_due()) == 0
    execute(database, "update models set scheduled_for = now() - interval '1 second'")
    execute(database, "update model_versions set scheduled_for = now() - interval '1 second'")
    assert database.run(models.publish_due()) == 2
    assert current(database, model).listed


def test_a_deleted_model_leaves_its_number_its_reason_and_its_hashes(database: Database, owner: UUID) -> None:
    model = a_published_model(database, owner, "secret name", description="secret words", tags=("secret",))
    revision = model.revision
    database.run(models.delete(model, "deleted by its owner"))
    gone = current(database, model)
    assert (gone.status, gone.gone_reason, gone.listed) == (Status.DELETED, "deleted by its owner", False)
    assert gone.revision > revision
    assert "secret" not in repr(gone)
    assert database.run(models.tags_of(model.id)) == {}
    assert execute(database, "select 1 from file_hashes") == 6
    assert a_published_model(database, owner, "secret name").id != model.id
    assert database.run(invariants.broken()) == []


def test_a_taken_down_model_comes_back_as_it_was(database: Database, owner: UUID) -> None:
    model = a_published_model(database, owner)
    database.run(models.take_down(model, "copyright claim 12"))
    assert current(database, model).gone_reason == "copyright claim 12"
    database.run(models.restore(model))
    assert current(database, model).listed


def test_names_are_an_owners_own(database: Database, owner: UUID) -> None:
    model = a_model(database, owner, "Mug")
    other = a_model(database, owner, "cup")
    with pytest.raises(InvalidRequest, match="called 'mUG' already"):
        a_model(database, owner, "mUG")
    with pytest.raises(InvalidRequest):
        database.run(models.change(other, {"name": "MUG"}))
    assert database.run(models.change(model, {"name": "MUG"})).name == "MUG"
    assert a_model(database, database.run(accounts.ensure_account("else")).id, "Mug").name == "Mug"


def test_a_models_level_is_every_bit_of_its_public_images(database: Database, owner: UUID) -> None:
    model = a_published_model(database, owner)
    assert model.nsfw_level == 1

    def picture(level: int) -> Callable[[], object]:
        image = NewImage(
            sha256="d" * 64, size=1, media_type="image/png", width=1, height=1, blurhash="x", nsfw_level=level
        )
        return lambda: database.run(catalog.add_images(model.public_versions[0], owner, [image]))

    picture(2)()
    picture(8)()
    assert current(database, model).nsfw_level == 10
    execute(database, "update images set gone_at = now() where nsfw_level = 8")
    assert current(database, model).nsfw_level == 2
    database.run(models.change(model, {"nsfw": True}))
    assert current(database, model).nsfw_level == 28


def test_a_database_from_another_cluster_forgets_whose_transactions_made_its_lists(
    database: Database, owner: UUID, database_url: str
) -> None:
    a_published_model(database, owner)
    epoch = "select epoch from catalogue_home"
    before = database.run(Query(epoch, {}, lambda rows: rows[0]["epoch"]))
    execute(database, "update sort_keys set created = '999999999'")
    execute(database, "update catalogue_home set system_identifier = 1")
    migrate(database_url)
    assert database.run(Query(epoch, {}, lambda rows: rows[0]["epoch"])) != before
    seen = "select 1 from sort_keys where pg_visible_in_snapshot(created, pg_current_snapshot())"
    assert execute(database, seen) == 7
    migrate(database_url)


def test_what_the_first_schema_published_is_in_the_catalogue_of_the_second(postgres_server: EmbeddedPostgres) -> None:
    postgres_server.create_databases(["before"])
    url = postgres_server.url("before")
    with psycopg.connect(url) as connection:
        connection.execute((MIGRATIONS / "0001_spine.sql").read_text().encode())
        connection.execute(
            """
            create table schema_migrations (name text primary key, ran_at timestamptz default now());
            insert into schema_migrations values ('0001_spine');
            insert into accounts (name) values ('owner');
            insert into models (account_id, name) select id, 'sks mug' from accounts;
            insert into jobs (account_id, kind, request, recipe_hash) select id, 'training', '{}', 'r' from accounts;
            insert into model_versions (model_id, position, name, job_id, base_model, trained_words, recipe)
            select 1, 1, 'v1', id, 'starter', '{}', '{}' from jobs;
            insert into version_files values
                (1, 'model.safetensors', 'weights', repeat('ab', 32), 9, '{"auto_v1": "deadbeef", "auto_v3": "0a"}'),
                (1, 'folder/model_index.json', 'folder', repeat('cd', 32), 9, '{}');
            """.replace('"0a"', '"0a0a0a0a0a0a"').encode()
        )
    migrate(url)
    with psycopg.connect(url) as connection:
        found = connection.execute("select listed, public_versions, base_models from models").fetchall()
        hashes = connection.execute("select kind, hash from file_hashes order by kind").fetchall()
    assert found == [(True, [1], ["Other"])]
    assert hashes == [
        ("AutoV1", "DEADBEEF"),
        ("AutoV2", "ABABABABAB"),
        ("AutoV3", "0A0A0A0A0A0A"),
        ("SHA256", "AB" * 32),
    ]
