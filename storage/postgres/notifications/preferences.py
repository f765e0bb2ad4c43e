"""How often each reader wants to be notified of what on which channel, and when not to be woken."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import time

import msgspec

from storage.postgres.connection import Query, Script, column, load_statements, many, maybe
from storage.records.notifications.channels import Channel
from storage.records.notifications.notification_times import QuietHours
from storage.records.notifications.notifications import TYPES, Frequency, Preference

SQL = load_statements(__file__)


class Clocks(msgspec.Struct, frozen=True, kw_only=True):
    """A reader's time zone (an IANA name), and its quiet hours if it has any."""

    zone: str = "UTC"
    quiet_from: time | None = None
    quiet_to: time | None = None

    @property
    def quiet(self) -> QuietHours | None:
        """The quiet hours."""
        if self.quiet_from is None or self.quiet_to is None:
            return None
        return QuietHours(zone=self.zone, start=self.quiet_from, end=self.quiet_to)


def chosen(reader: int) -> Query[list[Preference]]:
    """What a reader has set."""
    return many(SQL["chosen"], {"reader": reader, "types": list(TYPES), "channels": list(Channel)}, Preference)


def replace(reader: int, preferences: Sequence[Preference], clocks: Clocks) -> Script[None]:
    """Make this all that a reader has set; of the rest it has the defaults."""
    yield from column(SQL["forget"], {"reader": reader, "types": list(TYPES), "channels": list(Channel)}, int)
    yield from say(reader, preferences)
    parameters = {"zone": clocks.zone, "quiet_from": clocks.quiet_from, "quiet_to": clocks.quiet_to}
    yield from column(SQL["set_clocks"], {"reader": reader, **parameters}, int)


def say(reader: int, preferences: Sequence[Preference]) -> Query[list[int]]:
    """Change some of what a reader has set."""
    parameters = {
        "reader": reader,
        "types": [one.type for one in preferences],
        "channels": [one.channel for one in preferences],
        "frequencies": [one.frequency for one in preferences],
    }
    return column(SQL["say"], parameters, int)


def clocks(reader: int) -> Script[Clocks]:
    """A reader's clocks; UTC without quiet hours when it has set none."""
    return (yield from maybe(SQL["clocks"], {"reader": reader}, Clocks)) or Clocks()


def never(types: Sequence[str], channel: Channel) -> list[Preference]:
    """The preferences of somebody who wants no more of these types on a channel."""
    return [Preference(type=kind, channel=channel, frequency=Frequency.NEVER) for kind in types]
