"""Channels as rows (0038): rows of before stay, another name is refused, one of another release is left to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from deployments.local.servers.postgres import EmbeddedPostgres
from storage.postgres.connection import Database
from storage.postgres.lookup_tables import MappingRefused
from storage.postgres.migrating import MigrationBlocked, migrate
from storage.postgres.notifications import deliveries, endpoints, sendings
from storage.records.notifications.channels import OUTWARD, Channel
from storage.settings import PostgresSettings
from tests.conftest import fresh_database
from tests.storage.postgres.earlier_schema import earlier_database

LAST_BEFORE = "0037"
TABLES = ("notification_preferences", "endpoints", "channel_pauses", "sendings", "deliveries")
ROWS = """
insert into accounts (name) values ('owner');
insert into notifications (key, type, details, audience, title, text) values ('k', 'system', '{}', 'everyone', 'T', '');
insert into notification_preferences (type, channel, reader, frequency)
select 'system', channel, number, 'now'
  from accounts, unnest(array['in_app', 'email', 'webhook', 'push', 'chat']) channel;
insert into endpoints (reader, channel, state, address, shown, secret)
select number, channel, 'active', 'sealed', channel, case when channel = 'webhook' then 'sealed'::bytea end
  from accounts, unnest(array['email', 'webhook', 'push', 'chat']) channel;
insert into channel_pauses (channel) values ('email'), ('webhook'), ('push'), ('chat');
insert into sendings (id, purpose, reader, channel)
select gen_random_uuid(), 'notify', number, channel
  from accounts, unnest(array['email', 'webhook', 'push', 'chat']) channel;
insert into deliveries (notification_id, reader, channel, state, frequency, due_at)
select 1, number, channel, case when channel = 'in_app' then 'sent' else 'waiting' end, 'now',
       case when channel <> 'in_app' then now() end
  from accounts, unnest(array['in_app', 'email', 'webhook', 'push', 'chat']) channel;
"""
LATER = """
insert into channels (name) values ('pigeon');
insert into address_channels (name, signed) values ('pigeon', false);
insert into accounts (name) values ('owner');
insert into notifications (key, type, details, audience, title, text) values ('k', 'system', '{}', 'everyone', 'T', '');
insert into endpoints (reader, channel, state, address, shown) values (1, 'pigeon', 'active', 'sealed', 'p');
insert into sendings (id, purpose, reader, channel, state, ended_at)
values (gen_random_uuid(), 'notify', 1, 'pigeon', 'due', null), ('{dead}', 'notify', 1, 'pigeon', 'dead', now());
insert into deliveries (notification_id, reader, channel, state, frequency, due_at)
values (1, 1, 'pigeon', 'waiting', 'now', now());
"""
DEAD = UUID(int=9)


@pytest.fixture(scope="module")
def upgraded(
    postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A database with rows of before that was brought up to date, and what each table held before."""
    with earlier_database(postgres_server, tmp_path_factory.mktemp("sql"), last=LAST_BEFORE, rows=ROWS) as url:
        before = {table: contents(url, table) for table in TABLES}
        migrate(url)
        yield url, before


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def contents(url: str, table: str) -> list[tuple[Any, ...]]:
    return rows(url, f"select row.*::text from {table} row order by 1")


def test_every_row_of_before_is_there(upgraded: tuple[str, dict[str, Any]]) -> None:
    url, before = upgraded
    assert {table: len(found) for table, found in before.items()} == dict(zip(TABLES, (5, 4, 4, 4, 5), strict=True))
    assert {table: contents(url, table) for table in TABLES} == before
    unchecked = "select conname from pg_constraint where conname like '%\\_channel' and not convalidated"
    assert rows(url, unchecked) == []


def test_the_tables_hold_what_the_mapping_names(upgraded: tuple[str, dict[str, Any]]) -> None:
    url, _ = upgraded
    assert rows(url, "select name from channels order by name") == sorted((str(channel),) for channel in Channel)
    signed = sorted((str(channel), outward.signed) for channel, outward in OUTWARD.items())
    assert rows(url, "select name, signed from address_channels order by name") == signed


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        (
            "insert into notification_preferences values ('system', 'pigeon', 1, 'now') returning 1",
            "notification_preferences_channel",
        ),
        (
            "insert into endpoints (reader, channel, state, address, shown) values (1, 'in_app', 'active', '', '') "
            "returning 1",
            "endpoints_channel",
        ),
        (
            "insert into endpoints (reader, channel, state, address, shown) values (1, 'webhook', 'active', '', '') "
            "on conflict (reader, channel) do update set secret = null returning 1",
            "endpoints_secret",
        ),
        ("update endpoints set secret = 'x' where channel = 'email' returning 1", "endpoints_secret"),
        ("update endpoints set channel = 'pigeon' where channel = 'email' returning 1", "endpoints_channel"),
        ("insert into channel_pauses values ('in_app') returning 1", "channel_pauses_channel"),
        (
            "insert into sendings (id, purpose, reader, channel) values (gen_random_uuid(), 'notify', 1, 'in_app') "
            "returning 1",
            "sendings_channel",
        ),
        (
            "insert into deliveries (notification_id, reader, channel, state, frequency) "
            "select n, 1, case n when 9 then 'pigeon' else 'email' end, 'sent', 'now' from generate_series(5, 9) n "
            "returning 1",
            "deliveries_channel",
        ),
        ("update deliveries set channel = 'push' where channel = 'in_app' returning 1", "deliveries_channel"),
    ],
)
def test_a_name_that_is_no_channel_is_refused(
    upgraded: tuple[str, dict[str, Any]], statement: str, constraint: str
) -> None:
    with pytest.raises(psycopg.errors.IntegrityError) as refused:
        rows(upgraded[0], statement)
    assert refused.value.diag.constraint_name == constraint


def test_what_is_on_a_channel_of_another_release_is_left_to_it(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(LATER.replace("{dead}", str(DEAD)).encode())
    assert migrate(database_url) == []
    assert rows(database_url, "select count(*) from channels where name = 'pigeon'") == [(1,)]
    with Database(PostgresSettings(url=SecretStr(database_url))) as database:
        assert database.run(deliveries.due(datetime.now(UTC), 10)) == []
        assert database.run(deliveries.next_due()) is None
        assert database.run(lambda: deliveries.wanted("deliver")) is None
        lag = database.run(deliveries.lag())
        assert (lag.waiting, lag.sendings, lag.oldest_seconds, lag.of_other_releases) == (0, 0, 0, 2)
        assert database.run(sendings.claim(60)) is None
        assert database.run(sendings.dead()) == []
        assert database.run(endpoints.of_reader(1)) == []
        assert [one.channel for one in database.run(endpoints.all_held())] == ["pigeon"]


def test_a_mapping_that_contradicts_the_rows_of_before_is_refused(database_url: str) -> None:
    rows(database_url, "update address_channels set signed = true where name = 'email' returning 1")
    with pytest.raises(MappingRefused, match="says of email"):
        migrate(database_url)


def test_tables_that_somebody_holds_are_waited_for_and_then_named(postgres_server: EmbeddedPostgres) -> None:
    with fresh_database(postgres_server, "template1") as url:
        migrate(url)
        with psycopg.connect(url) as holder:
            holder.execute("lock table channels in access exclusive mode")
            with pytest.raises(MigrationBlocked, match="of the lookup tables did not get its locks"):
                migrate(url, patience_seconds=0.1)
            holder.rollback()
        assert migrate(url) == []
