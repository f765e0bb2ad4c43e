"""Notifications and what governs them, as clients read and write them."""

from __future__ import annotations

from datetime import datetime, time
from typing import Annotated, Any
from zoneinfo import available_timezones

import msgspec
from msgspec import Meta

from platform_api.http.pages import camelised
from storage.errors import InvalidRequest
from storage.postgres.notifications.in_app import InApp
from storage.postgres.notifications.preferences import Clocks
from storage.records.notifications.channels import OUTWARD, Channel
from storage.records.notifications.notifications import TYPES, Frequency, Preference, allowed
from storage.settings import Settings

TypeName = Annotated[
    str, Meta(extra_json_schema={"extra": {"enum": list(TYPES)}}, description="A type of notification.")
]
ClockTime = Annotated[
    str,
    Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="HH:MM on the reader's clocks.", examples=["22:00"]),
]


class NotificationView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One notification. `details` is what the text was made from; `link` leads to what it is about."""

    id: int
    type: TypeName
    title: str
    text: str
    link: str | None
    details: dict[str, Any]
    created_at: datetime
    read_at: datetime | None


class UnreadView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How many notifications are unread, and how many of each type that has any."""

    unread: int
    by_type: dict[str, int]


class PreferenceView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How often a type is sent on a channel. `is_default`: the reader has chosen nothing."""

    type: TypeName
    channel: Channel
    frequency: Frequency
    is_default: bool


class PreferencesView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a reader is notified of, how often, and when it is not to be woken."""

    zone: Annotated[str, Meta(description="An IANA time zone.", examples=["Europe/Berlin"])]
    quiet_from: ClockTime | None
    quiet_to: ClockTime | None
    preferences: list[PreferenceView]
    types: Annotated[dict[str, str], Meta(description="What each type is about.")]


class PreferenceWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a type is to be sent on a channel. What is shown in the app needs no digest: now or never."""

    type: TypeName
    channel: Channel
    frequency: Frequency


class PreferencesWish(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """All that a reader says. Types and channels that are left out take their defaults."""

    zone: Annotated[str, Meta(max_length=64, description="An IANA time zone.", examples=["Europe/Berlin"])] = "UTC"
    quiet_from: ClockTime | None = None
    quiet_to: ClockTime | None = None
    preferences: Annotated[list[PreferenceWish], Meta(max_length=200)] = []


def notification_view(found: InApp, settings: Settings) -> NotificationView:
    """One notification of a reader's list."""
    return NotificationView(
        id=found.id,
        type=found.type,
        title=found.title,
        text=found.text,
        link=settings.api.public_url + found.path if found.path else None,
        details=camelised(found.details),
        created_at=found.created_at,
        read_at=found.read_at,
    )


def unread_view(counts: dict[str, int]) -> UnreadView:
    """Counts by type with their sum."""
    return UnreadView(unread=sum(counts.values()), by_type=counts)


def preferences_view(chosen: list[Preference], clocks: Clocks) -> PreferencesView:
    """What a reader has chosen, with the defaults of the rest."""
    wishes = {(one.type, one.channel): one.frequency for one in chosen}
    return PreferencesView(
        zone=clocks.zone,
        quiet_from=_clock(clocks.quiet_from),
        quiet_to=_clock(clocks.quiet_to),
        preferences=[
            PreferenceView(
                type=name,
                channel=channel,
                frequency=wishes.get((name, channel), default),
                is_default=(name, channel) not in wishes,
            )
            for name, kind in TYPES.items()
            for channel, default in kind.default_frequencies.items()
        ],
        types={name: kind.about for name, kind in TYPES.items()},
    )


def read_wish(wish: PreferencesWish) -> tuple[list[Preference], Clocks]:
    """What a body says. Raises InvalidRequest naming what no type, channel, zone or pair of times can be."""
    faults: dict[str, str] = {}
    wanted = {(one.type, one.channel): one.frequency for one in wish.preferences}
    for (name, channel), frequency in wanted.items():
        if name not in TYPES:
            faults["preferences"] = f"there is no type '{name[:60]}'; there are: {', '.join(TYPES)}"
        elif not allowed(channel, frequency):
            digested = " and ".join(OUTWARD)
            faults["preferences"] = f"{channel} takes now or never; {digested} take digests too"
    if len(wanted) < len(wish.preferences):
        faults["preferences"] = "a type and channel stand twice"
    # `ZoneInfo` opens a file by this name: only names from the list reach it.
    if wish.zone not in available_timezones():
        faults["zone"] = "must be an IANA time zone, for example Europe/Berlin"
    if (wish.quiet_from is None) != (wish.quiet_to is None):
        faults["quietTo"] = "quietFrom and quietTo are given together or not at all"
    if faults:
        raise InvalidRequest(faults)
    chosen = [Preference(type=name, channel=channel, frequency=often) for (name, channel), often in wanted.items()]
    return chosen, Clocks(zone=wish.zone, quiet_from=_time(wish.quiet_from), quiet_to=_time(wish.quiet_to))


def _clock(moment: time | None) -> str | None:
    return None if moment is None else moment.strftime("%H:%M")


def _time(text: str | None) -> time | None:
    return None if text is None else time.fromisoformat(text)
