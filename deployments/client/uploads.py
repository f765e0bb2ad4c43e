"""Model files to the API, by tus: an upload goes on after a broken connection, and in a later command."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from deployments.client.api import PASSING, Api, ApiRefusal, raise_for_problem

ROOT = "/api/v1/uploads"
TUS = {"Tus-Resumable": "1.0.0"}
MEDIA_TYPE = "application/offset+octet-stream"
PIECE = 1024 * 1024
# With growing pauses some 40 s in which nothing new arrives.
FRUITLESS_TRIES = 12
PAUSE_SECONDS = 0.5
_AGAIN = frozenset({408, 423, 429})
"""Responses after which the same is right a little later: our last request still ends, or others are before us."""


def upload_file(
    api: Api,
    version_id: int,
    path: Path,
    *,
    sha256: str,
    memory: Path,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Make the file at `path` a file of a version; `on_bytes` gets the size of every piece that is sent or was there.

    Its upload's address is kept in the folder `memory` until it is whole. Raises ApiRefusal with the reason when the
    file is not taken, ApiUnreachable, and OSError when the file cannot be read.
    """
    saved = memory / f"{sha256}-{version_id}"
    address = _begun(api, saved)
    if address is None:
        address = _begin(api, version_id, path, sha256)
        memory.mkdir(parents=True, exist_ok=True, mode=0o700)
        saved.write_text(address)
    try:
        _send(api, address, path, on_bytes)
    # Not after a broken connection: then the address is kept, and a later command goes on there.
    except ApiRefusal:
        saved.unlink(missing_ok=True)
        raise
    saved.unlink(missing_ok=True)


def _begun(api: Api, saved: Path) -> str | None:
    """The address of an upload that an earlier command began, if the API still has it."""
    with contextlib.suppress(FileNotFoundError, ApiRefusal, httpx.TransportError):
        address = saved.read_text().strip()
        _offset(api, address)
        return address
    return None


def _begin(api: Api, version_id: int, path: Path, sha256: str) -> str:
    fields = {"versionId": str(version_id), "filename": path.name, "sha256": sha256}
    metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in fields.items())
    headers = {**TUS, "Upload-Length": str(path.stat().st_size), "Upload-Metadata": metadata}
    try:
        response = api.http.post(ROOT, headers=headers)
    except httpx.TransportError as error:
        raise api.unreachable(error) from error
    raise_for_problem(response)
    return response.headers["Location"]


def _offset(api: Api, address: str) -> int:
    """How many bytes the API has. Raises ApiRefusal, httpx.TransportError."""
    response = api.http.head(address, headers=TUS)
    raise_for_problem(response)
    return int(response.headers["Upload-Offset"])


def _send(api: Api, address: str, path: Path, on_bytes: Callable[[int], None]) -> None:
    """Send what the API lacks, however often the connection breaks. Only tries that brought nothing new are counted.

    So this loop is our own and not storage.backoff's: a try that brought bytes and then broke off is no failure.
    """
    size, reached, reported, fruitless = path.stat().st_size, -1, 0, 0

    def report(count: int) -> None:
        nonlocal reported
        on_bytes(count - reported)
        reported = count

    while True:
        try:
            offset = _offset(api, address)
            report(offset)
            if offset == size:
                return
            fruitless = 0 if offset > reached else fruitless + 1
            reached = max(reached, offset)
            response = api.http.patch(
                address,
                headers={**TUS, "Upload-Offset": str(offset), "Content-Type": MEDIA_TYPE},
                content=_pieces(path, offset, report),
            )
            raise_for_problem(response)
        except httpx.TransportError as error:
            if fruitless >= FRUITLESS_TRIES:
                raise api.unreachable(error) from error
        except ApiRefusal as refusal:
            if refusal.status not in PASSING | _AGAIN or fruitless >= FRUITLESS_TRIES:
                raise
        time.sleep(PAUSE_SECONDS * fruitless)


def _pieces(path: Path, offset: int, report: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb") as stream:
        stream.seek(offset)
        while piece := stream.read(PIECE):
            yield piece
            # After the yield: when the next piece is asked for, this one has been given to the connection.
            report(stream.tell())
