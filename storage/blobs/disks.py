"""What a local disk needs beyond fsspec: names that survive a power cut, and listings while others delete."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

PIECE = 1024 * 1024
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk: a file's own fsync keeps its bytes, not its name. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it; what is made is on the disk. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)


def is_at(descriptor: int, folder: Path) -> bool:
    """Whether an open folder is still the one of that name: it may have been removed before it was locked."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def take_name(temporary: Path, path: Path) -> bool:
    """Give whole bytes a name for good; False when it is taken, and then its bytes stay. `temporary` may stay too.

    Raises OSError.
    """
    make_folder(path.parent)
    try:
        # A link fails where the name is taken; a rename would silently replace the other file.
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        temporary.replace(path)
    sync_folder(path.parent)
    return True


def link_as_new(source: Path, target: Path) -> bool:
    """Give a file's bytes a second name, as if they were new, and have them on the disk; False where that cannot be
    done (another disk, a file system without links)."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as file:
            # Before it gets its name: after a power cut a name without its bytes would pass for a whole blob.
            os.fsync(file.fileno())
        os.link(source, target)
        os.utime(target)  # its bytes may be a day old: a sweep goes by a file's age
    except OSError:
        return False
    return True


def link_checked(source: Path, target: Path, sha256: str, piece_done: Callable[[], object] = bool) -> bool:
    """Give a file a second name if its bytes have this SHA-256; False, and nothing is there, where that cannot be done
    or they have another. Who copies instead finds out why. `piece_done` is called after each PIECE of them."""
    temporary = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, temporary)
        with temporary.open("rb") as file:
            digest = hashlib.sha256()
            while piece := file.read(PIECE):
                digest.update(piece)
                piece_done()
            if digest.hexdigest() != sha256:
                return False
        temporary.replace(target)
    except OSError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def move(source: Path, target: Path) -> None:
    """Give bytes another name, as if they were new, unless it is taken: then they are the same ones. Raises OSError."""
    # A sweep goes by a file's age: bytes that come back must not look a day old.
    os.utime(source)
    take_name(source, target)
    source.unlink(missing_ok=True)


def scan(folder: Path) -> dict[str, dict[str, float]]:
    """The files in a folder by their paths, with size (bytes) and mtime (Unix seconds). Raises OSError."""
    found: dict[str, dict[str, float]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    facts = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # deleted while we looked
                    continue
                if entry.is_file(follow_symlinks=False):
                    found[entry.path] = {"size": facts.st_size, "mtime": facts.st_mtime}
    except FileNotFoundError:
        pass
    return found
