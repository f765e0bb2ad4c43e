"""Folders that others write to at this moment: what is in them, without what goes while it is looked at."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def walk(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """`path` and everything below it, each with its own facts (a link is not followed).

    What is deleted meanwhile is left out, `path` too. Raises OSError for what may not be read.
    """
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return
    yield path, facts
    if not stat.S_ISDIR(facts.st_mode):
        return
    # os.walk passes over every error by default, a disk that does not respond too.
    for folder, folders, files in os.walk(path, onerror=_raise_unless_gone):
        for name in (*folders, *files):
            entry = Path(folder, name)
            try:
                facts = entry.lstat()
            except FileNotFoundError:
                continue
            yield entry, facts


def size_of(path: Path) -> int:
    """Bytes of the files in it, or of itself."""
    return sum(facts.st_size for _, facts in walk(path) if stat.S_ISREG(facts.st_mode))


def written_at(path: Path) -> float | None:
    """When anything in it was written last (seconds since the epoch), itself included; None when it is gone."""
    return max((facts.st_mtime for _, facts in walk(path)), default=None)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
