"""Files from the API: resumed where they broke off, checked by their SHA-256, under their name only when whole."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import httpx

from deployments.client.api import Api, raise_for_problem
from storage.errors import DarkroomError

# With growing pauses some 5 s in which nothing new arrives.
FRUITLESS_TRIES = 4
PAUSE_SECONDS = 0.5
PARTIAL_CONTENT = 206


class DownloadFailed(DarkroomError):
    """A file could not be brought here whole."""

    code = "download_failed"


def fetch_file(
    api: Api, url: str, target: Path, *, sha256: str, size: int, on_bytes: Callable[[int], None] = lambda _: None
) -> bool:
    """Bring the file at `url` to `target`; returns False when it was there already. `on_bytes` gets every piece's size.

    What came before a broken connection is in TARGET.part and is gone on with, also by a later command.
    Raises DownloadFailed, ApiRefusal, ApiUnreachable.
    """
    if target.is_file() and target.stat().st_size == size and hash_file(target) == sha256:
        on_bytes(size)
        return False
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if part.is_file() and part.stat().st_size > size:
            part.unlink()
        on_bytes(part.stat().st_size if part.is_file() else 0)
        _fill(api, url, part, sha256, size, on_bytes)
        if hash_file(part) != sha256:
            part.unlink()
            raise DownloadFailed(f"{target.name} came with other bytes than its SHA-256 says. Try again.")
        part.replace(target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DownloadFailed(f"no room left for {target} ({size:,} bytes). Free some, then repeat.") from error
        raise DownloadFailed(f"{target} cannot be written: {error.strerror}. Choose another --out.") from error
    return True


def safe_target(folder: Path, name: str) -> Path:
    """Where a file of the API's naming goes in `folder`. Raises DownloadFailed for a name that leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name or "\0" in name:
        raise DownloadFailed(f"the API named a file {name!r}, which leads out of {folder}. Nothing was written.")
    return folder.joinpath(*path.parts)


def hash_file(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fill(api: Api, url: str, part: Path, sha256: str, size: int, on_bytes: Callable[[int], None]) -> None:
    """Append until the file is as long as it should be. Only tries that brought nothing new are counted.

    So this loop is our own and not storage.backoff's: a try that brought bytes and then broke off is no failure.
    """
    reached, fruitless = -1, 0
    while True:
        done = part.stat().st_size if part.is_file() else 0
        if done == size and part.is_file():
            return
        fruitless = 0 if done > reached else fruitless + 1
        reached = max(reached, done)
        try:
            _append(api, url, part, done, sha256, on_bytes)
        except httpx.TransportError as error:
            if fruitless >= FRUITLESS_TRIES:
                raise api.unreachable(error) from error
        else:
            if fruitless >= FRUITLESS_TRIES:
                raise DownloadFailed(f"{part.stem} ends after {done:,} of {size:,} bytes. Try again later.")
        time.sleep(PAUSE_SECONDS * fruitless)


def _append(api: Api, url: str, part: Path, done: int, sha256: str, on_bytes: Callable[[int], None]) -> None:
    # Ranges and the SHA-256 count the stored bytes, not compressed ones.
    headers = {"Accept-Encoding": "identity"}
    if done:
        # If-Range: should the file have changed, it comes whole (200), and the part is begun again.
        headers |= {"Range": f"bytes={done}-", "If-Range": f'"{sha256}"'}
    with api.http.stream("GET", url, headers=headers) as response:
        if not response.is_success:
            response.read()
        raise_for_problem(response)
        continued = response.status_code == PARTIAL_CONTENT
        if done and not continued:
            # It comes from the beginning after all: what was reported of the part is taken back.
            on_bytes(-done)
        with part.open("ab" if continued else "wb") as sink:
            for piece in response.iter_raw():
                sink.write(piece)
                on_bytes(len(piece))
