"""The policy and the database are one: for anybody it equals the columns that lists read, for everybody the clauses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, hashes, images
from storage.postgres.connection import Database, Query, as_record
from storage.postgres.policy import policy
from storage.records.accounts.accounts import Role
from storage.records.catalog.vocabulary import Status
from storage.records.policy.facts import Facts, Thing, file_facts, model_facts, version_facts
from storage.records.policy.rights import is_public, is_public_version, is_shown_image, may
from storage.records.policy.viewers import ANYBODY, Viewer
from storage.settings import PostgresSettings
from tests.storage.makers import a_model, a_version, an_image

DATES = {"Published": True, "Unpublished": True, "UnpublishedViolation": True, "Draft": False, "Scheduled": False}

STATES = st.fixed_dictionaries(
    {
        "status": st.sampled_from([*DATES, "Deleted"]),
        "availability": st.sampled_from(["Public", "Unsearchable", "Private"]),
        "mode": st.sampled_from([None, "Archived", "TakenDown"]),
        "version_status": st.sampled_from([*DATES, "Deleted"]),
        "version_availability": st.sampled_from(["Public", "Unsearchable", "Private"]),
        "require_auth": st.booleans(),
        "usage_control": st.sampled_from(["Download", "Generation"]),
        "visibility": st.sampled_from(["Public", "Private", "Sensitive"]),
        "type": st.sampled_from(["Model", "Training Data"]),
        "file_gone": st.booleans(),
        "level": st.sampled_from([1, 2, 16, 32]),
        "image_gone": st.booleans(),
        "owner_banned": st.booleans(),
        "shown_by_banned": st.booleans(),
    }
)

_CHANGES = """
update models
   set status = %(status)s, availability = %(availability)s, mode = %(mode)s,
       published_at = case when %(status)s in ('Published', 'Unpublished', 'UnpublishedViolation', 'Deleted')
                           then now() end,
       scheduled_for = case when %(status)s = 'Scheduled' then now() + interval '1 day' end,
       gone_at = case when %(status)s = 'Deleted' or %(mode)s is not distinct from 'TakenDown' then now() end,
       gone_reason = case when %(status)s = 'Deleted' or %(mode)s is not distinct from 'TakenDown' then 'a' end
 where id = %(model)s;
update model_versions
   set status = %(version_status)s, availability = %(version_availability)s, require_auth = %(require_auth)s,
       usage_control = %(usage_control)s,
       published_at = case when %(version_status)s not in ('Draft', 'Scheduled') then now() end,
       scheduled_for = case when %(version_status)s = 'Scheduled' then now() + interval '1 day' end,
       gone_at = case when %(version_status)s = 'Deleted' then now() end,
       gone_reason = case when %(version_status)s = 'Deleted' then 'b' end
 where id = %(version)s;
update version_files
   set visibility = %(visibility)s, type = %(type)s, gone_at = case when %(file_gone)s then now() end
 where id = %(file)s;
update images set nsfw_level = %(level)s, gone_at = case when %(image_gone)s then now() end where id = %(image)s;
update accounts set status = case when %(owner_banned)s then 'banned' else 'active' end,
                    ban_reason = case when %(owner_banned)s then 'c' end where id = %(owner)s;
update accounts set status = case when %(shown_by_banned)s then 'banned' else 'active' end,
                    ban_reason = case when %(shown_by_banned)s then 'c' end where id = %(helper)s;
"""

_RAW = """
select owner.id as owner_id, owner.status = 'active' as owner_active, model.id as model_id, model.status,
       model.availability, model.mode, model.published_at is not null as was_published,
       model.gone_at is not null as gone, model.gone_reason, version.id as version_id,
       version.status as version_status, version.availability as version_availability,
       version.published_at is not null as version_was_published, version.gone_at is not null as version_gone,
       version.gone_reason as version_gone_reason, version.require_auth, version.usage_control,
       exists (select from version_files file
                where file.version_id = version.id and file.role = 'weights' and file.visibility = 'Public'
                  and file.type <> 'Training Data' and file.gone_at is null) as has_public_file
  from model_versions version
  join models model on model.id = version.model_id
  join accounts owner on owner.id = model.account_id
 where version.id = %(version)s
"""
"""The facts as the tables have them, without any derived column."""


class Rows:
    """One model with one version, one file and one image, whose states are set at will."""

    def __init__(self, database: Database) -> None:
        self.database = database
        owner, helper = (database.run(accounts.ensure_account(name)).id for name in ("owner", "helper"))
        keeper = database.run(accounts.ensure_account("keeper", Role.MODERATOR)).id
        other = database.run(accounts.ensure_account("other")).id
        self.model = a_model(database, owner)
        self.version = a_version(database, self.model)
        [self.file] = database.run(catalog.files(self.version.id))
        self.image = an_image(database, self.model)
        database.run(Query("update images set account_id = %(id)s returning id", {"id": helper}, len))
        self.ids: dict[str, object] = {"owner": owner, "helper": helper, "model": self.model.id, "image": self.image}
        self.ids |= {"version": self.version.id, "file": self.file.id}
        self.viewers = [ANYBODY, *(Viewer(account_id=one) for one in (other, owner))]
        self.viewers.append(Viewer(account_id=keeper, moderator=True))

    def put(self, state: dict[str, object]) -> None:
        """Write a state and let the triggers derive from it, one transaction for all."""
        connection: psycopg.Connection[Any]
        with self.database.connect() as connection, connection.transaction():
            for statement in _CHANGES.split(";")[:-1]:
                connection.execute(statement.encode(), {**self.ids, **state})

    def raw(self, state: dict[str, object]) -> dict[Thing, Facts]:
        """The facts of each thing, from the tables and the state that was put."""
        [row] = self.database.run(Query(_RAW, self.ids, lambda rows: [dict(one) for one in rows]))
        public = bool(row["version_status"] == "Published" and row["version_availability"] != "Private")
        row["has_public_version"] = public and row["has_public_file"]
        file = {"file_id": self.ids["file"], "visibility": state["visibility"], "file_gone": state["file_gone"]}
        image = {"image_id": self.image, "image_level": state["level"], "image_gone": state["image_gone"]}
        image |= {"shown_by_active": not state["shown_by_banned"], "level": state["level"]}
        more: dict[Thing, dict[str, Any]] = {Thing.MODEL: {}, Thing.VERSION: {}, Thing.FILE: file, Thing.IMAGE: image}
        return {thing: as_record(Facts, {**row, **rest, "thing": thing}) for thing, rest in more.items()}


@pytest.fixture(scope="module")
def rows(module_database_url: str) -> Iterator[Rows]:
    with Database(PostgresSettings(url=SecretStr(module_database_url))) as database:
        yield Rows(database)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=STATES)
def test_the_policy_is_what_the_columns_and_the_clauses_say(rows: Rows, state: dict[str, object]) -> None:
    if state["status"] == "Deleted":
        state["mode"] = None
    rows.put(state)
    facts, database = rows.raw(state), rows.database
    model = database.run(catalog.model_by_id(rows.model.id))
    version = database.run(catalog.version_by_id(rows.version.id))
    of_model, of_version = facts[Thing.MODEL], facts[Thing.VERSION]
    assert (model.visible, model.public_versions == (version.id,)) == (
        is_public(of_model),
        is_public_version(of_version),
    )
    assert model.owner_active == of_model.owner_active
    assert may(ANYBODY, of_model).see == model.visible
    assert may(ANYBODY, of_version).see == (model.visible and version.id in model.public_versions)
    assert may(ANYBODY, of_model).listed == (model.listed and bool(of_model.level & 31))
    found = {**_at_doors(rows), **_of_records(rows)}
    for (thing, source), one in found.items():
        for viewer in rows.viewers:
            assert _said(thing, may(viewer, one)) == _said(thing, may(viewer, facts[thing])), (thing, source, viewer)
    for viewer in rows.viewers:
        _check_lists(rows, viewer, facts)


def _said(thing: Thing, rights: Any) -> tuple[object, ...]:
    """What is refused; a model by itself has no bytes to fetch."""
    return rights.unseen, thing is Thing.MODEL or rights.unfetched, rights.unchanged


def _at_doors(rows: Rows) -> dict[tuple[Thing, str], Facts]:
    """The facts as the statements of doors read them."""
    run = rows.database.run
    return {
        (Thing.FILE, "by id"): run(policy.file_by_id(rows.file.id, None)).facts,
        (Thing.IMAGE, "by id"): run(policy.image(rows.image)).facts,
    }


def _of_records(rows: Rows) -> dict[tuple[Thing, str], Facts]:
    """The facts as they are made from rows that were read anyway."""
    run = rows.database.run
    model, version = run(catalog.model_by_id(rows.model.id)), run(catalog.version_by_id(rows.version.id))
    made = {(Thing.MODEL, "record"): model_facts(model), (Thing.VERSION, "record"): version_facts(model, version)}
    for file in run(catalog.files(version.id)):
        made[Thing.FILE, "record"] = file_facts(version_facts(model, version), file)
    return made


def _check_lists(rows: Rows, viewer: Viewer, facts: dict[Thing, Facts]) -> None:
    """The clauses that lists ask of all rows at once."""
    rights = may(viewer, facts[Thing.VERSION])
    clauses = policy.with_clauses(
        {
            "seen": "select {seen_version} as version, {seen_model} as model from model_versions version"
            " join models model on model.id = version.model_id where version.id = %(version)s"
        }
    )
    parameters = {**policy.viewing(viewer), "version": rows.version.id}
    [row] = rows.database.run(Query(clauses["seen"], parameters, lambda found: [dict(one) for one in found]))
    # A moderator reads what was taken down by its number; no list has it.
    taken_down = facts[Thing.MODEL].gone
    assert row["version"] == (rights.see and not taken_down)
    assert row["model"] == (may(viewer, facts[Thing.MODEL]).see and not taken_down)
    everything = [rows.version.id] if viewer.has_power_over(facts[Thing.MODEL].owner_id) else []
    listed = rows.database.run(images.of_versions([rows.version.id], 5, everything_of=everything))
    image = facts[Thing.IMAGE]
    assert bool(listed) == (not image.image_gone and (bool(everything) or is_shown_image(image)))
    if rights.see and not taken_down:
        assert bool(listed) == may(viewer, image).see
        known = rows.database.run(hashes.lookup([rows.file.sha256], viewer))
        assert bool(known) == may(viewer, facts[Thing.FILE]).see or facts[Thing.MODEL].status is Status.DELETED
