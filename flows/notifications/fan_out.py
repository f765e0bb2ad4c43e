"""@flow fan-out-notifications: an event that readers are notified of becomes one delivery for each reader and channel.

The deliveries are written by statements over chunks of readers, each with the cursor behind it in one transaction, so
memory does not follow the number of readers and a crash repeats at most one chunk. The list in the app is filled by
this alone; what leaves the platform waits for deliver-notifications. What is old is forgotten by apply-retention.
"""

from __future__ import annotations

import math
import time
from functools import partial

from prefect import flow

from flows.notifications.messages import text_of
from flows.runs import draining_flows
from flows.runs.crash_points import reach
from flows.runs.flow_names import FAN_OUT
from flows.runs.retries import run_with_retries
from flows.runs.run_logs import run_logger
from storage.postgres.notifications import notifications
from storage.records.notifications.notifications import Notification
from storage.stores import Stores

_log = partial(run_logger, "darkroom.notifications")


@flow(name=FAN_OUT)
def fan_out_notifications() -> int:
    """Write the deliveries of every notification that waits, until none has come for a while; returns how many."""
    with draining_flows.sole_drain(FAN_OUT) as stores:
        if stores is None:
            return 0
        work = draining_flows.Work()
        done = draining_flows.drain_until_idle(
            stores,
            FAN_OUT,
            "notifications",
            work.timed(lambda: fan_out(stores, draining_flows.ITERATION_SECONDS)),
            # Nothing falls due by itself here: whoever adds a notification announces it on the channel.
            lambda: None,
            draining_flows.IDLE_SECONDS,
        )
        lag = stores.database.run(notifications.lag())
        if done:
            after = {"waiting_after": lag.waiting, "lag_seconds_after": lag.oldest_seconds, "failed": lag.failed}
            draining_flows.note_point(stores.settings, FAN_OUT, {**work.metrics(), **after})
    _log().info("%d notifications fanned out, %d waiting, %d cannot be delivered", done, lag.waiting, lag.failed)
    return done


def fan_out(stores: Stores, seconds: float = math.inf) -> int:
    """Fan out everything that waits, the oldest first, and begin none after so many seconds.

    Returns how many notifications were fanned out. Waits for a database that is unavailable.
    """
    done, ends = 0, time.monotonic() + seconds
    while True:
        notification = run_with_retries(stores, notifications.waiting)
        if notification is None:
            return done
        _tell(stores, notification)
        done += 1
        if time.monotonic() >= ends:
            return done


def _tell(stores: Stores, notification: Notification) -> None:
    try:
        text = text_of(notification.content())
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one notification's text holds up no other
        _log().error("notification %d (%s) cannot be delivered: %s", notification.id, notification.type, error)
        # Off the queue, or the oldest would stand before all the others for ever.
        stores.database.run(notifications.fail(notification, f"{type(error).__name__}: {error}"))
        return
    # The text is kept before the first reader gets it: a run that goes on after a crash must not word it
    # differently.
    run_with_retries(stores, partial(notifications.begin, notification, text))
    while run_with_retries(stores, partial(notifications.fan_out_chunk, notification)):
        reach(stores.settings, "notification-chunk-written")
