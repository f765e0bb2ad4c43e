"""The duty `listening`: it is notified of new events as they are committed, and wakes the duties that act on them."""

from __future__ import annotations

from collections.abc import Sequence

from flows.relay.duty import Duty
from storage.postgres.connection import Database
from storage.postgres.events.listening import OutboxListener

LISTEN_SECONDS = 1.0
"""The longest that a relay that stops waits for it."""


def duty(database: Database, acting: Sequence[Duty]) -> Duty:
    """`acting` are woken."""

    def wake() -> None:
        for one in acting:
            one.waking.set()

    listener = OutboxListener(database, wake)

    def iterate() -> bool:
        listener.listen(LISTEN_SECONDS)
        return False

    return Duty("listening", 0.0, iterate, close=listener.close)
