"""What rules do to rows beyond deleting them by their age."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from flows.runs.retries import run_with_retries
from flows.upkeep.retention.sweep import BATCH, Sweep
from storage.postgres.metrics import activity
from storage.postgres.notifications import notifications
from storage.postgres.upkeep import retention

HISTORY_TABLES = ("alerts", "backfills")


def forget_notifications(sweep: Sweep, setting: str) -> None:
    """Words, readers and deliveries go; the key of a notification stays, so that nobody is notified again."""
    days = int(sweep.value(setting))
    while gone := sweep.run(partial(notifications.forget_old, days, BATCH)):
        sweep.removed.count += gone


def drop_activity_days(sweep: Sweep, setting: str) -> None:
    """Whole days of acts and of their hourly sums: each is a table of its own. Sums by the day stay."""
    sweep.check()
    dropped = run_with_retries(sweep.stores, partial(activity.drop_days, int(sweep.value(setting))))
    sweep.removed.count += sum(dropped)
    if not dropped:
        sweep.removed.note = "acts of those days wait for roll-up-metrics: no day was dropped"


def delete_history(sweep: Sweep, setting: str) -> None:
    """Alerts that are over and backfills that are finished."""
    for table in HISTORY_TABLES:
        sweep.delete_rows(table, sweep.age(setting))


def delete_rejected_acts(sweep: Sweep, setting: str) -> None:
    """Acts that were not counted, and then the batches that nothing is left of."""
    sweep.delete_rows("activity_rejected", sweep.age(setting))
    # After the acts, which refer to their batches.
    sweep.delete_rows("activity_batches", timedelta(days=30))


def drop_sampled_sets(sweep: Sweep, setting: str) -> None:
    """Sets of class images that no job asked for: their bytes are swept as any others that no row names."""
    before = sweep.moment - sweep.age(setting)
    sweep.check()
    for recipe in sweep.stores.database.run(retention.old_sampled_sets(before, BATCH)):
        # With the time again: a job may have asked for the set since it was listed.
        sweep.removed.count += sweep.run(partial(retention.drop_sampled_set, recipe, before))
