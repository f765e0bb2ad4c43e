"""Deliveries whose time has come become sendings, wait for another time, or end because nobody wants them any more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from uuid import UUID, uuid4

from storage.postgres import deliveries
from storage.postgres.connection import Script
from storage.postgres.deliveries import Due
from storage.postgres.endpoints import EndpointState
from storage.records.notification_times import QuietHours, digest_time, quiet_until
from storage.records.notifications import INTERRUPTS, TYPES, Frequency

BATCH = 500


def gather(now: datetime, limit: int = BATCH) -> Script[int]:
    """Decide about what is due at `now`, at most `limit` deliveries; gives how many. 0 also while another gathers."""
    if not (yield from deliveries.gather_alone()):
        return 0
    found = yield from deliveries.due(now, limit)
    if len(found) == limit:
        found = _whole_groups(found)
    unwanted = {one: reason for one in found if (reason := why_unwanted(one))}
    later = {one: moment for one in found if one not in unwanted and (moment := postponed_until(one, now))}
    parcels = into_parcels([one for one in found if one not in unwanted and one not in later])
    if unwanted:
        yield from deliveries.suppress(unwanted)
    if later:
        yield from deliveries.postpone(later)
    if parcels:
        yield from deliveries.put_into_sendings(parcels)
    return len(found)


def why_unwanted(one: Due) -> str | None:
    """Why a delivery is not told any more; None when it is."""
    if one.banned:
        return "the account is banned"
    if one.unwanted:
        return "the reader wants no more of this type here"
    if one.endpoint != EndpointState.ACTIVE:
        return f"the reader's address is {one.endpoint}"
    return None


def postponed_until(one: Due, now: datetime) -> datetime | None:
    """When a due delivery is told instead of at `now`: with its digest, or after quiet hours. None for at once."""
    moment = now
    if one.frequency is not Frequency.NOW and not one.folds:
        moment = digest_time(one.frequency, one.zone, one.created_at)
    always = one.type in TYPES and TYPES[one.type].always
    if one.channel in INTERRUPTS and not always and one.quiet_from is not None and one.quiet_to is not None:
        quiet = QuietHours(zone=one.zone, start=one.quiet_from, end=one.quiet_to)
        moment = quiet_until(quiet, max(moment, now)) or moment
    return moment if moment > now else None


def into_parcels(found: Sequence[Due]) -> dict[UUID, list[Due]]:
    """What goes into which sending, by new ids: what was postponed to one time together, the rest one by one."""
    parcels: dict[UUID, list[Due]] = {uuid4(): [one] for one in found if not one.folds}
    for _, group in groupby([one for one in found if one.folds], key=_group):
        parcels[uuid4()] = list(group)
    return parcels


def _group(one: Due) -> tuple[datetime, int, str]:
    return one.due_at, one.reader, one.channel


def _whole_groups(found: list[Due]) -> list[Due]:
    """Without the last reader's, of whom more may be due, unless there is no other's."""
    last = _group(found[-1])
    whole = [one for one in found if _group(one) != last]
    return whole or found


def utc_now() -> datetime:
    """This machine's clock."""
    return datetime.now(UTC)
