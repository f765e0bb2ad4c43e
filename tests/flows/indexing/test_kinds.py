"""Images and creators follow their rows as models do: through the same queue, drains and rebuilds."""

from __future__ import annotations

import pytest

from flows.indexing import builds
from flows.indexing.new_builds import begin, ensure_live_builds
from flows.indexing.queue_drain import drain
from flows.indexing.rebuild import rebuild
from storage.postgres.catalog import models
from storage.postgres.connection import Query
from storage.postgres.search import search_builds, search_queue, search_sources
from storage.records.search.search import Build, Kind
from tests.flows.indexing.conftest import Catalogue
from tests.storage.makers import a_published_model, an_image

KINDS = (Kind.IMAGE, Kind.CREATOR)


def live(catalogue: Catalogue, kind: Kind) -> Build:
    build = catalogue.stores.database.run(search_builds.live(kind, catalogue.stores.search.engine))
    assert build is not None
    return build


def assert_equal_to_the_rows(catalogue: Catalogue) -> None:
    """Every index has what its rows list, at their revisions, and nothing else."""
    catalogue.take_events(*Kind)
    drain(catalogue.stores)
    for kind in Kind:
        rows = catalogue.stores.database.run(search_sources.revisions(kind, 0, 1000))
        assert catalogue.indexed(live(catalogue, kind)) == rows
    assert catalogue.stores.database.run(search_queue.dead_letters()) == []


CHANGES = (
    "update models set name = name || ' new' where id = %(model)s returning id",
    "delete from model_tags where model_id = %(model)s returning model_id",
    "insert into image_stats (image_id, heart_count) select id, 3 from images returning image_id",
    "update image_stats set heart_count = 4 returning image_id",
    "update images set nsfw_level = 8 where id = %(image)s returning id",
    "update model_versions set base_model = 'Pony' where model_id = %(model)s returning id",
    "update accounts set name = 'renamed' where name = 'owner' returning id",
    "update models set status = 'Unpublished' where id = %(model)s returning id",
    "update models set status = 'Published' where id = %(model)s returning id",
    "update images set gone_at = now() where id = %(image)s returning id",
    "update accounts set status = 'banned', ban_reason = 'spam' where name = 'renamed' returning id",
    "update accounts set status = 'active', ban_reason = null where name = 'renamed' returning id",
)


def test_every_change_reaches_the_index(catalogue: Catalogue) -> None:
    database = catalogue.stores.database
    made = ensure_live_builds(catalogue.stores)
    assert {build.kind for build in made} == set(KINDS)
    model = a_published_model(database, catalogue.owner, "Mug", tags=("cup",))
    an_image(database, model)
    image = an_image(database, model, meta={"prompt": "a mug"})
    assert_equal_to_the_rows(catalogue)
    assert len(catalogue.indexed(live(catalogue, Kind.IMAGE))) == 2
    for statement in CHANGES:
        database.run(Query(statement, {"model": model.id, "image": image}, len))
        database.run(Query("update search_queue set due_at = now()", {}, len))
        catalogue.take_events(*Kind)
        database.run(Query("update search_queue set due_at = now()", {}, len))
        assert_equal_to_the_rows(catalogue)
    assert len(catalogue.indexed(live(catalogue, Kind.IMAGE))) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_rebuild_has_every_listed_row_and_no_other(catalogue: Catalogue, kind: Kind) -> None:
    database = catalogue.stores.database
    ensure_live_builds(catalogue.stores)
    shown, hidden = (a_published_model(database, catalogue.owner, name) for name in ("shown", "hidden"))
    for model in (shown, hidden, shown):
        an_image(database, model)
    database.run(models.unpublish(database.run(models.lock(hidden.id))))
    catalogue.take_events(*Kind)
    before = live(catalogue, kind)
    build = rebuild(catalogue.stores, kind, shard=1)
    assert live(catalogue, kind).id == build.id != before.id
    assert len(catalogue.indexed(build)) == {Kind.IMAGE: 2, Kind.CREATOR: 1}[kind]
    assert_equal_to_the_rows(catalogue)


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_index_lacks_or_should_not_have_is_mended(catalogue: Catalogue, kind: Kind) -> None:
    database = catalogue.stores.database
    model = a_published_model(database, catalogue.owner)
    an_image(database, model)
    build = begin(catalogue.stores, kind)
    catalogue.stores.search.swap(build)
    assert builds.repair(catalogue.stores, build) == 1
    assert len(catalogue.indexed(build)) == 1
    database.run(models.unpublish(database.run(models.lock(model.id))))
    assert builds.repair(catalogue.stores, build) == 1
    assert catalogue.indexed(build) == []
