"""The duty alerts: what is late by Postgres' own account, for moderators and in the relay's log."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from flows.relay.duty import Duty, once
from storage.postgres.connection import Database
from storage.postgres.upkeep import alerts
from storage.stores import Stores

log = logging.getLogger("darkroom.relay")

EVERY_SECONDS = 30.0


def duty(stores: Stores) -> Duty:
    """Raises and clears alerts, by what the settings call late."""
    settings = stores.settings
    late_after = settings.metrics.late_after_seconds, settings.backup.late_after_days
    return Duty("alerts", EVERY_SECONDS, once(lambda: update_alerts(stores.database, datetime.now(UTC), *late_after)))


def update_alerts(
    database: Database, now: datetime, late_after_seconds: float, backup_late_after_days: float = 0
) -> list[str]:
    """Raise the alert of every flow that is late at `now` and clear what is over; returns the new ones.

    It asks Postgres alone: a stopped scheduler cannot report itself.
    """
    changes = database.run(alerts.update(now, late_after_seconds, backup_late_after_days))
    for name, detail in changes.raised.items():
        log.error("alert: %s: %s", name, detail)
    for name in changes.cleared:
        log.warning("alert is over: %s", name)
    return list(changes.raised)
