"""Uploads of photos on their way in: streamed to a staging folder, with every limit enforced while the bytes arrive.

What a client says about its body (Content-Length, a part's own headers) is checked against what comes, never believed.
"""

from __future__ import annotations

import asyncio
import errno
import re
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from litestar import Request
from multipart import (
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,  # pyright: ignore[reportUnknownVariableType]
)

from platform_api.http.problems import BodyTooLarge, MalformedBody, UnsupportedMediaType
from platform_api.http.request_body import Body
from storage.blobs.failures import STAGING, store_error
from storage.errors import (
    AccountBanned,
    FreeSpaceLow,
    InvalidRequest,
    QuotaExceeded,
    Unauthenticated,
    UploadRefused,
)
from storage.request_faults import has_control_characters
from storage.settings import Settings, UploadSettings
from storage.stores import AsyncStores
from storage.thread_pools import ThreadPool

_FORGOTTEN_SECONDS = 6 * 3600
_MAX_NAME = 120


@dataclass(frozen=True)
class ReceivedFile:
    """One file of an upload: the name its sender gave it, and where it is."""

    name: str
    path: Path
    is_archive: bool


def declared_length(request: Request[Any, Any, Any]) -> int | None:
    """What a client says that it will send; None when it does not."""
    return Body(request, 0, "").declared_length


@dataclass
class Upload:
    """What an upload request brought."""

    files: list[ReceivedFile]
    texts: dict[str, str]

    @property
    def name(self) -> str | None:
        """What its sender calls it."""
        return self.texts.get("name", "").strip() or None


@dataclass(frozen=True)
class Expected:
    """Kinds of a bare body, and a form's text fields with the bytes each may have; `advice` refuses other kinds."""

    kinds: tuple[str, ...]
    texts: Mapping[str, int]
    advice: str


# The second is what Windows calls it.
_ZIPS = ("application/zip", "application/x-zip-compressed")
PHOTOS = Expected(
    _ZIPS,
    {"name": 4 * _MAX_NAME, "metadata": 1024 * 1024},
    "Send multipart/form-data with a boundary, or a zip as application/zip.",
)
ONE_IMAGE = Expected(
    ("image/png", "image/jpeg", "image/webp"),
    {"meta": 64 * 1024},
    "Send the image as image/png, image/jpeg or image/webp, or as `files` of multipart/form-data.",
)


def of_one_image(limits: UploadSettings, form_bytes: int) -> UploadSettings:
    """The limits of uploads for a request with one image, whose form has so many bytes beside it."""
    return limits.model_copy(update={"max_images": 1, "max_upload_bytes": limits.max_image_bytes + form_bytes})


def staging_root(settings: Settings) -> Path:
    """The folder that uploads in progress live in, one folder each."""
    return settings.data_folder / "uploads"


@asynccontextmanager
async def staging_folder(stores: AsyncStores) -> AsyncGenerator[Path]:
    """A folder for one upload, gone at the end whatever happens. Raises DiskFull when there is no room for it."""
    root = staging_root(stores.settings)
    try:
        folder = Path(await stores.pools.blob_writes.run(_make_folder, root))
    except OSError as error:
        raise store_error(error, STAGING) from error
    try:
        yield folder
    except OSError as error:
        # Whatever step inside finds no room: a full disk is a 507, and is not taken for a bad image.
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise store_error(error, STAGING) from error
        raise
    finally:
        # Shielded, because a client that leaves cancels the request in the middle of this.
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


def _make_folder(root: Path) -> str:
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return tempfile.mkdtemp(dir=root)


def sweep_staging(settings: Settings) -> None:
    """Remove what processes that were killed left in the staging folder."""
    root = staging_root(settings)
    for folder in root.iterdir() if root.exists() else ():
        # Other processes of the API may be filling a folder at this moment.
        if time.time() - folder.stat().st_mtime > _FORGOTTEN_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


_REFUSALS = (
    *(UploadRefused, InvalidRequest, BodyTooLarge, MalformedBody, UnsupportedMediaType),
    *(QuotaExceeded, FreeSpaceLow, Unauthenticated, AccountBanned),
)


async def receive(
    request: Request[Any, Any, Any],
    folder: Path,
    limits: UploadSettings,
    expected: Expected = PHOTOS,
    *,
    arrived: Callable[[int], Awaitable[None]],
) -> Upload:
    """Write the files of an upload into `folder`; `arrived` is called with how many bytes have come, and may refuse
    them.

    Raises BodyTooLarge, MalformedBody, TooSlow, UnsupportedMediaType, InvalidRequest, UploadRefused, and what `arrived`
    does. The rest of the body is then read for a while and dropped, so that the client gets to read why.
    """
    maximum = limits.max_upload_bytes
    threads = cast(AsyncStores, request.app.state.stores).pools.blob_writes
    body = Body(request, maximum, f"The upload has more than {maximum:,} bytes. Send fewer or smaller photos.", arrived)
    kind, options = cast(tuple[str, dict[str, str]], parse_options_header(request.headers.get("content-type", "")))
    try:
        body.check_declared_length()
        if kind == "multipart/form-data" and options.get("boundary"):
            upload = await _receive_form(body, options["boundary"], _Form(folder, limits, expected.texts, threads))
            _check_name(upload.name or "")
            return upload
        if kind in expected.kinds:
            return Upload([await _receive_whole(body, folder, threads, is_archive=kind in _ZIPS)], {})
        raise UnsupportedMediaType(expected.advice)
    except _REFUSALS:
        await body.drain()
        raise


async def _receive_whole(body: Body, folder: Path, threads: ThreadPool, *, is_archive: bool) -> ReceivedFile:
    name = "archive.zip" if is_archive else "image"
    with (folder / name).open("wb") as sink:
        async for piece in body.pieces():
            await threads.run(sink.write, piece)
    return ReceivedFile(name, folder / name, is_archive)


class _Form:
    """The parts of a form as they arrive."""

    def __init__(self, folder: Path, limits: UploadSettings, texts: Mapping[str, int], threads: ThreadPool) -> None:
        self.upload = Upload([], {})
        # One more than may come, so that the refusal of one too many is ours, with its reason, and not the parser's.
        self.max_parts = limits.max_images + len(texts) + 1
        self._folder, self._limits, self._texts, self._threads = folder, limits, texts, threads
        self._sink: BinaryIO | None = None
        self._text: bytearray | None = None
        self._left = 0
        self._name = ""

    def begin(self, part: MultipartSegment) -> None:
        """A new part. Raises InvalidRequest for a field that there is not, UploadRefused for one file too many."""
        field = part.name or ""
        if field in self._texts and not part.filename:
            self._name, self._text, self._left = field, bytearray(), self._texts[field]
        elif field == "files":
            self._begin_file(part.filename or "")
        else:
            shown = re.sub(r"[^\x20-\x7e]", "?", field)[:40]
            known = ", ".join((*self._texts, "files"))
            raise InvalidRequest({shown or "body": f"there is no such field; there are: {known}"})

    def _begin_file(self, filename: str) -> None:
        if len(self.upload.files) >= self._limits.max_images:
            message = f"More than {self._limits.max_images:,} files. Send at most that many photos."
            raise UploadRefused("too_many_images", message)
        position = len(self.upload.files)
        self._name = plain_name(filename) or f"photo-{position + 1}"
        archive = self._name.lower().endswith(".zip")
        self._left = self._limits.max_upload_bytes if archive else self._limits.max_image_bytes
        # A name of ours: the sender's is only shown, and never a path.
        path = self._folder / f"received-{position:06}"
        self.upload.files.append(ReceivedFile(self._name, path, archive))
        self._sink = path.open("wb")

    async def take(self, piece: bytes) -> None:
        """Bytes of the present part. Raises UploadRefused, InvalidRequest when they are too many."""
        self._left -= len(piece)
        if self._sink is not None:
            if self._left < 0:
                message = f"'{self._name}' has more than {self._limits.max_image_bytes:,} bytes. Export it smaller."
                raise UploadRefused("image_too_large", message)
            await self._threads.run(self._sink.write, piece)
        elif self._text is not None:
            if self._left < 0:
                raise InvalidRequest({self._name: f"must have {self._texts[self._name]:,} bytes at most"})
            self._text += piece

    def end(self) -> None:
        """The present part is whole. Raises InvalidRequest when it is a text that cannot be one."""
        self.close()
        if self._text is not None:
            text, self._text = bytes(self._text), None
            self.upload.texts[self._name] = _checked_text(self._name, text)

    def close(self) -> None:
        """Close the file of a part that is whole, or that never will be."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None


async def _receive_form(body: Body, boundary: str, form: _Form) -> Upload:
    try:
        # strict: unusual input, such as no browser sends, is an error and is not guessed at.
        parser = PushMultipartParser(boundary, max_segment_count=form.max_parts, strict=True)
        async for piece in body.pieces():
            for event in parser.parse(piece):
                if isinstance(event, MultipartSegment):
                    form.begin(event)
                elif event is None:
                    form.end()
                else:
                    await form.take(bytes(event))
        parser.close()
    except MultipartError as error:
        raise MalformedBody("The form is cut short or not well-formed multipart/form-data.") from error
    except UnicodeError as error:
        raise MalformedBody("The form's part headers are not UTF-8.") from error
    finally:
        form.close()
    return form.upload


def _checked_text(name: str, raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest({name: "must be UTF-8 text"}) from error
    if has_control_characters(text, lines=True):
        raise InvalidRequest({name: "must not hold control characters"})
    return text


def _check_name(name: str) -> None:
    if len(name) > _MAX_NAME or has_control_characters(name):
        raise InvalidRequest({"name": f"must have {_MAX_NAME} characters at most, on one line"})


def plain_name(filename: str) -> str:
    """A sender's file name without folders, control characters or excess; shown only, never a path of ours."""
    base = re.split(r"[/\\]", filename)[-1]
    clean = "".join(character for character in base if character.isprintable())
    stem, dot, suffix = clean.rpartition(".")
    return f"{stem[: _MAX_NAME - 10]}{dot}{suffix[:8]}" if dot else clean[:_MAX_NAME]
