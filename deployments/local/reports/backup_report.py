"""Whether the platform is backed up, for `darkroom status` and before `darkroom up`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import psutil

from deployments.local.state import holder
from storage.errors import BackupRefused
from storage.postgres.upkeep.last_backup import LastBackup
from storage.settings import Settings

DESTINATION = "DARKROOM_BACKUP__DESTINATION"


def refuse_backups_without_key(settings: Settings) -> None:
    """Raises BackupRefused where every nightly backup would fail for want of its key."""
    if settings.backup.destination and not Path(settings.backup.key_file).exists():
        raise BackupRefused(
            f"{DESTINATION} is set, and {settings.backup.key_file} is not there, which secrets in a backup are sealed "
            "to. Make it once: darkroom backup key"
        )


def nightly_destination(settings: Settings) -> str:
    """Where backups go at night; empty: nowhere. Where no `darkroom up` holds the data folder, the processes have the
    settings that this one has."""
    folder = settings.data_folder
    return running_destination(folder) if holder(folder) else settings.backup.destination


def running_destination(data_folder: Path) -> str:
    """Where the platform that runs backs up to at night, by the environment that it was started with; empty: nowhere.

    The shell that asks may have other settings.
    """
    pid = holder(data_folder)
    try:
        return psutil.Process(pid).environ().get(DESTINATION, "") if pid else ""
    except psutil.Error:
        return ""


def backup_line(destination: str, last: LastBackup | None, now: datetime) -> str:
    """Where backups go at night, and how old the newest is."""
    nightly = (
        f"backups: every night to {destination}"
        if destination
        else f"backups: none at night, {DESTINATION} was not set where the platform was started"
    )
    if last is None:
        return f"{nightly}; there never was one"
    hours = (now - last.finished_at).total_seconds() / 3600
    age = f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"
    return f"{nightly}; the newest is {age} old, {last.name} in {last.place}"
