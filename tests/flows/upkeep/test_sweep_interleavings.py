"""Whatever steps a sweep and those who put bytes take in whatever order: what a row names is there."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from psycopg.rows import dict_row
from pydantic import SecretStr

from flows.upkeep.blob_sweep import sweep_blobs
from storage.blobs.store import BlobStore
from storage.errors import StoreUnavailable
from storage.postgres.connection import Database, Query
from storage.postgres.jobs import data_sets
from storage.postgres.upkeep import orphans
from storage.settings import BlobSettings, PostgresSettings, Settings
from storage.stores import Stores
from tests.interleavings import Actor, Schedule, SteppedDatabase, step_through, stepped_disk
from tests.storage.makers import an_account

CONTENT = b"a photo"
Work = Callable[[], object]


@dataclass
class World:
    """A blob store and a database that actors use step by step."""

    stores: Stores
    plain: Database
    schedule: Schedule
    url: str

    def reset(self, *, orphan: bool, due: bool) -> str:
        """Old bytes that no row names; `orphan`: a sweep has noted it; `due`: long ago."""
        self.run("delete from data_set_images")
        self.run("delete from orphans")
        store = BlobStore(self.stores.settings.blobs)
        for blob in store.list():
            store.delete(blob.sha256)
        sha256 = store.put(CONTENT).sha256
        if self.url.startswith("file:"):
            os.utime(Path(self.url.removeprefix("file://")) / sha256[:2] / sha256, (0, 0))
        else:
            path = f"/{self.url.removeprefix('memory://')}/{sha256[:2]}/{sha256}"
            MemoryFileSystem.store[path].created = datetime.fromtimestamp(0, UTC)
        if orphan:
            since = "now() - interval '2 days'" if due else "now()"
            self.run(f"insert into orphans (sha256, since) values ('{sha256}', {since})")
        return sha256

    def run(self, statement: str) -> list[dict[str, object]]:
        # By the connection of the schedule, which outlives a cut-off: a pool waits for a second before it asks again.
        with self.schedule.watch.cursor(row_factory=dict_row) as cursor:
            cursor.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def put_and_name(self) -> None:
        """What an upload does: bytes, then the row."""
        blob = self.stores.blobs.put(CONTENT)
        self.stores.database.run(Query(NAME, {"sha256": blob.sha256, "size": blob.size}, len))

    def put_stream_and_name(self) -> None:
        """The same, for bytes whose name is known at their end."""
        blob = self.stores.blobs.put_stream(iter([CONTENT]))
        self.stores.database.run(Query(NAME, {"sha256": blob.sha256, "size": blob.size}, len))

    def sweep(self) -> None:
        """One sweep of all."""
        sweep_blobs(self.stores)

    def lost(self) -> bool:
        """Whether a row names bytes that are not there."""
        store = BlobStore(self.stores.settings.blobs)
        return not all(store.exists(str(row["sha256"])) for row in self.run("select sha256 from data_set_images"))


NAME = """
insert into data_set_images (data_set_id, position, name, sha256, size, width, height)
select id, (select count(*) from data_set_images), 'a.png', %(sha256)s, %(size)s, 64, 64 from data_sets
"""


@contextmanager
def stepped(url: str, database_url: str, folder: Path) -> Iterator[World]:
    postgres = PostgresSettings(url=SecretStr(database_url))
    settings = Settings(data_folder=folder, postgres=postgres, blobs=BlobSettings(url=url))
    schedule = Schedule(database_url)
    with SteppedDatabase(postgres) as database, Database(postgres) as plain:
        blobs = BlobStore(settings.blobs, lambda sha256: database.run(orphans.renew(sha256)))
        stores = Stores(settings, database, step_through(blobs), *(cast(Any, None),) * 3)
        plain.run(data_sets.create(an_account(plain), "photos", []))
        yield World(stores, plain, schedule, url)
    schedule.close()


@pytest.fixture
def disk(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with stepped((tmp_path / "blobs").as_uri(), database_url, tmp_path) as world, stepped_disk(monkeypatch):
        yield world


@pytest.fixture
def memory(database_url: str, tmp_path: Path) -> Iterator[World]:
    with stepped(f"memory://{tmp_path.name}/blobs", database_url, tmp_path) as world:
        yield world


def steps_of(world: World, work: Work, **state: bool) -> int:
    """How many points an actor comes to when it is alone."""
    world.reset(**state)
    actor = Actor(work)
    world.schedule.finish([actor], 0)
    return actor.points


def explore(world: World, first: Work, second: Work, *, stride: int = 1, **state: bool) -> str | None:
    """Stop each of two actors once, at every point: `first` after i steps, then `second` after j, then to the end.

    `stride`: of every so many orders one, in which each point of both occurs. Returns the order that lost bytes, or
    None.
    """
    lengths = (steps_of(world, first, **state), steps_of(world, second, **state))
    assert min(lengths) > 3
    for i, j in product(range(lengths[0]), range(lengths[1])):
        if (i + j) % stride:
            continue
        world.reset(**state)
        actors = [Actor(first), Actor(second)]
        for chosen, steps in ((0, i), (1, j)):
            for _ in range(steps):
                world.schedule.step(actors, chosen)
        world.schedule.finish(actors, 0)
        if world.lost():
            return f"{i} steps of the first, {j} of the second"
    return None


def test_no_sweep_takes_bytes_from_a_put_that_found_them(disk: World) -> None:
    """Every third order; the soak has all, in `test_every_order_of_a_sweep_and_a_put`."""
    assert explore(disk, disk.sweep, disk.put_and_name, stride=3, orphan=True, due=True) is None


def test_a_put_that_asked_nobody_would_lose_them(memory: World) -> None:
    """That the schedules find the fault they are made for."""
    memory.stores.blobs._renew = None
    assert explore(memory, memory.sweep, memory.put_and_name, stride=3, orphan=True, due=True) is not None


def test_a_put_that_looked_only_once_would_lose_them(memory: World) -> None:
    """As it would if it did not wait for the deletion that is under way."""
    blobs, plain = memory.stores.blobs, memory.plain
    skip = "select from orphans where sha256 = %(sha256)s for update skip locked"
    blobs._renew = lambda sha256: plain.run(Query(skip, {"sha256": sha256}, len))
    assert explore(memory, memory.sweep, memory.put_stream_and_name, stride=3, orphan=True, due=True) is not None


@pytest.mark.parametrize(
    ("place", "stride"),
    [("memory", 5), *(pytest.param(place, 1, marks=pytest.mark.soak) for place in ("disk", "memory"))],
)
def test_no_sweep_that_lost_postgres_takes_bytes_that_were_named_since(
    request: pytest.FixtureRequest, place: str, stride: int
) -> None:
    """Its lock is gone at any point of it; a put finds the bytes and names them; then the sweep goes on."""
    world: World = request.getfixturevalue(place)
    for steps in range(0, steps_of(world, world.sweep, orphan=True, due=True), stride):
        world.reset(orphan=True, due=True)
        sweep = Actor(world.sweep)
        for _ in range(steps):
            world.schedule.step([sweep], 0)
        world.schedule.cut_off()
        put = Actor(world.put_and_name)
        world.schedule.finish([put], 0)
        with suppress(StoreUnavailable):
            world.schedule.finish([sweep], 0)
        assert not world.lost(), f"lost by a sweep that was cut off after {steps} steps"


@pytest.mark.soak
@pytest.mark.parametrize("due", [True, False])
@pytest.mark.parametrize("orphan", [True, False])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_every_order_of_a_sweep_and_a_put(
    request: pytest.FixtureRequest, place: str, stream: bool, orphan: bool, due: bool
) -> None:
    world: World = request.getfixturevalue(place)
    put = world.put_stream_and_name if stream else world.put_and_name
    assert explore(world, world.sweep, put, orphan=orphan, due=due) is None
    assert explore(world, put, world.sweep, orphan=orphan, due=due) is None
    assert explore(world, put, put, orphan=orphan, due=due) is None


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_two_sweeps_and_two_puts_in_any_order(disk: World, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(200):
        disk.reset(orphan=chance.random() < 0.8, due=chance.random() < 0.8)
        works = (disk.sweep, disk.sweep, disk.put_and_name, disk.put_stream_and_name)
        actors = [Actor(work) for work in works]
        order: list[int] = []
        while not all(actor.ended for actor in actors):
            order.append(chance.randrange(len(actors)))
            disk.schedule.step(actors, order[-1])
        disk.schedule.finish(actors, 0)
        assert not disk.lost(), f"lost by {order}"
