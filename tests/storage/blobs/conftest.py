"""The servers and disks of the blob stores' contract suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.blobs.store import BlobStore
from storage.settings import BlobSettings
from tests import s3_server
from tests.full_disks import small_disk


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The URL of a bucket on an S3 of the tests' own."""
    with s3_server.serving() as url:
        yield url


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    with small_disk(tmp_path / "disk", 2) as folder:
        yield folder


@pytest.fixture(params=["local", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store of each kind keeps its blobs."""
    match request.param:
        case "local":
            return (tmp_path / "blobs").as_uri()
        case "memory":
            return f"memory://{tmp_path.name}/blobs"
        case _:
            return f"{request.getfixturevalue('s3_url')}/{tmp_path.name}"


@pytest.fixture
def store(url: str) -> BlobStore:
    """A store of each kind."""
    return BlobStore(BlobSettings(url=url))
