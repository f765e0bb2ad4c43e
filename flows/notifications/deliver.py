"""@flow deliver-notifications: what is due leaves the platform, each sending once in effect.

A sending is claimed by one worker, called for within a bounded time, and ended in one statement that says which claim
it was. A worker that dies leaves its claim to run out; the next try carries the same id. What cannot be sent is tried
again with growing pauses, then given up: it is a line in the log, a row that can be listed, and it can be sent again.
"""

from __future__ import annotations

import contextvars
import math
import random
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from prefect import flow

from flows.notifications.channels.lookup import senders
from flows.notifications.channels.protocol import (
    Item,
    Message,
    Outcome,
    PermanentFailure,
    Sender,
    Sent,
    TemporaryFailure,
)
from flows.notifications.due_deliveries import gather, utc_now
from flows.runs import draining_flows
from flows.runs.crash_points import reach
from flows.runs.flow_names import DELIVER
from flows.runs.retries import run_with_retries, with_retries
from flows.runs.run_logs import run_logger
from storage.errors import DarkroomError
from storage.postgres.connection import Script
from storage.postgres.notifications import deliveries, endpoints, sendings
from storage.postgres.notifications.endpoints import Endpoint, EndpointState
from storage.postgres.notifications.sendings import Purpose, Sending, SendingState, SentItem
from storage.records.notifications.channels import BOUND, Channel
from storage.records.notifications.notification_times import retry_pause
from storage.records.notifications.notifications import NotificationText
from storage.sealing import Seal
from storage.stores import Stores

_log = partial(run_logger, "darkroom.notifications")

WORKERS = 6
"""Calls under way at once; one hangs for at most the settings' time for a call."""

Senders = Mapping[Channel, Sender]


@flow(name=DELIVER)
def deliver_notifications() -> int:
    """Send everything that is due until nothing has been for a while; returns how many sendings were tried."""
    with draining_flows.sole_drain(DELIVER) as stores:
        if stores is None:
            return 0
        channels, work = senders(stores.settings), draining_flows.Work()
        tried = draining_flows.drain_until_idle(
            stores,
            DELIVER,
            "deliveries",
            work.timed(lambda: deliver(stores, channels, seconds=draining_flows.ITERATION_SECONDS)),
            lambda: stores.database.run(deliveries.next_due()),
            draining_flows.IDLE_SECONDS,
        )
        lag = stores.database.run(deliveries.lag())
        if tried:
            late = {"waiting_after": lag.waiting + lag.sendings, "lag_seconds_after": lag.oldest_seconds}
            draining_flows.note_point(
                stores.settings, DELIVER, {**work.metrics(), **late, "dead_letters": lag.dead_letters}
            )
    _log().info("%d sendings tried, %d wait, %d were given up", tried, lag.sendings, lag.dead_letters)
    return tried


def deliver(stores: Stores, channels: Senders, workers: int = WORKERS, seconds: float = math.inf) -> int:
    """Gather and send until nothing is due, for about so many seconds at most.

    Returns how many deliveries were gathered and sendings tried.
    """
    total, ends = 0, time.monotonic() + seconds
    while True:
        done = gather_all(stores, ends) + send_all(stores, channels, workers, ends)
        total += done
        if done == 0 or time.monotonic() >= ends:
            return total


def gather_all(stores: Stores, ends: float) -> int:
    """Decide about all that is due, until a moment of the monotonic clock; returns how many deliveries."""
    total, wait = 0, stores.settings.notifications.debounce_seconds
    while batch := run_with_retries(stores, lambda: gather(utc_now(), wait)):
        total += batch
        if time.monotonic() >= ends:
            break
    return total


def send_all(stores: Stores, channels: Senders, workers: int, ends: float) -> int:
    """Try every sending that is due, several at once, until that moment; returns how many tries."""

    def work() -> int:
        tries = 0
        while with_retries(stores, lambda: send_next(stores, channels)):
            tries += 1
            if time.monotonic() >= ends:
                break
        return tries

    with ThreadPoolExecutor(workers, thread_name_prefix="sending") as pool:
        # Each worker has the flow run's context, so that its log lines are the run's.
        started = [pool.submit(contextvars.copy_context().run, work) for _ in range(workers)]
        return sum(one.result() for one in started)


def send_next(stores: Stores, channels: Senders) -> bool:
    """Claim the longest due sending, try it and note how that went; returns whether there was one."""
    # A claim has an end: a worker that dies leaves its sending to another one, and a slow one's result is then refused.
    sending = stores.database.run(sendings.claim(stores.settings.notifications.claim_seconds))
    if sending is None:
        return False
    # Read after the claim, so that a reader who unsubscribes is respected until the last moment.
    endpoint, items = stores.database.run(_load(sending))
    reach(stores.settings, "sending-claimed")
    if endpoint is None:
        stores.database.run(sendings.end(sending, SendingState.SUPPRESSED, "the reader's address is not in use"))
        return True
    if sending.purpose is Purpose.NOTIFY and not items:
        stores.database.run(sendings.end(sending, SendingState.SUPPRESSED, "its notifications are gone or hidden"))
        return True
    try:
        outcome = channels[sending.channel].send(
            _message(sending, endpoint, items, Seal(stores.settings.notifications))
        )
    # A fault of ours is tried again like any other: a sealing key that is put back opens the address then.
    except DarkroomError as error:
        outcome = TemporaryFailure(f"{error}")
    except Exception as error:  # noqa: BLE001 - a sending that breaks its sender must not hold up the others
        _log().exception("sending %s broke its sender", sending.id)
        outcome = TemporaryFailure(f"{type(error).__name__}: {error}")
    reach(stores.settings, "sending-called")
    # With patience: what was sent and is not written down is sent again when the claim runs out.
    run_with_retries(stores, partial(note, sending, endpoint, outcome))
    if isinstance(outcome, Sent):
        run_with_retries(stores, partial(_renew, stores, endpoint))
    return True


def _renew(stores: Stores, endpoint: Endpoint) -> Script[None]:
    """Seal an address that is used under the current key. Its browser knows a push subscription's by the old one."""
    seal = Seal(stores.settings.notifications)
    if endpoint.channel not in BOUND and not seal.is_current(endpoint.address):
        yield from endpoints.reseal(endpoint, seal.renewed)


def note(sending: Sending, endpoint: Endpoint, outcome: Outcome) -> Script[None]:
    """Write down how a try went: ended, given up for good, or to be tried again."""
    match outcome:
        case Sent():
            yield from sendings.end(sending, SendingState.SENT)
        case PermanentFailure(reason=reason):
            # In the transaction that ends the sending: nothing else may go to an address that has just refused for
            # good.
            yield from endpoints.suspend(endpoint.id, reason)
            yield from _give_up(sending, reason)
        case TemporaryFailure(reason=reason, after_seconds=after):
            pause = retry_pause(sending.attempts, random.SystemRandom())
            if pause is None:
                yield from _give_up(sending, reason)
            else:
                _log().warning("sending %s, try %d, %s: %s", sending.id, sending.attempts, sending.channel, reason)
                # The receiver may ask for more time than our own pause, never for less.
                yield from sendings.again(sending, max(pause, after), reason)


def _give_up(sending: Sending, reason: str) -> Script[None]:
    if (yield from sendings.end(sending, SendingState.DEAD, reason)):
        _log().error("sending %s, %s, given up: %s", sending.id, sending.channel, reason)


def _load(sending: Sending) -> Script[tuple[Endpoint | None, list[SentItem]]]:
    """The address that a sending goes to, None when it may not be used, and what it carries."""
    endpoint = yield from endpoints.find(sending.reader, sending.channel)
    items = yield from sendings.items(sending.id)
    if endpoint is None or (sending.endpoint_id is not None and sending.endpoint_id != endpoint.id):
        return None, items
    # Only the question whether an address is its owner's may go to one that is not confirmed.
    wanted = EndpointState.UNCONFIRMED if sending.purpose is Purpose.CONFIRM else EndpointState.ACTIVE
    return (endpoint if endpoint.state is wanted else None), items


def _message(sending: Sending, endpoint: Endpoint, items: list[SentItem], seal: Seal) -> Message:
    secrets = [endpoint.secret]
    if endpoint.old_secret is not None and endpoint.old_until is not None and endpoint.old_until > utc_now():
        secrets.append(endpoint.old_secret)
    return Message(
        id=sending.id,
        purpose=sending.purpose,
        reader=sending.reader,
        endpoint_id=endpoint.id,
        address=seal.open(endpoint.address),
        secrets=[seal.open(secret) for secret in secrets if secret is not None],
        items=[
            Item(
                one.id,
                one.type,
                NotificationText(title=one.title, text=one.text, path=one.path),
                one.details,
                one.created_at,
            )
            for one in items
        ],
        created_at=sending.created_at,
        sealed_before=not seal.is_current(endpoint.address),
    )
