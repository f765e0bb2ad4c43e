"""What must hold in the rows at any quiet moment. Each query returns the ids that break one sentence."""

from __future__ import annotations

from collections.abc import Iterable

from storage.postgres.connection import Script, column, load_statements

SQL = load_statements(__file__)

SENTENCES = {
    "succeeded_without_version": "training job {} succeeded but has no model version of its own",
    "version_without_success": "model version {} belongs to a job that did not succeed",
    "version_without_files": "model version {} is published and has no weights file",
    "misplaced_items": "catalogue item {} does not stand in the lists where it should",
    "ended_without_event": "job {} ended without an event",
    "published_without_event": "model version {} was published without an event",
    "generation_without_rows": "generation {} lacks its workflow or the rows of its steps",
    "ended_without_charge": "workflow {} is charged other than its end says",
    "step_of_ended_job": "job {} has ended, and a step or a source of it has not",
    "overdue_events": "event {} still has had no effect",
    "miscounted_usage": "account {} holds other bytes than are counted",
    "silent_jobs": "job {} is silent and got no new attempt",
}


def broken(
    overdue_seconds: float = 120.0, *, names: Iterable[str] = SENTENCES, accounts: int | None = None
) -> Script[list[str]]:
    """One sentence for every row that breaks an invariant of these names; empty when all hold.

    `accounts`: the bytes of about so many are summed, of others with the next ten minutes; None: of all.
    """
    faults: list[str] = []
    for name in names:
        found = yield from column(SQL[name], {"seconds": overdue_seconds, "accounts": accounts}, str)
        faults.extend(SENTENCES[name].format(fault) for fault in found)
    return faults
