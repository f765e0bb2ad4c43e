"""The blob store and its sweep equal a dict: what is named is there, what is not named goes after a day, no earlier."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from psycopg.rows import DictRow
from pydantic import SecretStr

from flows.upkeep.blob_sweep import sweep_blobs
from storage.blobs.store import BlobStore
from storage.errors import BlobMissing
from storage.postgres.connection import Database, Query, Rows
from storage.postgres.jobs import data_sets
from storage.postgres.upkeep import orphans, references
from storage.records.jobs.data_sets import DataSetImage
from storage.settings import BlobSettings, PostgresSettings, Settings
from storage.stores import Stores
from tests.files import unused_for
from tests.properties.machines import Fault, Machine, ProcessDied, assert_caught, fault, run
from tests.storage.makers import an_account

CONTENTS = st.sampled_from([b"one", b"two", b"three"])
HOUR = 3600.0
GRACE = 24


class MortalDatabase(Database):
    """Dies before a statement, when told to."""

    dies_in: int | None = None

    def _rows(self, connection: psycopg.Connection[DictRow], query: Query[Any]) -> Rows:
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in <= 0:
                self.dies_in = None
                raise ProcessDied
        return super()._rows(connection, query)


@dataclass
class Known:
    """What the model knows of some bytes: hours since they were written, since a sweep found no row; rows that name."""

    written: float | None = None
    orphan: float | None = None
    rows: int = 0


class Blobs(Machine):
    """Those who put, name, forget, read and sweep, and a clock."""

    tables = ("orphans", "data_set_images", "data_sets")

    def __init__(self, database: MortalDatabase, folder: Path) -> None:
        database.dies_in = None  # a run that was broken off may have left it
        super().__init__(database)
        self.mortal, self.folder, self.ahead = database, folder / "blobs", 0.0
        shutil.rmtree(self.folder, ignore_errors=True)
        settings = Settings(data_folder=folder, blobs=BlobSettings(url=self.folder.as_uri(), orphan_grace_hours=GRACE))
        renew = lambda sha256: database.run(orphans.renew(sha256))  # noqa: E731
        self.store = BlobStore(settings.blobs, renew, lambda: time.time() + self.ahead)
        self.stores = Stores(settings, database, self.store, *(cast(Any, None),) * 3)
        self.account = an_account(database)
        self.known: dict[bytes, Known] = {content: Known() for content in (b"one", b"two", b"three")}

    def path(self, content: bytes) -> Path:
        """Where bytes lie."""
        sha256 = hashlib.sha256(content).hexdigest()
        return self.folder / sha256[:2] / sha256

    @rule(content=CONTENTS, how=st.sampled_from(["put", "put_stream", "put_file", "put_hashed"]))
    def put(self, content: bytes, how: str) -> None:
        known, file = self.known[content], self.folder.parent / "file"
        file.unlink(missing_ok=True)
        file.write_bytes(content)
        match how:
            case "put":
                self.store.put(content)
            case "put_stream":
                self.store.put_stream(iter([content[:1], content[1:]]))
            case "put_file":
                self.store.put_file(file)
            case _:
                self.store.put_hashed(file, hashlib.sha256(content).hexdigest())
        if known.written is None:
            known.written = 0
            unused_for(self.path(content), -self.ahead)
        elif known.orphan is not None:
            known.orphan = 0

    @rule(content=CONTENTS)
    def a_writer_fails(self, content: bytes) -> None:
        def pieces() -> Iterator[bytes]:
            yield content
            raise ProcessDied

        with pytest.raises(ProcessDied):
            self.store.put_stream(pieces())

    @rule(content=CONTENTS)
    def name(self, content: bytes) -> None:
        """A row after a put: only what is there is named."""
        known = self.known[content]
        if known.written is not None:
            image = DataSetImage(
                position=0,
                name="a.png",
                sha256=hashlib.sha256(content).hexdigest(),
                size=len(content),
                width=64,
                height=64,
            )
            self.database.run(data_sets.create(self.account, "photos", [image]))
            known.rows += 1

    @rule(content=CONTENTS)
    def forget_rows(self, content: bytes) -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        self.execute("delete from data_set_images where sha256 = %(sha256)s", sha256=sha256)
        self.known[content].rows = 0

    @rule(content=CONTENTS)
    def lose(self, content: bytes) -> None:
        """Somebody deletes a file that no row names."""
        if not self.known[content].rows:
            self.store.delete(hashlib.sha256(content).hexdigest())
            self.known[content].written = None

    @rule(content=CONTENTS)
    def lose_and_put_again(self, content: bytes) -> None:
        """A sweep comes in between: the new bytes wait from when they are seen, whatever the old ones waited."""
        self.lose(content)
        self.sweep()
        self.put(content, "put")

    @rule(hours=st.sampled_from([1.0, 10.0, 23.0, 24.0]))
    def wait(self, hours: float) -> None:
        """Time passes in which sweeps ran and looked at what they know."""
        self.ahead += hours * HOUR
        self.execute("update orphans set since = since - make_interval(secs => %(s)s)", s=hours * HOUR)
        for known in self.known.values():
            known.orphan = None if known.orphan is None else known.orphan + hours
            known.written = None if known.written is None else known.written + hours

    @rule()
    def sweep(self) -> None:
        deleted = 0
        for known in self.known.values():
            if known.written is None or known.rows:
                known.orphan = None
            elif known.orphan is None or (known.orphan >= GRACE and known.written < GRACE):
                known.orphan = 0
            elif known.orphan >= GRACE:
                known.orphan, known.written = None, None
                deleted += 1
        assert len(sweep_blobs(self.stores)) == deleted

    @rule()
    def a_day_later(self) -> None:
        """A day passes and the next sweep comes: what many faults need in that order."""
        self.wait(float(GRACE))
        self.sweep()

    @rule(content=CONTENTS)
    def put_again_in_time(self, content: bytes) -> None:
        """An hour before a day is over somebody wants the bytes again: their wait begins again."""
        self.wait(GRACE - 1.0)
        self.put(content, "put")
        self.wait(1.0)
        self.sweep()

    @rule(after=st.integers(1, 12))
    def a_sweep_dies(self, after: int) -> None:
        """Whatever it came to: nothing that is named is gone, and nothing that has not waited."""
        self.mortal.dies_in = after
        with suppress(ProcessDied):
            sweep_blobs(self.stores)
        self.mortal.dies_in = None
        waits = self.execute("select sha256, extract(epoch from now() - since) / 3600 as hours from orphans")
        hours = {str(row["sha256"]): round(float(row["hours"])) for row in waits}
        for content, known in self.known.items():
            if not self.path(content).exists() and known.written is not None:
                assert not known.rows
                assert (known.orphan or 0) >= GRACE
                assert known.written >= GRACE
                known.written = None
            known.orphan = hours.get(hashlib.sha256(content).hexdigest())

    @invariant()
    def store_equals_the_model(self) -> None:
        """What is there is whole, what is not is refused by name, and nothing half-written lies about."""
        for content, known in self.known.items():
            sha256 = hashlib.sha256(content).hexdigest()
            if known.written is None:
                with pytest.raises(BlobMissing):
                    self.store.open(sha256)
            else:
                assert self.store.read(sha256) == content
        present = {content for content, known in self.known.items() if known.written is not None}
        assert {blob.sha256 for blob in self.store.list()} == {hashlib.sha256(one).hexdigest() for one in present}
        incoming = self.folder / ".incoming"
        assert not incoming.exists() or list(incoming.iterdir()) == []


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[MortalDatabase]:
    with MortalDatabase(PostgresSettings(url=SecretStr(module_database_url))) as opened:
        yield opened


def test_the_store_equals_a_dict(database: MortalDatabase, tmp_path: Path) -> None:
    run(lambda: Blobs(database, tmp_path), examples=10)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_store_equals_a_dict_at_length(database: MortalDatabase, tmp_path: Path) -> None:
    run(lambda: Blobs(database, tmp_path), examples=500, steps=50)


FAULTS = [
    fault(orphans.SQL, "renew", "set since = now(), ", "set "),
    fault(orphans.SQL, "note", "select unnest(%(hashes)s::text[])", "select unnest(%(hashes)s::text[]) limit 1"),
    fault(orphans.SQL, "forget", "sha256 = any(%(hashes)s::text[])", "false"),
    fault(orphans.SQL, "forget_gone", "sha256 > %(low)s and sha256 < %(high)s and", "false and"),
    fault(orphans.SQL, "due", "and since <= now()", "and since > now()"),
    fault(references.SQL, "referenced", "exists (select from data_set_images where sha256 = hash)", "false"),
]
"""Each of them must be noticed by the machine."""


@pytest.mark.soak
@pytest.mark.parametrize("made", FAULTS, ids=str)
def test_every_fault_is_caught(database: MortalDatabase, tmp_path: Path, made: Fault) -> None:
    assert_caught(lambda: Blobs(database, tmp_path), made)
