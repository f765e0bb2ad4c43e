"""Pictures that were sent for generations: their account's alone, counted for it, found with what it drew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
import pytest

from storage.postgres.accounts import quotas
from storage.postgres.connection import Database
from storage.postgres.generation import source_pictures
from storage.postgres.jobs import jobs
from storage.postgres.upkeep import invariants
from storage.records.generation.resolved_drawings import SourcePicture
from tests.storage.makers import a_drawn_picture, a_job, a_workflow, an_account

SENT = "ab" * 32


@pytest.fixture
def owner(database: Database) -> UUID:
    """Somebody who has sent a picture."""
    account = an_account(database)
    database.run(source_pictures.add(account, SENT, 1000, 64, 72))
    return account


def test_one_that_is_sent_again_is_the_same_and_counted_once(database: Database, owner: UUID) -> None:
    again = database.run(source_pictures.add(owner, SENT, 1000, 64, 72))
    assert database.run(source_pictures.of_account(owner, SENT)) == again
    assert database.run(quotas.kinds(owner)).images == database.run(quotas.usage(owner)).bytes == 1000
    assert database.run(invariants.broken(names=["miscounted_usage"])) == []
    assert database.run(source_pictures.delete(owner, SENT)) == [SENT]
    assert database.run(source_pictures.delete(owner, SENT)) == []
    held = database.run(quotas.usage(owner))
    assert (held.bytes, held.released_bytes) == (0, 1000)


def test_what_is_found_is_what_the_account_sent_or_drew(database: Database, owner: UUID) -> None:
    job = database.run(jobs.claim(a_workflow(database, owner).id, 1, None))
    drawn = a_drawn_picture(database, job).sha256
    sized = a_drawn_picture(database, job, number=1, sha256="cd" * 32, details={"step": "0"}).sha256
    training = database.run(jobs.claim(a_job(database, owner).id, 1, None))
    sample = a_drawn_picture(database, training).sha256
    wanted = [SENT, drawn, sized, sample, "00" * 32, SENT]
    assert database.run(source_pictures.find(owner, wanted)) == {
        SENT: SourcePicture(SENT, 64, 72),
        drawn: SourcePicture(drawn, 64, 64),
    }
    assert database.run(source_pictures.find(an_account(database, "another"), wanted)) == {}


@contextmanager
def looking(database_url: str, owner: UUID, *hashes: str) -> Iterator[None]:
    """A transaction that has found pictures and has not ended."""
    with psycopg.connect(database_url) as connection:
        query = source_pictures.find(owner, hashes)
        connection.execute(query.statement.encode(), query.parameters)
        yield


def test_who_goes_on_from_one_holds_up_who_deletes_it_and_nobody_else(
    database: Database, database_url: str, owner: UUID
) -> None:
    with looking(database_url, owner, SENT), psycopg.connect(database_url, autocommit=True) as other:
        database.run(source_pictures.add(owner, SENT, 1000, 64, 72))
        assert len(database.run(source_pictures.find(owner, [SENT]))) == 1
        other.execute("set lock_timeout = '100ms'")
        query = source_pictures.delete(owner, SENT)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute(query.statement.encode(), query.parameters)
    assert database.run(source_pictures.delete(owner, SENT)) == [SENT]
