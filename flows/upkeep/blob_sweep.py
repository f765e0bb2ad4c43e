"""Bytes that no row names are deleted once they have waited; rows whose bytes are gone or cut are reported.

A sweep compares the blob store with the rows, page by page. What no row names goes into `orphans`, and is deleted when
it has stood there for the grace period: its wait begins when it lost its last row, whenever it was written.

Nobody may name bytes while they are deleted. New bytes cannot be meant: they are not there. A put that finds its bytes
sets their row in `orphans` to now and looks once more. So with X an orphan that is due:

- the put's update comes first: X is not due any more, and the deletion finds no row to hold;
- the deletion holds the row first: the update waits for its commit, then the put finds no bytes and writes them;
- X has no row yet, as the sweep is about to note it: its wait begins then, and what names X comes within the grace;
- bytes of a put that found none stand under an old row (a deletion that died before its commit): they are young.

A session that Postgres lost holds no row any more. Its last statement before the deletion fails, and so nothing is
deleted; where it is lost later its commit fails, and the bytes are put back (BlobStore.removing).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice

from flows.runs.run_logs import run_logger
from storage.blobs.store import BlobStore
from storage.postgres.accounts import quotas
from storage.postgres.connection import Script
from storage.postgres.locks import BLOB_SWEEP
from storage.postgres.upkeep import orphans, references
from storage.stores import Stores

_log = partial(run_logger, "darkroom.blobs")

PAGE = 1000
"""Hashes that one statement is asked about."""
NAMED = 1000
"""So many rows without their bytes are reported one by one."""
# A database that came out of a backup names what the blob store may have lost, and does not name what is newer.
WARY = 7
"""While rows name bytes that are gone, orphans are kept for so many times the grace: the rows may be of another day."""
UNFINISHED_WRITE_SECONDS = 86400.0


def sweep_blobs(stores: Stores) -> list[str]:
    """Report rows whose bytes are gone or cut, delete bytes that no row has named for the grace period.

    One sweep at a time, and none beside a backup: then nothing is looked at. Raises StoreUnavailable.
    """
    grace = stores.settings.blobs.orphan_grace_hours * 3600
    with stores.database.session_lock(BLOB_SWEEP) as held:
        if not held:
            _log().info("another sweep or a backup is at work: nothing is swept this time")
            return []
        faults: list[str] = []
        for window in _windows(stores):
            faults += window.faults
            stores.database.run(_note(window, grace))
        # Before anything is deleted: what is wrong with the rows decides how long orphans are kept.
        findings = _shortened(faults)
        if faults:
            _log().warning("%d rows lack their bytes: orphans are kept for %d times the grace", len(faults), WARY)
        wait = grace * (WARY if faults else 1)
        findings += _delete_due(stores, wait, grace)
        stores.database.run(quotas.forget_released(wait))
        unfinished = stores.blobs.sweep_unfinished(UNFINISHED_WRITE_SECONDS)
        if unfinished:
            findings.append(f"{unfinished} unfinished writes: deleted")
    return findings


def faulty_blobs(stores: Stores) -> list[str]:
    """One sentence for each row whose bytes are gone or cut. Raises StoreUnavailable."""
    return _shortened([fault for window in _windows(stores) for fault in window.faults])


def drop_unnamed(stores: Stores, hashes: Sequence[str]) -> list[str]:
    """Delete bytes at once that only the caller can have put and no row names any more; returns what was deleted.

    Beside a sweep or a backup they stay, for a later sweep. Raises StoreUnavailable.
    """

    def hold(sha256: str) -> Script[int]:
        return (yield from orphans.hold(sha256)) if (yield from orphans.lock_sweep_out()) else 0

    return [sha256 for sha256 in hashes if _delete(stores, sha256, partial(hold, sha256), -math.inf)]


@dataclass(frozen=True)
class _Window:
    """The next blobs in the order of their names, and what is wrong with named ones between `low` and `high`."""

    low: str
    high: str
    present: Sequence[str]
    faults: Sequence[str]


def _windows(stores: Stores) -> Iterator[_Window]:
    blobs, low = stores.blobs.list(), ""
    while low != references.BEHIND:
        sizes = {blob.sha256: blob.size for blob in islice(blobs, PAGE)}
        # The listing comes in the order of names, so a page of blobs and the rows of its range can be compared one by
        # one.
        high = references.BEHIND if len(sizes) < PAGE else f"{max(sizes)}{references.BEHIND}"
        faults = [
            fault
            for sha256, size in references.pages(stores.database.run, low, high, PAGE)
            if sizes.get(sha256) != size and (fault := _fault(stores, sha256, size, sizes.get(sha256)))
        ]
        yield _Window(low, high, list(sizes), faults)
        low = high


def _fault(stores: Stores, sha256: str, size: int, found: int | None) -> str | None:
    """What is wrong with a named blob; None when it was put after the listing, or its last row went since."""
    # The listing was read page by page, and a put may have come after its page.
    if found is None and stores.blobs.exists(sha256):
        return None
    if not (rows := stores.database.run(references.naming(sha256))):
        return None
    named = ", ".join(rows)
    if found is None:
        return f"blob {sha256} is named by a row but gone: {named}"
    return f"blob {sha256} has {found} bytes, and {size} as a row says, it is damaged: {named}"


def _shortened(faults: list[str]) -> list[str]:
    if len(faults) <= NAMED:
        return faults
    return [*faults[:NAMED], f"{len(faults) - NAMED} more blobs that rows name are gone or damaged"]


def _note(window: _Window, grace_seconds: float) -> Script[None]:
    """Have `orphans` say which blobs of a window no row names."""
    named = set((yield from references.referenced(window.present)))
    yield from orphans.forget(sorted(named))
    yield from orphans.note([sha256 for sha256 in window.present if sha256 not in named], grace_seconds)
    yield from orphans.forget_gone(window.low, window.high, window.present)


def _delete_due(stores: Stores, wait_seconds: float, grace_seconds: float) -> Iterator[str]:
    after = ""
    while page := stores.database.run(orphans.due(wait_seconds, grace_seconds, after, PAGE)):
        for sha256 in page:
            hold = partial(orphans.hold_due, sha256, wait_seconds, grace_seconds)
            if _delete(stores, sha256, lambda hold=hold: iter(hold()), grace_seconds):
                yield f"blob {sha256} was named by no row: deleted"
        after = page[-1]


def _delete(stores: Stores, sha256: str, hold: Callable[[], Script[int]], young_seconds: float) -> bool:
    """Delete a blob that no row names and that is not young, while `hold` holds it; returns whether it was there."""
    with ExitStack() as until_committed:
        return stores.database.run(_deletion(stores.blobs, sha256, hold(), young_seconds, until_committed))


def _deletion(
    blobs: BlobStore, sha256: str, hold: Script[int], young_seconds: float, until_committed: ExitStack
) -> Script[bool]:
    # The one transaction that is open while another store works: what it holds is what must not be named meanwhile.
    yield from orphans.wait_for_the_blob_store()
    # Somebody has named the bytes, or is about to: their put renewed the row first.
    if not (yield from hold):
        return False
    age = blobs.age_seconds(sha256)
    # Its file is young though its row is old: a deletion that died before its commit, and bytes that were put again
    # since.
    if age is not None and age < young_seconds:
        yield from orphans.renew(sha256)
        return False
    # Asked last: Postgres may have been lost while the blob store took its time, and the lock with it. Then this fails.
    if (yield from references.referenced([sha256])):
        yield from orphans.forget([sha256])
        return False
    # Left only after the commit: an error on the way there puts the bytes back.
    until_committed.enter_context(blobs.removing(sha256))
    yield from orphans.forget([sha256])
    return age is not None
