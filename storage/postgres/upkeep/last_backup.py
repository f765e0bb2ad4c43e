"""The newest backup that was finished, as the platform itself knows it: the place may be out of reach."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from storage.postgres.connection import Query, count, load_statements

SQL = load_statements(__file__)

LATE = "late back-up"
"""The alert's name."""


class LastBackup(msgspec.Struct, frozen=True, kw_only=True):
    """A finished backup and where it lies."""

    name: str
    place: str
    finished_at: datetime


def finished(backup: LastBackup) -> Query[int]:
    """A backup was finished just now."""
    return count(SQL["finished"], msgspec.structs.asdict(backup))


def newest() -> Query[LastBackup | None]:
    """The newest finished backup; None when there never was one."""
    return Query(SQL["newest"], {}, lambda rows: msgspec.convert(rows[0], LastBackup) if rows else None)


def alert_of(last: LastBackup | None, now: datetime, late_after_days: float) -> dict[str, str]:
    """The alert that backups have stopped, by its name. Never without a first one, nor when 0 days are allowed."""
    if last is None or not late_after_days or now - last.finished_at <= timedelta(days=late_after_days):
        return {}
    return {
        LATE: f"The last backup, {last.name} in {last.place}, was finished at {last.finished_at:%Y-%m-%d %H:%M} UTC. "
        "Is DARKROOM_BACKUP__DESTINATION set where `darkroom up` was started, and the flow back-up neither paused nor "
        "failing? `darkroom backup` makes one now."
    }
