"""A fine-tune is private until its owner publishes it; then its followers are told, once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import psycopg
import pytest

from storage.errors import InvalidRequest
from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, models, versions
from storage.postgres.connection import Database, Query
from storage.postgres.jobs import jobs, publication, submissions
from storage.postgres.migrating import MIGRATIONS, migrate
from storage.postgres.notifications import notifications
from storage.postgres.social import social
from storage.records.catalog.catalog import Model, ModelVersion, TrainedVersion
from storage.records.catalog.vocabulary import Availability, ModelType, Status
from storage.records.jobs.choices import TrainingMethod
from storage.records.jobs.jobs import Job
from storage.records.jobs.training import TrainingJobRequest
from tests.conftest import EmbeddedPostgres
from tests.storage.makers import a_file, a_job, a_model, a_version, an_account, settings_for

PRIVATE, PUBLIC = Availability.PRIVATE, Availability.PUBLIC


@pytest.fixture
def owner(database: Database) -> UUID:
    """The owner, whom somebody follows."""
    identity = an_account(database)
    fan = database.run(accounts.ensure_account("fan"))
    database.run(social.follow(fan.id, database.run(accounts.account(identity)).number))
    return identity


def finished(database: Database, job: Job, kind: ModelType = ModelType.CHECKPOINT) -> ModelVersion:
    """What the flow publishes at the end of a job."""
    held = database.run(jobs.claim(job.id, job.attempt, None))
    asked = msgspec.convert(held.request, TrainingJobRequest)
    new = TrainedVersion(
        model_name=asked.model_name,
        base_model="SD 1.5",
        trained_words=("sks mug",),
        recipe=held.request,
        evaluation=None,
        files=(a_file(job.id.hex * 2),),
        availability=asked.availability,
        type=kind,
    )
    return database.run(publication.publish(job.id, job.attempt, new))


def test_a_version_of_another_type_makes_a_model_of_its_own(database: Database, owner: UUID) -> None:
    """The name was free when the job was submitted, and taken when it ended."""
    adapter = a_job(database, owner, name="the mug", method=TrainingMethod.LORA)
    whole = a_job(database, owner, name="the mug")
    first = model_of(database, finished(database, whole))
    version = finished(database, adapter, ModelType.LORA)
    second = model_of(database, version)
    assert (first.type, first.checkpoint_type) == (ModelType.CHECKPOINT, "Trained")
    assert (second.name, second.type, second.checkpoint_type) == ("the mug (LORA)", ModelType.LORA, None)
    again = a_job(database, owner, name="The Mug (lora)", method=TrainingMethod.LORA)
    assert finished(database, again, ModelType.LORA).model_id == second.id


def test_a_name_of_a_model_of_another_type_is_refused_when_the_job_is_submitted(
    database: Database, owner: UUID
) -> None:
    finished(database, a_job(database, owner, name="the mug"))
    with pytest.raises(
        InvalidRequest, match="'the mug' is a model of type Checkpoint, and this makes a LORA"
    ) as refused:
        a_job(database, owner, name="THE mug", method=TrainingMethod.LORA)
    assert refused.value.fields.keys() == {"name"}


def model_of(database: Database, version: ModelVersion) -> Model:
    return database.run(catalog.model_by_id(version.model_id))


def told(database: Database, model: Model) -> int:
    """How many versions of anybody's the followers were told of, once the relay has seen that the model changed."""
    database.run(notifications.add_published([model.id]))
    return len(database.run(Query("select id from notifications where type = 'version_published'", {}, list)))


def public(database: Database, model: Model) -> tuple[bool, tuple[int, ...]]:
    """Whether anybody sees a model, and which of its versions."""
    found = database.run(catalog.model_by_id(model.id))
    return found.visible, found.public_versions


def test_a_fine_tune_is_private_until_its_owner_publishes_it_and_followers_are_told_once(
    database: Database, owner: UUID
) -> None:
    version = finished(database, a_job(database, owner))
    model = model_of(database, version)
    assert (model.status, model.availability, version.availability) == (Status.PUBLISHED, PRIVATE, PRIVATE)
    assert (model.published_at, version.published_at, public(database, model)) == (None, None, (False, ()))
    assert told(database, model) == 0
    # Weeks later: what is told is that it can be seen, not that it was made.
    database.run(Query("update model_versions set created_at = now() - interval '30 days'", {}, len))
    for again in range(2):
        shown = database.run(models.publish(model_of(database, version), opens=True))
        assert (shown.availability, public(database, model)) == (PUBLIC, (True, (version.id,)))
        assert told(database, model) == 1, again
    first = model_of(database, version).published_at
    for hidden in ({"availability": "Private"}, {"availability": "Public"}):
        database.run(models.change(model_of(database, version), hidden))
    database.run(models.unpublish(model_of(database, version)))
    database.run(models.publish(model_of(database, version), opens=True))
    assert (told(database, model), model_of(database, version).published_at) == (1, first)


OPENED: dict[str, Callable[[Database, Model, ModelVersion], object]] = {
    "publishing the model": lambda database, model, _: database.run(models.publish(model, opens=True)),
    "publishing the version, then changing the model": lambda database, model, version: (
        database.run(versions.publish(version, opens=True)),
        database.run(models.change(model, {"availability": "Public"})),
    ),
    "changing both": lambda database, model, version: (
        database.run(versions.change(version, {"availability": "Public"})),
        database.run(models.change(model, {"availability": "Public"})),
    ),
    "at a date": lambda database, model, _: (
        database.run(models.publish(model, datetime.now(UTC) + timedelta(seconds=0.3), opens=True)),
        database.run(Query("select pg_sleep(0.4)", {}, list)),
        database.run(models.publish_due()),
    ),
}


@pytest.mark.parametrize("how", OPENED)
def test_however_it_is_opened_followers_are_told_and_it_has_a_date(database: Database, owner: UUID, how: str) -> None:
    version = finished(database, a_job(database, owner))
    model = model_of(database, version)
    OPENED[how](database, model, version)
    assert public(database, model) == (True, (version.id,))
    assert told(database, model) == 1
    dates = model_of(database, version).published_at, database.run(catalog.version_by_id(version.id)).published_at
    assert all(date is not None and datetime.now(UTC) - date < timedelta(minutes=1) for date in dates)


def test_what_was_asked_for_as_public_is_public_at_once(database: Database, owner: UUID) -> None:
    version = finished(database, a_job(database, owner, availability="Public"))
    assert public(database, model_of(database, version)) == (True, (version.id,))
    assert told(database, model_of(database, version)) == 1


@pytest.mark.parametrize("stored", ["Public", None])
def test_a_job_from_before_the_upgrade_keeps_what_it_was_promised_also_when_it_is_tried_again(
    database: Database, owner: UUID, stored: str | None
) -> None:
    """Their rows say Public, or nothing where there was no choice yet."""
    old = a_job(database, owner, availability="Public")
    if stored is None:
        database.run(Query("update jobs set request = request - 'availability' where id = %(id)s", {"id": old.id}, len))
    database.run(jobs.claim(old.id, 1, None))
    database.run(jobs.fail(old.id, 1, "silent", "its machine died"))
    again, _ = database.run(submissions.retry(old.id, owner, settings_for("postgresql://unused")))
    assert again.request.get("availability") == stored
    version = finished(database, again)
    assert public(database, model_of(database, version)) == (True, (version.id,))


def test_a_version_keeps_its_recipe_without_what_names_its_photos(database: Database, owner: UUID) -> None:
    job = a_job(database, owner)
    said = """update jobs set request = request || '{"warnings": ["Anna at home.jpg is too small"]}'"""
    database.run(Query(said, {}, len))
    version = finished(database, job)
    assert version.recipe is not None
    assert version.recipe["recipe"] == job.request["recipe"]
    assert "warnings" in database.run(jobs.get(job.id)).request
    assert not {"warnings", "needs"} & version.recipe.keys()


def test_publishing_a_model_opens_its_new_fine_tunes_and_nothing_that_its_owner_hid(
    database: Database, owner: UUID
) -> None:
    first = finished(database, a_job(database, owner, availability="Public", name="mug"))
    model = model_of(database, first)
    hidden = finished(database, a_job(database, owner, availability="Public", name="mug"))
    database.run(versions.change(hidden, {"availability": "Private"}))
    uploaded = a_version(database, model, availability="Private")
    second = finished(database, a_job(database, owner, name="mug"))
    assert public(database, model) == (True, (first.id,))
    assert model_of(database, second).availability is PUBLIC  # a private version hides nothing of its model
    database.run(models.publish(model_of(database, second), opens=True))
    assert public(database, model) == (True, (second.id, first.id))
    assert database.run(catalog.version_by_id(uploaded.id)).availability is PRIVATE
    database.run(versions.publish(database.run(catalog.version_by_id(uploaded.id)), opens=True))
    assert public(database, model) == (True, (second.id, uploaded.id, first.id))


def test_a_moderator_publishes_nothing_that_is_private(database: Database, owner: UUID) -> None:
    version = finished(database, a_job(database, owner))
    model = model_of(database, version)
    database.run(models.publish(model, opens=False))
    database.run(versions.publish(version, opens=False))
    assert (public(database, model), told(database, model)) == ((False, ()), 0)
    database.run(models.publish(model, opens=True))
    assert told(database, model) == 1


def test_a_public_fine_tune_opens_a_model_that_was_private_for_want_of_one_and_not_its_older_versions(
    database: Database, owner: UUID
) -> None:
    private = finished(database, a_job(database, owner, name="mug"))
    shown = finished(database, a_job(database, owner, name="mug", availability="Public"))
    assert public(database, model_of(database, private)) == (True, (shown.id,))
    hidden = finished(database, a_job(database, owner, name="car", availability="Public"))
    database.run(models.change(model_of(database, hidden), {"availability": "Private"}))
    finished(database, a_job(database, owner, name="car", availability="Public"))
    assert public(database, model_of(database, hidden))[0] is False  # its owner has hidden it


def test_a_private_fine_tune_publishes_no_draft_of_its_name(database: Database, owner: UUID) -> None:
    draft = a_model(database, owner, "mug")
    version = finished(database, a_job(database, owner, name="mug"))
    assert version.model_id == draft.id
    assert model_of(database, version).status is Status.DRAFT
    database.run(models.publish(model_of(database, version), opens=True))
    assert public(database, draft) == (True, (version.id,))


def test_private_fine_tunes_of_before_the_upgrade_are_news_when_they_are_published(
    postgres_server: EmbeddedPostgres,
) -> None:
    postgres_server.create_databases(["private_before"])
    url = postgres_server.url("private_before")
    with psycopg.connect(url) as connection:
        connection.execute("create table schema_migrations (name text primary key, ran_at timestamptz default now())")
        for file in sorted(MIGRATIONS.glob("*.sql")):
            if file.stem < "0022_private_by_default":
                connection.execute(file.read_text().encode())
                connection.execute("insert into schema_migrations values (%s)", (file.stem,))
        connection.execute(
            """
            insert into accounts (name) values ('owner');
            insert into models (account_id, name, status, availability, published_at, upload_type)
            select id, said, 'Published', said, '2026-01-01', 'Trained'
              from accounts, unnest(array['Private', 'Public']) said;
            insert into jobs (account_id, kind, request, recipe_hash, state, ended_at)
            select account_id, 'training', jsonb_build_object('availability', name), name, 'succeeded', now()
              from models;
            insert into model_versions (model_id, position, name, job_id, base_model, trained_words, recipe, status,
                                        availability, published_at)
            select model.id, 1, 'v1', job.id, 'SD 1.5', '{}', '{}', 'Published', model.name, '2026-01-01'
              from models model join jobs job on job.recipe_hash = model.name;
            """
        )
    migrate(url)
    with psycopg.connect(url) as connection:
        dated = "select name, published_at is not null from models order by name"
        assert connection.execute(dated).fetchall() == [("Private", False), ("Public", True)]
        dated = "select availability, published_at is not null from model_versions order by availability"
        assert connection.execute(dated).fetchall() == [("Private", False), ("Public", True)]
