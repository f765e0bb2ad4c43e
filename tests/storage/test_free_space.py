"""The free space of the disks is looked at once a second, whatever was found, and logged when it changes."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from storage import free_space
from storage.errors import FreeSpaceLow
from storage.free_space import FreeSpace
from storage.settings import QuotaSettings, load_settings


class Disk:
    """A disk whose free bytes a test sets; `looks` is how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.looks = 0, 0
        monkeypatch.setattr(os, "statvfs", self._look)

    def _look(self, _: object) -> os.statvfs_result:
        self.looks += 1
        return os.statvfs_result((1, 1, 0, 0, self.free, 0, 0, 0, 0, 255))


def test_a_full_disk_is_looked_at_as_rarely_as_one_with_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "darkroom.free_space")
    low = load_settings().model_copy(update={"data_folder": tmp_path, "quotas": QuotaSettings(free_space_bytes=100)})
    disk, space = Disk(monkeypatch), FreeSpace(low)

    async def ask(times: int) -> int:
        """How many are refused; each time the last look is too old or not."""
        refused = 0
        for _ in range(times):
            try:
                await space.check()
            except FreeSpaceLow:
                refused += 1
        return refused

    with asyncio.Runner() as loop:
        assert (loop.run(ask(50)), disk.looks) == (50, 1)
        monkeypatch.setattr(free_space, "KEPT_SECONDS", -1.0)
        space = FreeSpace(low)
        assert loop.run(ask(5)) == 5
        disk.free = 1000
        assert loop.run(ask(5)) == 0
    low_lines = [record.message for record in caplog.records if "the floor is 100" in record.message]
    again = [record.message for record in caplog.records if "there is room again" in record.message]
    assert (len(low_lines), len(again)) == (2, 1), "once for each FreeSpace, however many asked"
