"""Deliveries whose time has come become sendings, wait for another time, or end because nobody wants them any more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from storage.postgres.connection import Script
from storage.postgres.notifications import deliveries
from storage.postgres.notifications.deliveries import Due, Settling
from storage.postgres.notifications.endpoints import EndpointState
from storage.records.notifications.channels import INTERRUPTS
from storage.records.notifications.notification_times import QuietHours, digest_time, quiet_until
from storage.records.notifications.notifications import TYPES, Frequency

BATCH = 500


def gather(now: datetime, debounce_seconds: float, limit: int = BATCH) -> Script[int]:
    """Decide about what is due at `now`, at most `limit` deliveries; returns how many. 0 also while another gathers."""
    # A transaction lock that is tried, not waited for: two at once could tear a digest in two, and the other one
    # gathers all.
    if not (yield from deliveries.gather_alone()):
        return 0
    found = yield from deliveries.due(now, limit)
    # A batch that is not full holds all there is, so its last group is whole.
    if len(found) == limit:
        found = _whole_groups(found)
    unwanted = {one: reason for one in found if (reason := why_unwanted(one))}
    bursts = [one for one in found if one not in unwanted and debounce_seconds > 0 and comes_in_bursts(one)]
    pending = (yield from deliveries.settling(now, bursts)) if bursts else []
    settled = settled_at(bursts, pending, timedelta(seconds=debounce_seconds))
    wanted = [one for one in found if one not in unwanted]
    later = {one: moment for one in wanted if (moment := postponed_until(one, now, settled.get(one)))}
    messages = into_messages([one for one in wanted if one not in later], settled.keys())
    if unwanted:
        yield from deliveries.suppress(unwanted)
    if later:
        yield from deliveries.postpone(later)
    if messages:
        yield from deliveries.put_into_sendings(messages)
    return len(found)


def why_unwanted(one: Due) -> str | None:
    """Why a delivery is not sent any more; None when it is."""
    if one.banned:
        return "the account is banned"
    if one.unwanted:
        return "the reader wants no more of this type here"
    if one.endpoint != EndpointState.ACTIVE:
        return f"the reader's address is {one.endpoint}"
    return None


def comes_in_bursts(one: Due) -> bool:
    """Whether a delivery waits a moment for more of its family: it would interrupt, and has not waited yet."""
    return one.channel in INTERRUPTS and one.frequency is Frequency.NOW and not one.folds and bool(_family(one.type))


def settled_at(bursts: Iterable[Due], pending: Iterable[Settling], wait: timedelta) -> dict[Due, datetime]:
    """When each is sent: `wait` after it came, or with the first of its family that is sent before that.

    So a burst is one call, and none of it waits longer than that.
    """
    ends: dict[tuple[int, str, str], datetime] = {}
    for one in pending:
        key = one.reader, one.channel, _family(one.type)
        ends[key] = min(one.due_at, ends.get(key, one.due_at))
    settled: dict[Due, datetime] = {}
    for one in bursts:
        key, own = (one.reader, one.channel, _family(one.type)), one.created_at + wait
        # A family's end is used only when it lies after this one came: one that was sent before takes no more.
        ends[key] = min(own, ends[key]) if key in ends and ends[key] >= one.created_at else own
        settled[one] = ends[key]
    return settled


def postponed_until(one: Due, now: datetime, settled: datetime | None) -> datetime | None:
    """When a due delivery is sent instead of at `now`: when its family is, with its digest, or after quiet hours.

    None for at once.
    """
    moment = settled or now
    if one.frequency is not Frequency.NOW and not one.folds:
        moment = digest_time(one.frequency, one.zone, one.created_at)
    always = one.type in TYPES and TYPES[one.type].always
    if one.channel in INTERRUPTS and not always and one.quiet_from is not None and one.quiet_to is not None:
        # Judged by the later of both times: what a burst puts off into the quiet hours must not wake anybody either.
        quiet = QuietHours(zone=one.zone, start=one.quiet_from, end=one.quiet_to)
        moment = quiet_until(quiet, max(moment, now)) or moment
    return moment if moment > now else None


def into_messages(found: Iterable[Due], bursts: Collection[Due]) -> dict[UUID, list[Due]]:
    """What goes into which sending, by new ids: what was postponed to one time together, and what is late of one
    family; the rest one by one."""
    together: defaultdict[Hashable, list[Due]] = defaultdict(list)
    for one in found:
        family = (one.reader, one.channel, _family(one.type)) if one in bursts else one.id
        together[_group(one) if one.folds else family].append(one)
    # Chosen before anything is sent: the id is what receivers know a repeat by, so it has to be there before the first
    # try.
    return {uuid4(): message for message in together.values()}


def _family(kind: str) -> str:
    return TYPES[kind].family if kind in TYPES else ""


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
