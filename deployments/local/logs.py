"""One log file per part, and one stream with all of them for whoever watches.

Parts write to files, not to pipes: they live on when `up` is killed, and nothing is lost that they say meanwhile. A
file that has grown too long is cut while its part goes on writing: what it held is put aside as .log.1, in the place of
what was put aside before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_READ_BYTES = 8 * 1024 * 1024
_MAX_LINE = 64 * 1024


class PartLog:
    """The log file of one part, written by its process and followed here."""

    def __init__(self, folder: Path, part: str) -> None:
        self.file = folder / f"{part}.log"
        self._read_to = self.file.stat().st_size if self.file.exists() else 0

    def open_for_process(self) -> IO[bytes]:
        """A handle for a new process to append to."""
        return self.file.open("ab")

    def new_lines(self) -> Iterator[str]:
        """The whole lines written since the last call."""
        size = self.file.stat().st_size if self.file.exists() else 0
        if size < self._read_to:
            self._read_to = 0  # the file was cut
        if size == self._read_to:
            return
        with self.file.open("rb") as stream:
            stream.seek(self._read_to)
            found = stream.read(_READ_BYTES)
        end = found.rfind(b"\n") + 1
        # Something that writes no end of line must not be read again and again.
        if not end and len(found) > _MAX_LINE:
            end = len(found)
        self._read_to += end
        yield from found[:end].decode(errors="replace").splitlines()

    def cut(self, most_bytes: int) -> bool:
        """Put aside what a file over `most_bytes` holds; returns whether it was cut."""
        if not self.file.exists() or self.file.stat().st_size <= most_bytes:
            return False
        cut_file(self.file)
        self._read_to = 0
        return True

    def last_lines(self, count: int = 15) -> str:
        """The end of the log, for an error message."""
        if not self.file.exists():
            return "(no log)"
        lines = self.file.read_bytes()[-32 * 1024 :].decode(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-count:]) or "    (the log is empty)"


def cut_file(file: Path) -> None:
    """Put what a log holds aside as .log.1, unless the disk is full, and empty it.

    Its process has it open for appending, so what it says next stands at the beginning. A line that it says between the
    copy and the emptying is lost.
    """
    aside = file.with_suffix(".log.1")
    try:
        shutil.copyfile(file, aside)
    except OSError:
        # A full disk needs the room more than anybody needs an old log.
        aside.unlink(missing_ok=True)
    os.truncate(file, 0)
