"""Real stores for every test: one Postgres and one Valkey for each pytest process, both gone at its end.

`database_url` is a fresh, migrated database for one test (0.1 s: a copy of a template); `module_database_url` is one
for a whole module, cheaper when its tests do not disturb each other. `valkey_url` is emptied before each test.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from deployments.local.servers.postgres import EmbeddedPostgres
from deployments.local.servers.valkey import valkey_command
from storage.postgres.migrating import migrate
from tests import search_server
from tests.markers import is_left_out, mark
from tests.properties.seeds import AGAIN
from tests.scheduling import TOGETHER, SharedServersTogether, together

TEMPLATE = "template_darkroom"
MEMORY, PLENTY = Path("/dev/shm"), 8 << 30
FAULTS, ATTACKS = (Path(__file__).parent / name for name in ("faults", "attacks"))
SHARED_PLATFORM = pytest.StashKey[contextlib.ExitStack]()
"""What ends the platform that tests/faults and tests/attacks share, while it runs."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares a server comes first, because it takes longest, and in one piece."""
    for item in items:
        mark(item)
    turns = {name: turn for turn, name in enumerate(TOGETHER)}
    items.sort(key=lambda item: (turns.get(together(item.nodeid) or "", len(turns)), not needs_platform(item)))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files of slow tests alone are not imported for nothing: torch takes seconds."""
    return True if is_left_out(collection_path, config.option.markexpr) else None


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedServersTogether:
    """Whole files run side by side."""
    return SharedServersTogether(config, log)


def pytest_report_header() -> str:
    """What begins every run."""
    return AGAIN


def needs_platform(item: pytest.Item) -> bool:
    """Whether a test asks for the platform of tests/faults, itself or through a fixture."""
    return bool({FAULTS, ATTACKS} & set(item.path.parents)) and "bench" in getattr(item, "fixturenames", ())


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the shared platform with the last test that asks for it."""
    running = item.config.stash.get(SHARED_PLATFORM, None)
    if running is not None and (nextitem is None or not needs_platform(nextitem)):
        del item.config.stash[SHARED_PLATFORM]
        running.close()


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A temporary folder with a path short enough for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="dr-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def memory_folder(short_folder: Path) -> Iterator[Path]:
    """A short temporary folder in memory, or on the disk where memory is scarce or no file system."""
    if not MEMORY.is_dir() or min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) < PLENTY:
        yield short_folder
        return
    folder = Path(tempfile.mkdtemp(prefix="dr-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(memory_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A running PostgreSQL 18 without crash safety, for this pytest process alone.

    In memory a database is copied in a quarter of the time, and there are hundreds.
    """
    with EmbeddedPostgres(memory_folder / "postgres", durable=False).serving() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres_server: EmbeddedPostgres) -> str:
    """The name of a database with all migrations, to copy from."""
    postgres_server.create_databases([TEMPLATE])
    migrate(postgres_server.url(TEMPLATE))
    return TEMPLATE


@contextlib.contextmanager
def fresh_database(server: EmbeddedPostgres, template: str) -> Iterator[str]:
    """A copy of `template` under a new name; dropped at the end. Yields its psycopg URL."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        # By file, which without fsync takes half as long as through the write-ahead log, and so does dropping it.
        connection.execute(f"create database {name} template {template} strategy file_copy".encode())
    yield server.url(name)
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """psycopg URL of a fresh, migrated database for one test."""
    with fresh_database(postgres_server, migrated_template) as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """psycopg URL of a fresh, migrated database for one test module."""
    with fresh_database(postgres_server, migrated_template) as url:
        yield url


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def valkey_server(short_folder: Path) -> Iterator[str]:
    """The URL of a running Valkey for this pytest process alone, database 2 as on the embedded platform."""
    port = free_port()
    command = valkey_command(short_folder, port, durable=False)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        time.sleep(0.02)
    yield f"redis://127.0.0.1:{port}/2"
    process.terminate()
    process.wait(timeout=10)


@pytest.fixture
def valkey_url(valkey_server: str) -> str:
    """redis:// URL of an empty database."""
    address = valkey_server.removeprefix("redis://").split("/", 1)[0]
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        if connection.recv(64) != b"+OK\r\n":
            raise RuntimeError(f"Valkey at {address} did not empty itself.")
    return valkey_server


@pytest.fixture(scope="session")
def comfyui_folder(short_folder: Path) -> Path:
    """Where the ComfyUI of the tests is installed, once for a pytest process, by the first test that needs it."""
    return short_folder / "comfyui"


@pytest.fixture(scope="session")
def elasticsearch_url(short_folder: Path) -> Iterator[str]:
    """URL of a real Elasticsearch, started when the first test asks for it."""
    with search_server.serving(short_folder / "elasticsearch") as url:
        yield url
