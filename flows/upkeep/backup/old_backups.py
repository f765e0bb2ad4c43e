"""Which backups go when there are enough newer ones, and what goes with them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from flows.upkeep.backup.backup_store import BackupStore
from flows.upkeep.backup.manifest import Manifest
from flows.upkeep.backup.verification import artifacts_of, blobs_of
from storage.backup_settings import BackupSettings
from storage.errors import BackupDamaged, BackupRefused

UNFINISHED_SECONDS = 2 * 86400.0
"""A backup that nobody has written to for so long is one that died."""
YOUNG_SECONDS = 86400.0
"""Blobs younger than this may belong to a backup that is being made."""


def kept(backups: Mapping[str, datetime], settings: BackupSettings) -> set[str]:
    """The names to keep of finished backups, given when each began.

    The newest few always, and the newest of each of the last days, weeks and months that have any. Only the backups'
    own times are compared with each other, so a clock that jumps drops nothing that it would not drop anyhow.
    """
    newest_first = sorted(backups, key=lambda name: backups[name], reverse=True)
    names = set(newest_first[: max(1, settings.keep_last)])
    periods: Sequence[tuple[int, Callable[[datetime], object]]] = (
        (settings.keep_days, lambda began: began.date()),
        (settings.keep_weeks, lambda began: began.isocalendar()[:2]),
        (settings.keep_months, lambda began: (began.year, began.month)),
    )
    for maximum, period in periods:
        seen: dict[object, str] = {}
        for name in newest_first:
            seen.setdefault(period(backups[name]), name)
        names.update(list(seen.values())[:maximum])
    return names


@dataclass
class Dropped:
    """What went: names of backups, and how many blobs. `faults`: a sentence for each backup that could not be read,
    which stays."""

    names: list[str] = field(default_factory=list)
    blobs: int = 0
    faults: list[str] = field(default_factory=list)


def drop_old(store: BackupStore, settings: BackupSettings, just_made: str | None = None) -> Dropped:
    """Remove backups that no rule keeps, those that died, and blobs that no backup names any more.

    `just_made` stays whatever its time: the clock may have been set back.

    A backup that cannot be read stays, and counts for no rule. While there is one no blob goes: it may be what names
    it. Raises DiskFull, StoreUnavailable.
    """
    dropped = Dropped()
    manifests: dict[str, Manifest] = {}
    for name in store.finished():
        with _noted(dropped.faults, name):
            manifests[name] = store.manifest(name)
    keeping = kept({name: manifest.started_at for name, manifest in manifests.items()}, settings)
    if just_made in manifests:
        keeping.add(just_made)
    named: set[str] = set()
    # Only those that stay name blobs that stay: the lists of the others need not be readable.
    for name in keeping:
        with _noted(dropped.faults, name):
            named.update(blobs_of(store, manifests[name]))
            named.update(artifact.sha256 for artifact in artifacts_of(store, manifests[name]))
    dead = [name for name, age in store.unfinished().items() if age > UNFINISHED_SECONDS]
    dropped.names = [name for name in manifests if name not in keeping] + dead
    for name in dropped.names:
        store.delete(name)
    # Listing is the costly part, and without a backup that goes no blob can have lost its last one.
    for blob in store.blobs.list() if dropped.names and not dropped.faults else ():
        if blob.sha256 not in named and blob.age_seconds > YOUNG_SECONDS:
            store.blobs.delete(blob.sha256)
            dropped.blobs += 1
    store.blobs.sweep_unfinished(UNFINISHED_SECONDS)
    return dropped


@contextmanager
def _noted(faults: list[str], name: str) -> Generator[None]:
    try:
        yield
    except (BackupDamaged, BackupRefused) as error:
        faults.append(f"{name}: {error}")
