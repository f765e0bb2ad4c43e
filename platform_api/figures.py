"""Figures of one API process for Prometheus: refusals by reason, and what was done without Valkey."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from litestar.datastructures import State
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from platform_api.problems import Refusals
from storage.stores import AsyncStores

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Figures(Collector):
    """Reads the counts where they are kept, when somebody asks for them."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """Every figure."""
        stores = cast(AsyncStores, self._state.stores)
        refusals = CounterMetricFamily("darkroom_refusals", "Requests that were refused.", labels=["reason"])
        for reason, times in cast(Refusals, self._state.refusals).items():
            refusals.add_metric([reason], times)
        yield refusals
        yield CounterMetricFamily(
            "darkroom_rate_limits_open",
            "Requests that were admitted uncounted because Valkey did not answer.",
            value=stores.rate_limits.breaker.failures,
        )


def exposed(state: State) -> bytes:
    """The figures in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures(state))
    return generate_latest(registry)
