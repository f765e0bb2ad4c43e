"""@flow apply-retention: deletes what is kept no longer, by the table of rules in retention_rules.py.

Every batch is a short transaction of its own, so a run may end anywhere: the next one goes on with what is still there.
A rule that fails holds up no other.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from prefect import flow
from prefect.runtime import flow_run

from flows.runs.artifacts import leave_table
from flows.runs.flow_names import APPLY_RETENTION
from flows.runs.light_tracking import FAILED, FINISHED, note
from flows.runs.run_logs import run_logger
from flows.upkeep.retention.folder_rules import folders_to_oneself
from flows.upkeep.retention.retention_rules import RULES, RetentionRule, variable
from flows.upkeep.retention.sweep import ClockJumped, Enough, Paused, Removed, Sweep, begin
from storage.errors import DarkroomError, StoreUnavailable
from storage.settings import MIB, load_settings
from storage.stores import Stores, open_stores

_log = partial(run_logger, "darkroom.retention")

RUN_SECONDS = 1800.0
"""A run ends after so long; what is left is the next one's."""
TIDY_EVERY_SECONDS, TIDY_SECONDS = 3600.0, 60.0
"""How often the folders of a machine are tidied where jobs end, and how long that may take."""
LOCAL_RULES = [rule for rule in RULES if rule.local]


class RetentionFailed(DarkroomError):
    """One or more rules could not be applied; the others were."""

    code = "retention_failed"


@flow(name=APPLY_RETENTION)
def apply_retention() -> int:
    """Delete what is kept no longer, and show what went; returns how many rows and things."""
    with open_stores(load_settings()) as stores, stores.database.session_lock(APPLY_RETENTION) as held:
        if not held:
            _log().info("another run deletes what is old")
            return 0
        began = time.monotonic()
        # Rows and files apart: another process that tidies this machine's folders must not keep rows from being
        # deleted.
        with folders_to_oneself(stores.settings.data_folder) as free:
            report = apply(stores, [rule for rule in RULES if free or not rule.local])
        leave_table(APPLY_RETENTION, report.rows())
        metrics = {**report.metrics(), "seconds": time.monotonic() - began}
        status = FAILED if report.faults else FINISHED
        note(stores.settings, APPLY_RETENTION, str(flow_run.name or report.moment), metrics, status=status)
    _log().info("%d rows and things deleted, %.1f MiB of files", report.count, report.size / MIB)
    if report.faults:
        raise RetentionFailed(
            f"{len(report.faults)} rules failed, the others were applied: {' '.join(report.faults)} When that is "
            "fixed the next run applies them by itself."
        )
    return report.count


def tidy_folders(stores: Stores) -> None:
    """Apply the rules of folders on this machine, once an hour at most; never raises for what it could not do.

    Called where jobs end: `apply-retention` runs on one machine, and copies of models lie on each that works with them.
    """
    try:
        with folders_to_oneself(stores.settings.data_folder, TIDY_EVERY_SECONDS) as free:
            report = apply(stores, LOCAL_RULES, seconds=TIDY_SECONDS) if free else Report(None)
    # The job has ended well; that a folder could not be deleted must not fail its flow run.
    except (DarkroomError, OSError) as error:
        _log().warning("folders of this machine were not tidied: %s", error)
        return
    if report.count:
        _log().info("%d folders and files deleted, %.1f MiB", report.count, report.size / MIB)


class Report:
    """What each rule of one run did."""

    def __init__(self, moment: object) -> None:
        self.moment = moment
        self.done: list[tuple[RetentionRule, Removed, object]] = []
        self.faults: list[str] = []

    def begin(self, rule: RetentionRule, sweep: Sweep) -> Removed:
        """What a rule has removed so far: nothing, or what it had when its time was over."""
        for begun, removed, _ in self.done:
            if begun is rule:
                removed.note = ""
                return removed
        self.done.append((rule, Removed(), sweep.value(rule.setting) if rule.setting else None))
        return self.done[-1][1]

    @property
    def count(self) -> int:
        """Rows and things that went."""
        return sum(removed.count for _, removed, _ in self.done)

    @property
    def size(self) -> int:
        """Bytes of files that went."""
        return sum(removed.size for _, removed, _ in self.done)

    def metrics(self) -> dict[str, float]:
        """For MLflow."""
        each = {_metric(rule): float(removed.count) for rule, removed, _ in self.done}
        return {**each, "deleted": self.count, "deleted_bytes": self.size, "faults": len(self.faults)}

    def rows(self) -> list[dict[str, object]]:
        """For the flow run's page: one line for each rule that was applied."""
        return [
            {
                "what": rule.what,
                "setting": f"{variable(rule.setting)}={value:g}" if isinstance(value, float) else "",
                "deleted": removed.count,
                "MiB": round(removed.size / MIB, 1),
                "note": removed.note,
            }
            for rule, removed, value in self.done
        ]


def apply(stores: Stores, rules: Sequence[RetentionRule] = RULES, *, seconds: float = RUN_SECONDS) -> Report:
    """Apply rules one after the other, each for its share of the time; those that it was not enough for go on with what
    the others leave. Raises ClockJumped before anything is deleted when the clocks disagree."""
    sweep = begin(stores, seconds)
    report = Report(sweep.moment)
    waiting = [rule for rule in rules if rule.work is not None]
    while waiting:
        stopped: list[RetentionRule] = []
        for place, rule in enumerate(waiting):
            sweep.removed = report.begin(rule, sweep)
            sweep.share(among=len(waiting) - place)
            try:
                _apply(rule, sweep, report)
            except Enough as end:
                sweep.removed.note = f"stopped here: {end}"
                stopped.append(rule)
            # These are true for all rules, so no other one is begun.
            except (Paused, ClockJumped) as end:
                sweep.removed.note = f"stopped here: {end}"
                report.faults += [str(end)] if isinstance(end, ClockJumped) else []
                return report
        # Again those that had too little time, with what the others left of theirs.
        waiting = [] if sweep.over else stopped
    return report


def _apply(rule: RetentionRule, sweep: Sweep, report: Report) -> None:
    """Raises Enough, Paused, ClockJumped, StoreUnavailable."""
    try:
        if rule.work is not None:
            rule.work(sweep)
    except (Enough, Paused, ClockJumped, StoreUnavailable):
        raise
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one rule holds up no other
        fault = f"{type(error).__name__}: {error}"
        _log().error("%s: %s", rule.what, fault)
        sweep.removed.note = fault[:300]
        report.faults.append(f"{rule.what}: {fault}"[:300])


def _metric(rule: RetentionRule) -> str:
    """A rule's name as MLflow takes it."""
    return "".join(letter if letter.isalnum() else "_" for letter in rule.what)
