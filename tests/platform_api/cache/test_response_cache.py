"""Cached responses: never older than the request, whatever is lost; one builds, others wait; absence is cached too."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from pydantic import SecretStr

from platform_api.cache.response_cache import CachedResponse, ResponseCache
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import AsyncDatabase, Query
from storage.postgres.events.watch import CatalogueWatch, Dependencies, Every
from storage.records.catalog.catalog import Model
from storage.settings import CacheSettings, RedisSettings, Settings
from tests.conftest import free_port
from tests.hypothesis_checks import ALL_HEALTH_CHECKS
from tests.platform_api.catalog.reading.shelf import put
from tests.platform_api.door import UNLIMITED, Door, listening, serving
from tests.platform_api.http.test_problems import assert_problem
from tests.platform_api.http.test_rate_limits import a_valkey


@pytest.fixture(scope="module")
def counted(module_database_url: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door that limits nobody."""
    with serving(tmp_path_factory.mktemp("kept"), module_database_url, valkey_server, limits=UNLIMITED) as door:
        yield door


def outcomes(door: Door) -> dict[str, int]:
    """How often responses were hit, missed, ... by the door's own figures."""
    found: dict[str, int] = {}
    for line in door.client("").get("/metrics").text.splitlines():
        if line.startswith("darkroom_cache_total{"):
            labels, value = line.split("{")[1].split("} ")
            layer, outcome = (part.split('"')[1] for part in labels.split(","))
            found[f"{layer} {outcome}"] = int(float(value))
    return found


def hits_of(door: Door, path: str, key: str = "") -> int:
    """How many cached responses a request was given: 1 or 0."""
    before = outcomes(door)
    assert door.client(key).get(path).status_code in (200, 404)
    after = outcomes(door)
    return sum(
        after.get(f"responses {kind}", 0) - before.get(f"responses {kind}", 0) for kind in ("hit", "hit_absence")
    )


def test_a_response_is_served_again_until_what_it_depends_on_changes(counted: Door) -> None:
    first, version = put(counted, "kept", b"kept")
    second, _ = put(counted, "other", b"other")
    digest = catalog_hash(counted, version.id)
    paths = (
        f"/api/v1/models/{first.id}",
        f"/api/v1/model-versions/{version.id}",
        f"/api/v1/model-versions/by-hash/{digest}",
        "/api/v1/models?limit=5",
        "/api/v1/creators",
        "/api/v1/tags",
    )
    for path in paths:
        hits_of(counted, path)
    assert [hits_of(counted, path) for path in paths] == [1] * 6
    counted.database.run(models.change(second, {"description": "changed"}))
    assert [hits_of(counted, path) for path in paths] == [1, 1, 0, 0, 0, 0]
    counted.database.run(models.change(first, {"description": "changed"}))
    assert [hits_of(counted, path) for path in paths] == [0] * 6
    downloads = "insert into model_stats (model_id, download_count) values (%(id)s, 7)"
    counted.database.run(Query(downloads, {"id": second.id}, len))
    assert [hits_of(counted, path) for path in paths] == [1, 1, 1, 0, 1, 1]
    of_version = "insert into version_stats (version_id, download_count) values (%(id)s, 7)"
    counted.database.run(Query(of_version, {"id": version.id}, len))
    shown = counted.client("").get(paths[0]).json()["modelVersions"][0]
    assert shown["stats"]["downloadCount"] == 7


def catalog_hash(door: Door, version_id: int) -> str:
    """The SHA-256 of a version's first file."""
    return door.database.run(catalog.files(version_id))[0].sha256


def test_a_cached_response_is_the_built_one_and_knows_its_validator(counted: Door) -> None:
    model, _ = put(counted, "equal", b"equal")
    client = counted.client("")
    for path in (f"/api/v1/models/{model.id}?colour=red", "/api/v1/models?limit=3&colour=red", "/api/v1/tags"):
        built, kept = client.get(path), client.get(path)
        changing = ("x-request-id", "date")
        assert kept.content == built.content
        assert {n: v for n, v in kept.headers.items() if n not in changing} == {
            n: v for n, v in built.headers.items() if n not in changing
        }
        assert kept.headers["x-request-id"] != built.headers["x-request-id"]
        for tag in (built.headers["etag"], f'"x", W/{built.headers["etag"]}', "*"):
            unchanged = client.get(path, headers={"If-None-Match": tag})
            assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert hits_of(counted, f"/api/v1/models/{model.id}?colour=red") == 1


def test_what_a_key_shows_is_never_kept_for_anybody(counted: Door) -> None:
    model, _ = put(counted, "secret", b"secret", availability="Private")
    path = f"/api/v1/models/{model.id}"
    for _ in range(2):
        assert counted.client().get(path).status_code == 200
        assert_problem(counted.client("").get(path), 404)
    assert hits_of(counted, path, counted.key) == 0


def test_what_another_restore_of_the_same_backup_kept_is_not_shown(counted: Door) -> None:
    model, _ = put(counted, "Restored Lantern", b"restored")
    names = {model["name"] for model in counted.client("").get("/api/v1/models").json()["items"]}
    assert "Restored Lantern" in names
    with psycopg.connect(counted.settings.postgres.url.get_secret_value()) as connection:
        # The same revision with other content, as in a database that was restored a second time.
        connection.execute("set local session_replication_role = replica")
        connection.execute("update models set name = 'Another Lantern' where id = %s", [model.id])
        connection.execute("update catalogue_home set epoch = gen_random_uuid()::text")
    # With another limit, for which no response is cached.
    names = {model["name"] for model in counted.client("").get("/api/v1/models?limit=99").json()["items"]}
    assert "Another Lantern" in names


def test_a_hash_that_nobody_has_is_kept_as_absent_until_somebody_has_it(counted: Door) -> None:
    path = f"/api/v1/model-versions/by-hash/{'AB' * 32}"
    assert hits_of(counted, path) == 0
    assert hits_of(counted, path) == 1
    problem = assert_problem(counted.client("").get(path), 404)
    assert problem["detail"] == "No version has a file with this hash."
    _, version = put(counted, "found at last", b"found")
    change = "update file_hashes set hash = %(hash)s where kind = 'BLAKE3' and file_id in (select id from version_files"
    counted.database.run(Query(change + " where version_id = %(id)s)", {"hash": "AB" * 32, "id": version.id}, len))
    assert counted.client("").get(path).json()["id"] == version.id


def test_many_at_once_are_served_by_one_that_builds(counted: Door) -> None:
    put(counted, "wanted by many", b"many")
    before = outcomes(counted)
    with httpx.Client(base_url=counted.url, timeout=60) as client, ThreadPoolExecutor(20) as pool:
        bodies = set(pool.map(lambda _: client.get("/api/v1/models?limit=7&types=LORA,Checkpoint").content, range(60)))
    after = outcomes(counted)
    assert len(bodies) == 1
    kept = {kind: after.get(f"responses {kind}", 0) - before.get(f"responses {kind}", 0) for kind in ("hit", "miss")}
    built = after["models missing"] - before.get("models missing", 0)
    assert kept["hit"] >= 40
    assert built <= len(counted.client("").get("/api/v1/models?limit=7").json()["items"])


def test_a_cache_that_is_off_keeps_nothing(counted: Door) -> None:
    settings_off = counted.settings.model_copy(update={"cache": CacheSettings(enabled=False)})
    with listening(settings_off) as url, httpx.Client(base_url=url) as client:
        shown = [client.get("/api/v1/models?limit=5") for _ in range(2)]
        assert shown[0].json() == shown[1].json()
        assert "darkroom_cache_total{" not in client.get("/metrics").text


def test_a_response_whose_reading_began_earlier_is_refused(tmp_path: Path, counted: Door) -> None:
    async def keep_two() -> tuple[ResponseCache, CachedResponse | None]:
        watch = CatalogueWatch(AsyncDatabase(counted.settings.postgres))
        memory = ResponseCache(Settings(data_folder=tmp_path), watch)
        await watch.look()
        key = (b"/x", b"", b"", "http")
        moment = watch.moment
        counted.database.run(models.change(put(counted, "late", b"late")[0], {"description": "later"}))
        await watch.look()
        new = CachedResponse([], b"new", b"", None, Dependencies(all_of=Every.ALL), watch.moment, float("inf"))
        old = CachedResponse([], b"old", b"", None, Dependencies(all_of=Every.ALL), moment, float("inf"))
        memory.keep(key, new)
        memory.keep(key, old)
        found = await memory.find(key)
        memory.keep((b"/y", b"", b"", "http"), old)
        assert await memory.find((b"/y", b"", b"", "http")) is None  # kept, but a change came after it was read
        await watch.close()
        return memory, found

    memory, found = asyncio.run(keep_two())
    assert found is not None
    assert (found.body, memory.counts["refused"]) == (b"new", 1)


class Readers(RuleBasedStateMachine):
    """Two API processes over one Valkey that is emptied, stopped and started; every read is of this very moment."""

    door: Door
    urls: tuple[str, ...]
    valkey: subprocess.Popen[bytes]
    port: int
    model: Model
    version_id: int
    digest: str

    @initialize()
    def begin(self) -> None:
        """What the database holds now."""
        self.number = 0
        self.hidden = self.banned = self.paused = False
        self.edit()
        self.unhide()
        self.unban()

    @rule()
    def edit(self) -> None:
        """A newer description."""
        self.number += 1
        self.door.database.run(models.change(self.model, {"description": str(self.number)}))

    @rule()
    def hide(self) -> None:
        """Only its owner sees it."""
        self.door.database.run(models.change(self.model, {"availability": "Private"}))
        self.hidden = True

    @rule()
    def unhide(self) -> None:
        """Everybody sees it."""
        self.door.database.run(models.change(self.model, {"availability": "Public"}))
        self.hidden = False

    @rule()
    def ban(self) -> None:
        """Nobody sees what its owner made."""
        ban = "update accounts set status = 'banned', ban_reason = 'spam' where id = %(id)s"
        self.door.database.run(Query(ban, {"id": self.model.account_id}, len))
        self.banned = True

    @rule()
    def unban(self) -> None:
        """Its owner is well again."""
        well = "update accounts set status = 'active', ban_reason = null where id = %(id)s"
        self.door.database.run(Query(well, {"id": self.model.account_id}, len))
        self.banned = False

    @rule(reader=st.integers(0, 1))
    def edit_slowly(self, reader: int) -> None:
        """A change of which nothing is to be seen before it commits, while another one overtakes it."""
        self.unhide()
        self.unban()
        with psycopg.connect(self.door.settings.postgres.url.get_secret_value()) as slow:
            slow.execute("select pg_current_xact_id()")  # its number is the lower one
            self.edit()
            self.read(reader)
            slow.execute("update models set description = %s where id = %s", (str(self.number + 1), self.model.id))
            self.read(reader)
            slow.commit()
        self.number += 1
        self.read(reader)

    @rule()
    def lose_the_watch(self) -> None:
        """The connections that ask what has changed are cut."""
        cut = (
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid() and query like %(asks)s"
        )
        self.door.database.run(Query(cut, {"asks": "%pg_current_snapshot()::text%"}, len))

    @rule()
    def flush(self) -> None:
        """Valkey forgets everything."""
        if not self.paused:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
                line.sendall(b"FLUSHALL\r\n")
                assert line.recv(64) == b"+OK\r\n"

    @rule()
    def pause(self) -> None:
        """Valkey takes connections and responds to nothing."""
        os.kill(self.valkey.pid, signal.SIGSTOP)
        self.paused = True

    @precondition(lambda self: self.paused)
    @rule()
    def go_on(self) -> None:
        """It responds again, also to what it was asked long ago."""
        os.kill(self.valkey.pid, signal.SIGCONT)
        self.paused = False

    @rule(reader=st.integers(0, 1))
    def read(self, reader: int) -> None:
        """Every address says what is committed now."""
        seen = not (self.hidden or self.banned)
        with httpx.Client(base_url=self.urls[reader], timeout=30) as client:
            shown = client.get(f"/api/v1/models/{self.model.id}")
            listed = client.get("/api/v1/models?limit=10").json()["items"]
            version = client.get(f"/api/v1/model-versions/{self.version_id}")
            by_hash = client.get(f"/api/v1/model-versions/by-hash/{self.digest}")
            creators = client.get("/api/v1/creators").text
        assert {shown.status_code, version.status_code, by_hash.status_code} == {200 if seen else 404}
        assert [item["description"] for item in listed if item["id"] == self.model.id] == (
            [str(self.number)] if seen else []
        )
        assert ("machine" in creators) == seen
        if seen:
            assert shown.json()["description"] == str(self.number)

    def teardown(self) -> None:
        """Valkey is left running."""
        os.kill(self.valkey.pid, signal.SIGCONT)


def test_a_read_is_never_older_than_what_was_committed_before_it(counted: Door, tmp_path: Path) -> None:
    port = free_port()
    theirs = dataclasses.replace(counted, account_id=counted.account("machine"))
    model, version = put(theirs, "machined", b"machined")
    with ExitStack() as running:
        valkey = running.enter_context(a_valkey(tmp_path, port))
        both = counted.settings.model_copy(deep=True)
        both.redis = RedisSettings(url=SecretStr(f"redis://127.0.0.1:{port}/0"))
        urls = tuple(running.enter_context(listening(both)) for _ in range(2))
        facts = {"door": counted, "urls": urls, "valkey": valkey, "port": port, "model": model}
        facts |= {"version_id": version.id, "digest": catalog_hash(counted, version.id)}
        machine = type("TheseReaders", (Readers,), facts)
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=5,
                stateful_step_count=20,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=ALL_HEALTH_CHECKS,
            ),
        )
