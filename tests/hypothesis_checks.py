"""Hypothesis's health checks, for properties whose examples are slow or share a fixture on purpose."""

from __future__ import annotations

from typing import cast

from hypothesis import HealthCheck

# A cast, since its metaclass states no type for what it iterates over; deprecated ones are left out by it.
ALL_HEALTH_CHECKS = cast("list[HealthCheck]", list(HealthCheck))
