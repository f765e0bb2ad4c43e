"""Which backups go when there are enough newer ones, and what goes with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from flows.upkeep.backup_store import BackupStore
from flows.upkeep.manifest import ARTIFACTS, BLOBS, read_artifact_lines, read_blob_lines
from storage.backup_settings import BackupSettings

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
    for most, period in periods:
        seen: dict[object, str] = {}
        for name in newest_first:
            seen.setdefault(period(backups[name]), name)
        names.update(list(seen.values())[:most])
    return names


def drop_old(store: BackupStore, settings: BackupSettings) -> tuple[list[str], int]:
    """Remove backups that no rule keeps, those that died, and blobs that no backup names any more.

    Gives the names of the backups and the number of blobs. A damaged manifest ends it before anything is removed.
    Raises BackupDamaged, StoreUnavailable.
    """
    manifests = {name: store.manifest(name) for name in store.finished()}
    keeping = kept({name: manifest.started_at for name, manifest in manifests.items()}, settings)
    unfinished = store.unfinished()
    dead = [name for name, age in unfinished.items() if age > UNFINISHED_SECONDS]
    named: set[str] = set()
    for name in keeping:
        named.update(read_blob_lines(store.read(manifests[name], BLOBS)))
        if manifests[name].has(ARTIFACTS):
            named.update(artifact.sha256 for artifact in read_artifact_lines(store.read(manifests[name], ARTIFACTS)))
    gone = [name for name in manifests if name not in keeping] + dead
    for name in gone:
        store.delete(name)
    removed = 0
    for blob in store.blobs.list() if gone else ():
        if blob.sha256 not in named and blob.age_seconds > YOUNG_SECONDS:
            store.blobs.delete(blob.sha256)
            removed += 1
    store.blobs.sweep_unfinished(UNFINISHED_SECONDS)
    return gone, removed
