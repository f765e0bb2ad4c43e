"""The servers and disks of the blob stores' contract suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
