"""The Unix socket that an engine listens on: of this user alone, and of one engine at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import InUse, InvalidSettings
from storage.settings import variable_of

log = logging.getLogger("darkroom.engine")

LONGEST_PATH_BYTES = 107
"""Of a Unix socket's name in Linux, without the zero byte at its end."""


@contextmanager
def listening_socket(path: Path) -> Generator[socket.socket]:
    """A socket that only this user can connect to, in place of one that an engine before it has left.

    Raises InUse where another engine is running, InvalidSettings for a path or a folder that cannot have it.
    """
    _check_length(path)
    _close_folder(path.parent)
    with _locked(path.with_suffix(".lock")):
        path.unlink(missing_ok=True)
        with _bound(path) as made:
            ours = _identity(path)
            made.listen(128)
            try:
                yield made
            finally:
                if _identity(path) == ours:
                    path.unlink(missing_ok=True)


def _check_length(path: Path) -> None:
    length = len(os.fsencode(path))
    if length > LONGEST_PATH_BYTES:
        raise InvalidSettings(
            f"The engine cannot listen at {path}: a socket's path has at most {LONGEST_PATH_BYTES} bytes, and this one "
            f"{length}. Set {variable_of('data_folder')} to a shorter path; a symbolic link to the folder is enough."
        )


def _close_folder(folder: Path) -> None:
    """Let only this user into a folder; one that others share is refused, as it is not the engine's to close."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    mode = stat.S_IMODE(found.st_mode)
    if not mode & 0o077 and found.st_uid == os.geteuid():
        return
    if found.st_uid != os.geteuid() or mode & stat.S_ISVTX:
        raise InvalidSettings(
            f"The engine cannot listen in {folder}: others may write there or own it (owner {found.st_uid}, mode "
            f"{mode:o}). Remove it or set {variable_of('data_folder')} to a folder of this user."
        )
    log.warning("%s could be entered by others (mode %o): closing it", folder, mode)
    folder.chmod(0o700)


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold a file's lock, which the kernel takes back when this process ends, however it ends."""
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InUse(
                f"Another engine has {path.parent} (process {file.read(20).strip() or 'unknown'}). End it, or wait "
                "until it has ended; `darkroom status` shows whether it runs."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        # The file stays: whoever waits for a lock on one that was removed would hold a lock that nobody else sees.
        yield


@contextmanager
def _bound(path: Path) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        yield made


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
