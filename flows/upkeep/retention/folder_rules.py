"""What rules do to folders of this machine: copies that can be made again, and what flows left that died."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from flows.upkeep.retention.sweep import Sweep
from storage.blobs import cached_files, cached_folders
from storage.blobs.stored import is_name
from storage.blobs.walks import size_of, walk, written_at
from storage.errors import NotFound
from storage.postgres.jobs import data_sets, jobs
from storage.records.jobs.jobs import TERMINAL
from storage.settings import GIB

UNFINISHED = timedelta(days=1)
COMPILED = "compiled"
"""The place of the cache with what `compile` made: files of torch in `torch`, a folder for each kernel in `triton`."""
ENCODINGS = "encodings"
"""The place of the cache with latents and encoded prompts: a folder for each photo, called as its SHA-256, with its own
latents and its caption's prompt."""
ENCODINGS_OF_NO_PHOTO = "of-no-photo"
"""The one beside them, of class images and of prompts that no photo has of its own. Releases before had captions there,
under another name."""


@contextmanager
def folders_to_oneself(data_folder: Path, every_seconds: float = 0.0) -> Generator[bool]:
    """Whether this process may apply the rules of folders now: no other one of this machine does, and for so long none
    has."""
    file = data_folder / "run" / "folder-rules.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    # A lock of the kernel's: it goes with its process, however that ends. The file itself stays, or two processes could
    # each lock another file of the same name.
    with open(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        # Its bytes say that it was done once: the time of an empty file is that of its making.
        # Not below 0: a clock that was set back must not keep the rules from being applied until it has caught up.
        if lock.read() and 0 <= time.time() - os.fstat(lock.fileno()).st_mtime < every_seconds:
            yield False
            return
        yield True
        lock.seek(0)
        lock.write("done\n")
        lock.flush()


def shrink_cache(sweep: Sweep, place: str, setting: str) -> None:
    """Delete the copies that were used longest ago until the others fit; never one that a process uses."""
    folder, limit = sweep.stores.cache_folder / place, int(sweep.value(setting) * GIB)
    sweep.removed.count += cached_folders.remove_unfinished(folder, UNFINISHED.total_seconds())
    kept = cached_folders.folders(folder)
    total, used = sum(copy.size for copy in kept), 0
    for copy in kept:
        if total <= limit:
            break
        sweep.check()
        # In use is what another process has locked; it does not count as a failure of the rule.
        if cached_folders.remove_unless_used(copy.path):
            total -= copy.size
            sweep.removed.count += 1
            sweep.removed.size += copy.size
        else:
            used += 1
    sweep.removed.note = f"{total / GIB:.2f} GiB kept" + (f", {used} too many in use" if used else "")


def tidy_encodings(sweep: Sweep, setting: str) -> None:
    """Delete what was made of photos that are in no data set any more, and of nobody knows what, then what was used
    longest ago until the others fit. Whoever finds one gone makes it again."""
    folder = sweep.stores.cache_folder / ENCODINGS
    entries = [entry for entry in _entries(folder) if entry.name != ENCODINGS_OF_NO_PHOTO]
    photos = [entry.name for entry in entries if is_name(entry.name)]
    known = set(sweep.stores.database.run(data_sets.known_photos(photos)))
    for entry in entries:
        sweep.check()
        # A folder of any other name is of an earlier release, in which captions of deleted photos may lie.
        if entry.name not in known:
            _delete(sweep, entry)
    count, size, kept = cached_files.shrink(folder, int(sweep.value(setting) * GIB))
    sweep.removed.count += count
    sweep.removed.size += size
    sweep.removed.note = f"{kept / GIB:.2f} GiB kept"


def delete_leftovers(sweep: Sweep, setting: str) -> None:
    """Working folders of jobs that have ended, whose flow died before it could delete its own."""
    for folder in _entries(sweep.stores.settings.data_folder / "work"):
        sweep.check()
        # Asked first: nothing below looks into the folder of a job that is at work.
        if not _is_at_work(sweep, folder.name) and _idle(folder) > sweep.age(setting).total_seconds():
            _delete(sweep, folder)


def delete_old_files(sweep: Sweep, place: str, setting: str) -> None:
    """Files below a place of the data folder that nobody has written to for so long."""
    root = sweep.stores.settings.data_folder / place
    for file, facts in walk(root):
        sweep.check()
        if stat.S_ISREG(facts.st_mode) and _idle(file) > sweep.age(setting).total_seconds():
            _delete(sweep, file)


def delete_compiled(sweep: Sweep, setting: str) -> None:
    """Kernels that were made so long ago; whoever finds one gone makes it again."""
    delete_old_files(sweep, f"cache/{COMPILED}/torch", setting)
    # Each as a whole: Triton takes a kernel whose description is there for one whose code is there, too.
    for kernel in _entries(sweep.stores.cache_folder / COMPILED / "triton"):
        sweep.check()
        if _idle(kernel) > sweep.age(setting).total_seconds():
            _delete(sweep, kernel)


def _is_at_work(sweep: Sweep, name: str) -> bool:
    try:
        job = sweep.stores.database.run(jobs.get(UUID(name)))
    except (ValueError, NotFound):
        return False
    return job.state not in TERMINAL


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def _idle(path: Path) -> float:
    """Seconds since anything in it was written. 0 when that is in the future (a clock that went back ages nothing), or
    when it is gone."""
    now = time.time()
    return max(0.0, now - (written_at(path) or now))


def _delete(sweep: Sweep, path: Path) -> None:
    size = size_of(path)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    sweep.removed.count += 1
    sweep.removed.size += size
