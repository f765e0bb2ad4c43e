"""Metrics for Prometheus: what this API process refused, kept and did without Valkey; of all, how fresh counts are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from litestar.datastructures import State
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from platform_api.http.problems import Refusals
from platform_api.metrics.generation_metrics import generation_metrics
from storage.postgres.events.outbox import Backlog
from storage.postgres.generation.workflows import LaneQueue
from storage.postgres.upkeep.last_backup import LastBackup
from storage.records.events.duties import DutyReport
from storage.records.generation.circuits import BackendRow
from storage.records.metrics.freshness import FlowFreshness, PartitionState
from storage.stores import AsyncStores
from storage.thread_pools import Room

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class FlowMetrics:
    """What Postgres knows of work that other processes do; nothing while it is unavailable."""

    flows: Sequence[FlowFreshness] = ()
    duties: Sequence[DutyReport] = ()
    events: Backlog | None = None
    last_backup: LastBackup | None = None
    backends: Sequence[BackendRow] = ()
    lanes: Sequence[LaneQueue] | None = None


class PlatformMetrics(Collector):
    """Reads the counts where they are kept, when somebody asks for them."""

    def __init__(self, state: State, others: FlowMetrics) -> None:
        self._state, self._others = state, others

    def collect(self) -> Iterable[Metric]:
        """Every metric."""
        stores = cast(AsyncStores, self._state.stores)
        refusals = CounterMetricFamily("darkroom_refusals", "Requests that were refused.", labels=["reason"])
        for reason, times in cast(Refusals, self._state.refusals).items():
            refusals.add_metric([reason], times)
        yield refusals
        yield CounterMetricFamily(
            "darkroom_rate_limits_open",
            "Requests that were admitted uncounted because Valkey did not respond.",
            value=stores.rate_limits.breaker.failures,
        )
        yield CounterMetricFamily(
            "darkroom_failed_keys_open",
            "Questions about keys that do not work that Valkey did not respond to: such keys are looked up uncounted.",
            value=stores.failed_keys.breaker.failures,
        )
        reruns = CounterMetricFamily(
            "darkroom_transactions_rerun", "Transactions that were run again after a conflict.", labels=["reason"]
        )
        for reason, times in stores.database.reruns.counts.items():
            reruns.add_metric([reason], times)
        yield reruns
        if stores.settings.cache.enabled:
            yield from self._cache(stores)
        yield from _rooms([stores.database.room, *(pool.room for pool in stores.pools.every)])
        for name, text, value in _FRESHNESS:
            family = GaugeMetricFamily(name, text, labels=["flow"])
            for flow in self._others.flows:
                family.add_metric([flow.flow], value(flow))
            yield family
        yield from self._relay()
        yield from generation_metrics(self._others.backends, self._others.lanes, datetime.now(UTC))
        if self._others.last_backup:
            yield GaugeMetricFamily(
                "darkroom_last_backup_timestamp_seconds",
                "When the newest backup was finished.",
                self._others.last_backup.finished_at.timestamp(),
            )

    def _relay(self) -> Iterable[Metric]:
        for name, text, value in _DUTIES:
            family = GaugeMetricFamily(name, text, labels=["duty"])
            for duty in self._others.duties:
                family.add_metric([duty.name], value(duty))
            yield family
        if self._others.events:
            yield GaugeMetricFamily("darkroom_events_waiting", "Events without effect.", self._others.events.waiting)
            yield GaugeMetricFamily(
                "darkroom_events_dead", "Events whose effect failed ten times.", self._others.events.dead
            )

    def _cache(self, stores: AsyncStores) -> Iterable[Metric]:
        cache = CounterMetricFamily("darkroom_cache", "What was asked of each layer.", labels=["layer", "outcome"])
        for layer, counts in (("responses", self._state.response_cache.counts), ("models", stores.models.counts)):
            for outcome, times in cast(Counter[str], counts).items():
                cache.add_metric([layer, outcome], times)
        yield cache
        yield CounterMetricFamily(
            "darkroom_cache_open",
            "Times that models were neither asked of Valkey nor kept there because it did not respond.",
            value=stores.models.breaker.failures,
        )


def _rooms(rooms: Sequence[Room]) -> Iterable[Metric]:
    """How full each kind of work is."""
    refused = CounterMetricFamily("darkroom_pool_refusals", "Waits for a place that timed out.", labels=["pool"])
    busy = GaugeMetricFamily("darkroom_pool_busy", "Places in use.", labels=["pool"])
    waiting = GaugeMetricFamily("darkroom_pool_waiting", "Who waits for a place.", labels=["pool"])
    places = GaugeMetricFamily("darkroom_pool_places", "Places there are.", labels=["pool"])
    for room in rooms:
        refused.add_metric([room.name], room.refused)
        busy.add_metric([room.name], room.busy)
        waiting.add_metric([room.name], room.waiting)
        places.add_metric([room.name], room.places)
    yield from (refused, busy, waiting, places)


_FRESHNESS: tuple[tuple[str, str, Callable[[FlowFreshness], float]], ...] = (
    ("darkroom_flow_late", "1 while a flow is late.", lambda flow: flow.state is PartitionState.LATE),
    ("darkroom_flow_paused", "1 while an operator has paused a flow.", lambda flow: flow.paused_at is not None),
    ("darkroom_flow_waiting", "Batches that no run has taken.", lambda flow: flow.waiting),
    ("darkroom_flow_lag_seconds", "Age of the oldest of them.", lambda flow: flow.oldest_seconds),
)


_DUTIES: tuple[tuple[str, str, Callable[[DutyReport], float]], ...] = (
    (
        "darkroom_relay_last_success_timestamp_seconds",
        "When a duty of the relay last did its work; 0: never.",
        lambda duty: duty.succeeded_at.timestamp() if duty.succeeded_at else 0.0,
    ),
    ("darkroom_relay_failures", "Iterations of a duty that have failed in a row.", lambda duty: duty.failures),
    ("darkroom_relay_failing", "1 while a duty has not done its work for too long.", lambda duty: duty.is_failing),
)


def exposed(state: State, others: FlowMetrics | None = None) -> bytes:
    """The metrics in Prometheus' text format; without those of other processes while Postgres is unavailable."""
    # One for each response: described, it would collect everything twice, and the global one has metrics of other
    # libraries.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PlatformMetrics(state, others or FlowMetrics()))
    return generate_latest(registry)
