"""A flow that needs another one's day waits for it, is woken when it is there, and does not wait for ever."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from flows.upkeep import sensor
from flows.upkeep.sensor import DayUnfinished, wait_for_day
from storage.postgres.connection import Query
from storage.postgres.metrics import freshness
from storage.postgres.upkeep import pauses
from storage.records.metrics.freshness import Switch
from storage.stores import Stores

NOW = datetime.now(UTC)
YESTERDAY = NOW.date() - timedelta(days=1)


def waits(stores: Stores) -> bool:
    listening = "select 1 from pg_stat_activity where query = 'listen flow_partitions' and datname = current_database()"
    return stores.database.run(Query(listening, {}, bool))


def test_who_waits_for_a_day_is_woken_by_what_finishes_it(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensor, "LOOK_SECONDS", 600.0)
    found: list[datetime] = []
    waiting = threading.Thread(target=lambda: found.append(wait_for_day(stores, "f", YESTERDAY, limit_seconds=300)))
    waiting.start()
    while not waits(stores):
        time.sleep(0.01)
    stores.database.run(freshness.finished("f", NOW.date(), NOW))
    stores.database.run(freshness.finished("f", YESTERDAY, NOW - timedelta(days=1)))
    assert found == []
    stores.database.run(freshness.finished("f", YESTERDAY, NOW))
    waiting.join(timeout=60)
    assert found == [NOW]
    assert wait_for_day(stores, "f", YESTERDAY, limit_seconds=0) == NOW
    noon = datetime.combine(NOW.date(), datetime.min.time(), UTC) - timedelta(hours=12)
    stores.database.run(freshness.finished("early", YESTERDAY, noon))
    assert wait_for_day(stores, "early", YESTERDAY, as_of=noon, limit_seconds=0) == noon


def test_a_wait_has_an_end_that_says_what_was_waited_for(stores: Stores) -> None:
    with pytest.raises(DayUnfinished, match=f"f has finished {YESTERDAY} not at all; 0 s were waited"):
        wait_for_day(stores, "f", YESTERDAY, limit_seconds=0.1)
    stores.database.run(freshness.finished("f", YESTERDAY, NOW - timedelta(days=1)))
    stores.database.run(pauses.add("f", Switch.DARKROOM))
    with pytest.raises(DayUnfinished, match=r"only as it was at .* It is paused: darkroom resume f"):
        wait_for_day(stores, "f", YESTERDAY, limit_seconds=0.1)
