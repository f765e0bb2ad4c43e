"""Prefect's own database after a restore: what it holds as waiting or running ran on a machine that is gone."""

from __future__ import annotations

from uuid import UUID

from storage.postgres.connection import Script, column, load_statements

PREFECT_SQL = load_statements(__file__)


def close_unfinished_runs() -> Script[int]:
    """Mark runs that had not ended as crashed, drop those that schedules made ahead; returns how many crashed."""
    yield from column(PREFECT_SQL["delete_scheduled"], {}, UUID)
    crashed = yield from column(PREFECT_SQL["crash_unfinished"], {}, UUID)
    yield from column(PREFECT_SQL["free_slots"], {}, UUID)
    return len(crashed)
