"""A platform with a backup, and a copy of its backups to be damaged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.local.servers.postgres import EmbeddedPostgres
from tests.flows.upkeep.backup.source import Source, source


@pytest.fixture(scope="module")
def old(
    postgres_server: EmbeddedPostgres, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Source]:
    """A platform with one backup."""
    with source(postgres_server, migrated_template, tmp_path_factory.mktemp("platform"), keep_last=50) as made:
        made.back_up()
        yield made


@pytest.fixture
def copy(old: Source, tmp_path: Path) -> Path:
    """A copy of its backups, to be damaged."""
    return Path(shutil.copytree(old.place, tmp_path / "copy"))
