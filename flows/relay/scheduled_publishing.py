"""The duty scheduled-publishing: models and versions whose time has come are published."""

from __future__ import annotations

from flows.jobs.sweeps import publish_due
from flows.relay.duty import Duty, once
from storage.stores import Stores

EVERY_SECONDS = 5.0


def duty(stores: Stores) -> Duty:
    """Publishes what is due."""
    return Duty("scheduled-publishing", EVERY_SECONDS, once(lambda: publish_due(stores.database)))
