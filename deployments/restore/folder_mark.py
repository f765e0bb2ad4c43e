"""How a folder that `darkroom restore` fills is distinguished from one that it has filled."""

from __future__ import annotations

from pathlib import Path

from storage.errors import BackupRefused

BESIDE = ".restoring"
"""Ends the name of a folder that is being filled."""
MARK = "RESTORING"
"""The file that is in it, and goes last of all: when the folder has its own name."""


def take_mark(folder: Path) -> None:
    """Take a restore's mark from the data folder: a restore that was stopped last of all has left it there.

    Raises BackupRefused for the folder of one that was stopped before.
    """
    if not (folder / MARK).exists():
        return
    if folder.name.endswith(BESIDE):
        raise BackupRefused(f"{folder} is half restored. Restore again: darkroom restore")
    (folder / MARK).unlink()
