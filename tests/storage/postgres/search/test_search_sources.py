"""Images and creators as search reads them: what is listed, what each is found by, and revisions that only grow."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, models, versions
from storage.postgres.connection import Database, Query
from storage.postgres.events import outbox
from storage.postgres.search import search_sources
from storage.records.catalog.catalog import Model, NewImage
from storage.records.events.events import CreatorsChanged, Event, ImagesChanged, Lane
from storage.records.search.search import Kind
from storage.records.search.search_documents import CreatorDocument, ImageDocument
from tests.storage.makers import A_HASH, a_model, a_published_model, a_version, an_image, settings_for


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database of this test's own."""
    with Database(settings_for(database_url).postgres) as opened:
        yield opened


@pytest.fixture
def model(database: Database) -> Model:
    """A listed model of ada's, tagged and with a version of SD 1.5."""
    return a_published_model(database, database.run(accounts.ensure_account("ada")).id, "Mug", tags=("cup",))


def image(database: Database, identity: int) -> ImageDocument | None:
    """An image's document; None for one that is not listed."""
    documents, removals = database.run(search_sources.images([identity]))
    assert len(documents) + len(removals) == 1
    return documents[0] if documents else None


def creator(database: Database, name: str = "ada") -> CreatorDocument | None:
    """A creator's document; None for one that is not listed."""
    documents, _ = database.run(search_sources.creators([number(database, name)]))
    return documents[0] if documents else None


def number(database: Database, name: str = "ada") -> int:
    [account] = database.run(accounts.users(name=name))
    return account.number


def revision(database: Database, kind: Kind, identity: int) -> int:
    """The revision of a row, listed or not."""
    view = search_sources.LISTINGS[kind]
    statement = f"select revision from {view} where id = %(id)s"
    return database.run(Query(statement, {"id": identity}, lambda rows: rows[0]["revision"]))


def events(database: Database, *kinds: type[Event]) -> list[Event]:
    """The events of some kinds that wait, in order; they wait no more."""
    rows = database.run(outbox.claim(1000))
    for row in rows:
        database.run(outbox.done(row.id))
    return [event for event in (row.event() for row in rows) if isinstance(event, kinds)]


def change(database: Database, statement: str, **parameters: object) -> None:
    database.run(Query(statement, parameters, len))


def test_an_image_is_found_by_its_prompt_its_model_and_who_showed_it(database: Database, model: Model) -> None:
    meta = {"prompt": "a red mug", "negativePrompt": "ugly", "sampler": "Euler", "seed": 7, "resources": [{"n": "x"}]}
    identity = an_image(database, model, meta=meta, width=64, height=32, nsfw_level=2)
    found = image(database, identity)
    assert found is not None
    assert (found.prompt, found.details, found.model_name) == ("a red mug", ("Euler",), "Mug")
    assert (found.creator, found.tags, found.base_model, found.type) == ("ada", ("cup",), "SD 1.5", "Checkpoint")
    assert (found.level, found.width, found.height) == (2, 64, 32)


def test_an_image_without_meta_is_found_by_its_model(database: Database, model: Model) -> None:
    found = image(database, an_image(database, model))
    assert found is not None
    assert (found.prompt, found.details) == ("", ())


def test_an_image_is_listed_while_its_model_its_version_itself_and_its_account_are(
    database: Database, model: Model
) -> None:
    identity = an_image(database, model)
    [version] = database.run(catalog.versions([model.id]))
    database.run(models.unpublish(database.run(models.lock(model.id))))
    assert image(database, identity) is None
    database.run(models.publish(database.run(models.lock(model.id))))
    assert image(database, identity) is not None
    a_version(database, model, name="other")
    database.run(models.publish(database.run(models.lock(model.id))))
    database.run(versions.unpublish(version))
    assert image(database, identity) is None
    database.run(versions.publish(database.run(catalog.version_by_id(version.id))))
    ban = "update accounts set status = 'banned', ban_reason = 'spam' where name = 'ada' returning id"
    change(database, ban)
    assert image(database, identity) is None
    change(database, "update accounts set status = 'active', ban_reason = null where name = 'ada' returning id")
    assert image(database, identity) is not None
    change(database, "update images set gone_at = now() where id = %(id)s returning id", id=identity)
    assert image(database, identity) is None


def test_a_banned_account_s_image_leaves_the_model_of_another(database: Database, model: Model) -> None:
    [version] = database.run(catalog.versions([model.id]))
    guest = database.run(accounts.ensure_account("bob")).id
    picture = NewImage(sha256=A_HASH, size=1, media_type="image/png", width=8, height=8, blurhash="L0")
    [identity] = database.run(catalog.add_images(version.id, guest, [picture]))
    before = revision(database, Kind.IMAGE, identity)
    change(database, "update accounts set status = 'banned', ban_reason = 'spam' where name = 'bob' returning id")
    assert image(database, identity) is None
    assert revision(database, Kind.IMAGE, identity) > before
    told = events(database, ImagesChanged)
    assert told[-1] == ImagesChanged(account_numbers=(number(database, "bob"),), lane=Lane.VISIBILITY)


def test_a_creator_is_an_account_with_listed_models(database: Database, model: Model) -> None:
    owner = model.account_id
    a_model(database, owner, "Draft")
    found = creator(database)
    assert found is not None
    assert (found.name, found.models, found.types, found.base_models) == ("ada", 1, ("Checkpoint",), ("SD 1.5",))
    assert found.published_at == model.last_version_at
    a_published_model(database, owner, "Second")
    second = creator(database)
    assert second is not None
    assert (second.models, second.revision > found.revision) == (2, True)
    database.run(accounts.ensure_account("nobody"))
    assert creator(database, "nobody") is None
    change(database, "update accounts set status = 'banned', ban_reason = 'spam' where name = 'ada' returning id")
    assert creator(database) is None


CHANGES = {
    "a new name of the account": "update accounts set name = name || 'x' where name like 'ada%%' returning id",
    "a ban": "update accounts set status = 'banned', ban_reason = 'spam' where name = 'ada' returning id",
    "a hidden model": "update models set status = 'Unpublished' where id = %(model)s returning id",
    "another type": "update models set type = 'LORA' where id = %(model)s returning id",
    "another family": "update model_versions set base_model = 'Pony' where model_id = %(model)s returning id",
}
OF_IMAGES = {
    "a new name of the model": "update models set name = 'Cup' where id = %(model)s returning id",
    "a tag less": "delete from model_tags where model_id = %(model)s returning model_id",
    "another level": "update images set nsfw_level = 4 where id = %(image)s returning id",
    "a deletion": "update images set gone_at = now() where id = %(image)s returning id",
    "first counts": "insert into image_stats (image_id, like_count) values (%(image)s, 3) returning image_id",
}


@pytest.mark.parametrize("name", [*CHANGES, *OF_IMAGES])
def test_every_change_of_a_document_raises_its_revision_and_is_told(
    database: Database, model: Model, name: str
) -> None:
    identity = an_image(database, model)
    events(database)
    kinds = [Kind.IMAGE, *([Kind.CREATOR] if name in CHANGES else [])]
    ids = {Kind.IMAGE: identity, Kind.CREATOR: number(database)}
    before = {kind: revision(database, kind, ids[kind]) for kind in kinds}
    change(database, (CHANGES | OF_IMAGES)[name], model=model.id, image=identity)
    told = events(database, ImagesChanged, CreatorsChanged)
    for kind in kinds:
        assert revision(database, kind, ids[kind]) > before[kind]
        expected = ImagesChanged if kind is Kind.IMAGE else CreatorsChanged
        assert any(isinstance(event, expected) for event in told)


def test_what_changes_no_document_is_not_told(database: Database, model: Model) -> None:
    draft = a_model(database, model.account_id, "Draft", tags=("cup",))
    an_image(database, model)
    events(database)
    change(database, "update models set description = 'new' where id = %(id)s returning id", id=model.id)
    change(database, "update models set name = 'Other' where id = %(id)s returning id", id=draft.id)
    change(database, "update accounts set role = 'moderator' where name = 'ada' returning id")
    assert events(database, ImagesChanged, CreatorsChanged) == []


def test_counts_of_images_are_told_in_one_event_of_their_own_lane(database: Database, model: Model) -> None:
    ids = [an_image(database, model), an_image(database, model)]
    change(database, "insert into image_stats (image_id) select unnest(%(ids)s::bigint[]) returning image_id", ids=ids)
    before = [revision(database, Kind.IMAGE, identity) for identity in ids]
    events(database)
    change(database, "update image_stats set heart_count = 5 where image_id = any(%(ids)s) returning image_id", ids=ids)
    assert events(database, ImagesChanged) == [ImagesChanged(image_ids=tuple(ids), lane=Lane.COUNTS)]
    assert [revision(database, Kind.IMAGE, identity) for identity in ids] == [number + 1 for number in before]


def test_a_revision_belongs_to_one_state_however_writers_overlap(database: Database, model: Model) -> None:
    identity = an_image(database, model)
    seen: dict[int, ImageDocument | None] = {}
    stop = threading.Event()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        for turn in range(25):
            statement = chance.choice(
                (
                    "update models set name = %(text)s where id = %(model)s returning id",
                    "update images set meta = jsonb_build_object('prompt', %(text)s::text) where id = %(image)s"
                    " returning id",
                    "insert into image_stats (image_id, like_count) values (%(image)s, 1) on conflict (image_id)"
                    " do update set like_count = image_stats.like_count + 1 returning image_id",
                )
            )
            change(database, statement, model=model.id, image=identity, text=f"{seed} {turn}")

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    watcher = threading.Thread(target=lambda: watch(database, identity, seen, stop))
    for thread in (*writers, watcher):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    watcher.join()
    assert len(seen) > 5
    assert list(seen) == sorted(seen)


def watch(database: Database, identity: int, seen: dict[int, ImageDocument | None], stop: threading.Event) -> None:
    """Note each state of an image by its revision; two states of one revision end up as revision -1."""
    while not stop.is_set():
        found = image(database, identity)
        assert found is not None
        if seen.setdefault(found.revision, found) != found:
            seen[-1] = found
