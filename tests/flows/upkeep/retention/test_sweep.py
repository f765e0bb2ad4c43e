"""Deletions go in batches, within their time, and never by a clock that jumps."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from flows.runs.flow_names import APPLY_RETENTION
from flows.upkeep.retention import sweep as sweeping
from flows.upkeep.retention.retention import apply
from flows.upkeep.retention.retention_rules import RULES, RetentionRule
from flows.upkeep.retention.sweep import ClockJumped
from storage.postgres.connection import Query
from storage.postgres.upkeep import pauses, retention
from storage.records.metrics.freshness import Switch
from storage.stores import Stores
from tests.flows.upkeep.retention.test_retention import DAY, events, rule_of, size


def test_many_rows_go_in_batches_and_a_run_that_is_stopped_is_gone_on_with(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "BATCH", 100)
    events(stores, 450, 40 * DAY)
    batches: list[int] = []
    delete = retention.delete_batch

    def counted(table: str, before: datetime, limit: int) -> object:
        batches.append(limit)
        if len(batches) == 3:
            raise RuntimeError("the process dies here")
        return delete(table, before, limit)

    monkeypatch.setattr(retention, "delete_batch", counted)
    assert "the process dies here" in apply(stores, [rule_of("outbox")]).faults[0]
    assert size(stores, "outbox") == 250
    assert apply(stores, [rule_of("outbox")]).count == 250
    assert len(batches) == 6


def test_a_paused_flow_and_one_whose_time_is_over_stop_between_batches(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    events(stores, 5, 40 * DAY)
    late = apply(stores, [rule_of("outbox")], seconds=-1)
    assert (late.count, late.faults) == (0, [])
    stores.database.run(pauses.add(APPLY_RETENTION, Switch.DARKROOM))
    paused = apply(stores, RULES)
    assert (paused.count, paused.done[-1][1].note) == (0, "stopped here: it is paused")
    stores.database.run(pauses.remove(APPLY_RETENTION))
    assert apply(stores, [rule_of("outbox")]).count == 5


def test_a_long_backlog_holds_up_no_rule_behind_it_and_takes_the_time_that_they_leave(stores: Stores) -> None:
    def endless(sweep: sweeping.Sweep) -> None:
        while True:
            sweep.check()
            sweep.removed.count += 1
            time.sleep(0.01)

    events(stores, 5, 40 * DAY)
    began = time.monotonic()
    backlogs = [RetentionRule(f"backlog {number}", "", work=endless) for number in range(2)]
    report = apply(stores, [*backlogs, rule_of("outbox")], seconds=3)
    assert time.monotonic() - began >= 3
    assert [rule.what for rule, _, _ in report.done] == ["backlog 0", "backlog 1", rule_of("outbox").what]
    (first, second, outbox) = (removed for _, removed, _ in report.done)
    assert first.note == second.note == "stopped here: its time was over"
    assert min(first.count, second.count) > 20
    assert (outbox.count, outbox.note) == (5, "")


def shifted(monkeypatch: pytest.MonkeyPatch, by: Callable[[int], timedelta]) -> None:
    """Postgres' clock, shifted by what `by` says of how often it was asked before."""
    asked: list[None] = []

    def now() -> Query[datetime]:
        asked.append(None)
        return Query("select now() + %(by)s as now", {"by": by(len(asked) - 1)}, lambda rows: rows[0]["now"])

    monkeypatch.setattr(retention, "now", now)


def test_a_clock_that_jumps_back_a_day_meanwhile_deletes_nothing_more(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    events(stores, 5, 40 * DAY)
    monkeypatch.setattr(sweeping, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(sweeping, "BATCH", 2)
    shifted(monkeypatch, lambda asked: timedelta(0) if asked < 4 else -DAY)
    report = apply(stores)
    assert report.count == 2
    assert "Postgres' clock moved by" in report.faults[0]
    assert size(stores, "outbox") == 3


@pytest.mark.parametrize("days", [-1, 400])
def test_nothing_is_deleted_while_two_clocks_disagree(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    events(stores, 5, 40 * DAY)
    events(stores, 5, timedelta(0))
    shifted(monkeypatch, lambda _: days * DAY)
    with pytest.raises(ClockJumped, match=r"apart\. Nothing was deleted"):
        apply(stores)
    assert size(stores, "outbox") == 10


def test_a_clock_that_went_back_since_the_last_run_deletes_nothing_that_is_kept(stores: Stores) -> None:
    """As after the jump: what was done "tomorrow" is young."""
    events(stores, 5, -DAY)
    events(stores, 5, 29 * DAY)
    assert apply(stores, [rule_of("outbox")]).count == 0
