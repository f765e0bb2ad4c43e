"""What must hold in the rows at any quiet moment. Each query gives the ids that break one sentence."""

from __future__ import annotations

from storage.postgres.connection import Script, column, load_statements

SQL = load_statements(__file__)

SENTENCES = {
    "succeeded_without_version": "training job {} succeeded but has no model version of its own",
    "version_without_success": "model version {} belongs to a job that did not succeed",
    "version_without_files": "model version {} is published and has no weights file",
    "misplaced_items": "catalogue item {} does not stand in the lists where it should",
    "ended_without_event": "job {} ended without an event",
    "published_without_event": "model version {} was published without an event",
    "overdue_events": "event {} still has had no effect",
    "miscounted_usage": "account {} holds other bytes than are counted",
    "silent_jobs": "job {} is silent and was not handed out again",
}


def broken(overdue_seconds: float = 120.0) -> Script[list[str]]:
    """One sentence for every row that breaks an invariant; empty when all hold."""
    faults: list[str] = []
    for name, sentence in SENTENCES.items():
        found = yield from column(SQL[name], {"seconds": overdue_seconds}, str)
        faults.extend(sentence.format(fault) for fault in found)
    return faults
