"""A file system's own errors, named: no room left, or a store that does not respond."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, cast

from storage.errors import BlobCorrupted, DiskFull, StoreUnavailable

BLOB_STORE = "The blob store"
STAGING = "The folder of uploads on their way"


def store_error(error: Exception, place: str = BLOB_STORE) -> DiskFull | StoreUnavailable:
    """The named error for a file system's own: `place` has no room left, or does not respond."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{place} has no room left. Free some space, then retry.")
    reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return StoreUnavailable(
        f"{place} does not respond ({type(error).__name__}{reason}). Check that it is there (mounted, or reachable) "
        "and that this process may write to it, then retry."
    )


def failures_of(filesystem: Any) -> tuple[type[Exception], ...]:
    """What an fsspec file system raises when it cannot do as asked. S3's client has errors of its own."""
    protocol = cast(str | tuple[str, ...], filesystem.protocol)
    if "s3" in ((protocol,) if isinstance(protocol, str) else protocol):
        # Imported only here: without S3 botocore need not be installed.
        return OSError, cast(type[Exception], import_module("botocore.exceptions").BotoCoreError)
    return (OSError,)


@contextmanager
def named(failures: tuple[type[Exception], ...], place: str = BLOB_STORE) -> Generator[None]:
    """Whatever fails in the block fails as DiskFull, or as StoreUnavailable, naming `place`."""
    try:
        yield
    except failures as error:
        raise store_error(error, place) from error


def corrupted(sha256: str) -> BlobCorrupted:
    """The error for a blob whose bytes are not those of its name."""
    return BlobCorrupted(f"Blob {sha256} no longer has the bytes of its name. Restore it from a backup.")
