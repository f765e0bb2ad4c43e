"""Bytes out: whole or one range (RFC 9110), named by their SHA-256, read in threads, checked on the way."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeAlias, cast
from urllib.parse import quote

from litestar import HttpMethod, Request, Response, route
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.response import Stream

from platform_api.http.problems import RangeNotSatisfiable, can_return
from platform_api.http.rate_limits import LIMITED_AS, RateKind
from storage.blobs.store import BlobStore
from storage.errors import BlobCorrupted, NotFound
from storage.request_faults import has_control_characters
from storage.stores import AsyncStores
from storage.thread_pools import ThreadPool

PIECE = 256 * 1024
WITHIN_SECONDS = 60.0
"""How long the next piece of a download that has begun waits for a thread: cutting it off helps nobody."""
Guard: TypeAlias = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]
# 18 digits, or `int` of a header would be made of as many as somebody sends.
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True)
class Download:
    """One blob as a client gets it. `size` is in bytes; `headers` replace the default ones."""

    sha256: str
    size: int
    name: str
    media_type: str
    headers: Mapping[str, str] | None = None

    @property
    def etag(self) -> str:
        """The strong validator: bytes are named by their hash."""
        return f'"{self.sha256}"'


@dataclass(frozen=True)
class Span:
    """Bytes `first` to `last`, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.last - self.first + 1


def read_route(
    path: str, *, guards: Sequence[Guard], summary: str, refusals: Mapping[int, ResponseSpec] | None = None
) -> Callable[[Any], HTTPRouteHandler]:
    """A GET and HEAD route that responds with `respond`, documented. `refusals`: where they are not of our own form."""
    whole = ResponseSpec(bytes, generate_examples=False, description="All bytes", media_type="application/octet-stream")
    part = ResponseSpec(bytes, generate_examples=False, description="The range", media_type="application/octet-stream")
    unchanged = ResponseSpec(None, description="The client's copy, named by If-None-Match, is still good")
    return route(
        path,
        http_method=[HttpMethod.GET, HttpMethod.HEAD],
        guards=list(guards),
        summary=summary,
        status_code=200,
        media_type="application/octet-stream",
        opt={LIMITED_AS: RateKind.DOWNLOADS},
        responses={200: whole, 206: part, 304: unchanged, **(refusals or can_return(401, 403, 404, 410, 416, 422))},
    )


async def respond(request: Request[Any, Any, Any], blobs: BlobStore, wanted: Download) -> Response[Any]:
    """The blob, or the range of it that the request asks for. Only the headers for HEAD.

    A thread is held for one piece at a time, so a client that stops reading holds none.
    Raises RangeNotSatisfiable, BlobMissing, StoreUnavailable.
    """
    headers = {
        "ETag": wanted.etag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": attachment(wanted.name),
        **(wanted.headers or {}),
    }
    # Before the range (RFC 9110, 13.2.2).
    known = request.headers.get("if-none-match")
    if known is not None and _names(known, wanted.etag):
        return Response(b"", status_code=304, media_type=wanted.media_type, headers=headers)
    span = asked_range(request.headers.get("range"), request.headers.get("if-range"), wanted)
    status = 200 if span is None else 206
    if span is not None:
        headers["Content-Range"] = f"bytes {span.first}-{span.last}/{wanted.size}"
    headers["Content-Length"] = str(wanted.size if span is None else span.length)
    if request.method == HttpMethod.HEAD:
        return Response(b"", status_code=status, media_type=wanted.media_type, headers=headers)
    threads = cast(AsyncStores, request.app.state.stores).pools.blob_reads
    # Opened before the first header goes out: bytes that are missing are still a response with a status.
    stream = await threads.run(blobs.open, wanted.sha256)
    pieces = _whole(threads, stream, wanted) if span is None else _part(threads, stream, span)
    return _TypedStream(pieces, status_code=status, media_type=wanted.media_type, headers=headers)


class _TypedStream(Stream):
    """A stream whose own media type counts: Litestar's prefers the route's."""

    def to_asgi_response(self, *arguments: Any, **options: Any) -> Any:
        """The response as it is sent."""
        options["media_type"] = self.media_type
        return cast(Any, super()).to_asgi_response(*arguments, **options)


def asked_range(header: str | None, if_range: str | None, wanted: Download) -> Span | None:
    """The one range that a request asks for, or None for the whole: no range, several, or another version's.

    Raises RangeNotSatisfiable when it begins behind the end.
    """
    # Another version's range gets the whole (RFC 9110, 13.1.5): joined to the old part it would be no file.
    if header is None or (if_range is not None and if_range.strip() != wanted.etag):
        return None
    match = _RANGE.fullmatch(header.strip())
    # Several ranges, or another unit: a server may ignore Range, and then clients take the whole.
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        length = min(int(match[2]), wanted.size)
        if length == 0:
            raise RangeNotSatisfiable(wanted.size)
        return Span(wanted.size - length, wanted.size - 1)
    first, last = int(match[1]), int(match[2]) if match[2] else wanted.size - 1
    if match[2] and last < first:
        return None
    if first >= wanted.size:
        raise RangeNotSatisfiable(wanted.size)
    return Span(first, min(last, wanted.size - 1))


def plain_path(path: PurePosixPath) -> str:
    """A path parameter as rows hold it: relative, without NUL or lone surrogates. Raises NotFound."""
    text = str(path).lstrip("/")
    if not text or has_control_characters(text):
        raise NotFound("There is no file of that name.")
    return text


def attachment(name: str) -> str:
    """Content-Disposition that saves under `name` (RFC 6266): plain ASCII, and UTF-8 where that says more.

    Clients are known that take everything after `filename=` for the name, so the second form comes only when needed.
    """
    base = name.rsplit("/", 1)[-1]
    plain = re.sub(r"[^A-Za-z0-9._\- ]", "_", base) or "download"
    extended = "" if plain == base else f"; filename*=UTF-8''{quote(base, safe='')}"
    return f'attachment; filename="{plain}"{extended}'


def _names(if_none_match: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags


async def _whole(threads: ThreadPool, stream: BinaryIO, wanted: Download) -> AsyncGenerator[bytes]:
    """Every byte, hashed on the way; the last piece is held back until the hash agrees with the name, so that a
    client never takes changed bytes for the file."""
    digest = hashlib.sha256()

    def read() -> bytes:
        piece = stream.read(PIECE)
        digest.update(piece)
        return piece

    try:
        held = await threads.go_on(read, WITHIN_SECONDS)
        while piece := await threads.go_on(read, WITHIN_SECONDS):
            yield held
            held = piece
        if digest.hexdigest() != wanted.sha256:
            raise BlobCorrupted(f"Blob {wanted.sha256} no longer has the bytes of its name. Restore it from a backup.")
        yield held
    finally:
        stream.close()


async def _part(threads: ThreadPool, stream: BinaryIO, span: Span) -> AsyncGenerator[bytes]:
    left = span.length

    def read() -> bytes:
        return stream.read(min(PIECE, left))

    try:
        # A part is not checked against the hash, which is of the whole.
        await threads.go_on(lambda: stream.seek(span.first), WITHIN_SECONDS)
        while left and (piece := await threads.go_on(read, WITHIN_SECONDS)):
            left -= len(piece)
            yield piece
    finally:
        stream.close()
