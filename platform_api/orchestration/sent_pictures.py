"""Pictures that steps go on from: uploads, and what stands in a template as a data URL, in Base64, as a blob."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from litestar import Request
from litestar.datastructures import State

from platform_api.access.guards import Caller
from platform_api.access.reservations import Reservation, reserving
from platform_api.generation.sources import keep_source
from platform_api.http import multipart
from platform_api.orchestration.blob_links import blob_in_address
from storage.blobs.image_workers import CanonicalImage, ImageWorkers
from storage.errors import ImageRefused, InvalidRequest, LinkRefused, NotFound
from storage.postgres.connection import Script
from storage.postgres.generation.source_pictures import SentPicture
from storage.postgres.orchestration import workflow_pages
from storage.records.generation.resolved_drawings import SourcePicture
from storage.records.orchestration.blob_names import SentBlob, read_blob_id
from storage.records.orchestration.templates import TemplateRead, picture_field, picture_of
from storage.settings import UploadSettings
from storage.stores import AsyncStores

FORM_BYTES = 64 * 1024
"""What a form has beside its image: the boundaries."""
EXPECTED = multipart.Expected(
    ("image/png", "image/jpeg", "image/webp", "application/octet-stream"),
    {},
    "Send the picture as image/png, image/jpeg or image/webp, or as `files` of multipart/form-data.",
)
_DATA_URL = re.compile(r"data:(?P<type>[a-z0-9.+/-]{0,80})(?:;[a-z0-9=.-]{1,40})*;base64,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/]{100}")


class _Staged(NamedTuple):
    """A picture that has come, canonical in the staging folder."""

    path: Path
    sha256: str
    measured: CanonicalImage
    reservation: Reservation

    async def kept(self, stores: AsyncStores, caller: Caller) -> SentPicture:
        """It, kept as a source of the caller's."""
        return await keep_source(stores, caller, self.path, self.measured, self.reservation)


class Intake:
    """Pictures as a request names them, looked up or measured, each once; nothing is kept before `keep`."""

    def __init__(
        self, stores: AsyncStores, caller: Caller, state: State, held: AsyncExitStack, *, to_keep: bool
    ) -> None:
        self._stores, self._caller, self._state, self._held, self._to_keep = stores, caller, state, held, to_keep
        self._known: dict[str, str] = {}
        self._staged: dict[str, _Staged] = {}
        self._decodes = False
        self.by_place: dict[int, str] = {}
        """SHA-256 by the places of the steps that go on from them."""

    @property
    def unkept(self) -> dict[str, SourcePicture]:
        """Those that came as bytes, by their SHA-256."""
        return {
            sha256: SourcePicture(sha256, one.measured.width, one.measured.height)
            for sha256, one in self._staged.items()
        }

    async def sha256_of(self, text: str) -> str:
        """The SHA-256 of a picture that stands in a request. Raises InvalidRequest, ImageRefused, and as `receive`."""
        # The same bytes in several steps are one picture, looked at once.
        if text not in self._known:
            coded = _base64_in(text, self._stores.settings.uploads)
            self._known[text] = await (self._named(text) if coded is None else self._measured(coded))
        return self._known[text]

    async def keep(self) -> list[SentPicture]:
        """Keep what came as bytes. Raises QuotaExceeded, Unauthenticated, AccountBanned."""
        return [await one.kept(self._stores, self._caller) for one in self._staged.values()]

    async def _named(self, text: str) -> str:
        blob = text
        if "://" in text:
            try:
                named = blob_in_address(text, self._stores.settings.api)
            except LinkRefused as error:
                raise InvalidRequest({"image": str(error)}) from error
            if named is None:
                reason = "is an address of another host, from which nothing is fetched; send the picture to"
                raise InvalidRequest({"image": f"{reason} POST /v2/consumer/blobs and name the blob"})
            blob = named
        try:
            return await self._stores.database.run(lambda: _sha256_of(blob, self._caller))
        except NotFound as error:
            raise InvalidRequest({"image": f"{str(error).rstrip('.')} of yours"}) from error

    async def _measured(self, coded: str) -> str:
        stores, enter = self._stores, self._held.enter_async_context
        if not self._decodes:
            # However small the request: a picture of some KB may have 64 megapixels.
            self._decodes = True
            await enter(self._state.uploads.hold(self._caller.account_id))
        reservation = await enter(reserving(stores, self._caller, len(coded) * 3 // 4, kept=self._to_keep))
        source = await enter(multipart.staging_folder(stores)) / "received"
        await stores.pools.blob_writes.run(_decode, coded, source)
        staged = await _canonical(stores, self._state, source, reservation)
        self._staged.setdefault(staged.sha256, staged)
        return staged.sha256


async def receive(request: Request[Any, Any, Any], stores: AsyncStores, caller: Caller, state: State) -> SentPicture:
    """Take an uploaded picture. Raises as `multipart.receive`, ImageRefused, QuotaExceeded, FreeSpaceLow."""
    one = multipart.of_one_image(stores.settings.uploads, FORM_BYTES)
    async with (
        state.uploads.hold(caller.account_id),
        reserving(stores, caller, multipart.declared_length(request)) as reservation,
        multipart.staging_folder(stores) as folder,
    ):
        upload = await multipart.receive(request, folder, one, EXPECTED, arrived=reservation.arrived)
        if not upload.files:
            raise InvalidRequest({"files": "is required: the picture"})
        staged = await _canonical(stores, state, upload.files[0].path, reservation)
        return await staged.kept(stores, caller)


@contextlib.asynccontextmanager
async def intake(stores: AsyncStores, caller: Caller, state: State, *, to_keep: bool = True) -> AsyncGenerator[Intake]:
    """Where pictures of one request are taken in. `to_keep`: False for what is only priced, which no quota is asked
    for."""
    async with AsyncExitStack() as held:
        yield Intake(stores, caller, state, held, to_keep=to_keep)


@contextlib.asynccontextmanager
async def pictures_of(
    read: TemplateRead, stores: AsyncStores, caller: Caller, state: State, *, to_keep: bool = True
) -> AsyncGenerator[Intake]:
    """The pictures that the steps go on from, as `intake`.

    Raises InvalidRequest naming the fields at fault, and as `receive`.
    """
    faults: dict[str, str] = {}
    async with intake(stores, caller, state, to_keep=to_keep) as taken:
        for place, step in enumerate(read.steps):
            picture = picture_of(step)
            if not isinstance(picture, str):
                continue
            try:
                taken.by_place[place] = await taken.sha256_of(picture)
            except (InvalidRequest, ImageRefused) as error:
                faults[f"steps[{place}].input.{picture_field(step)}"] = _reason(error)
        if faults:
            raise InvalidRequest(faults)
        yield taken


def _reason(error: InvalidRequest | ImageRefused) -> str:
    return next(iter(error.fields.values())) if isinstance(error, InvalidRequest) else f"the picture {error}"


def _sha256_of(blob: str, caller: Caller) -> Script[str]:
    named = read_blob_id(blob)
    if isinstance(named, SentBlob):
        return named.sha256
    return (yield from workflow_pages.picture(named.job_id, caller.account_id, named.name)).sha256


def _base64_in(text: str, limits: UploadSettings) -> str | None:
    """The Base64 of a data URL, or a long text in it; None for what is a name or an address."""
    found = _DATA_URL.match(text)
    if found is None and not (_BASE64.match(text) and "://" not in text):
        return None
    coded = text[found.end() if found else 0 :]
    if len(coded) * 3 // 4 > limits.max_image_bytes:
        raise InvalidRequest({"image": f"has more than {limits.max_image_bytes:,} bytes; export it smaller"})
    return coded


def _decode(coded: str, target: Path) -> None:
    try:
        target.write_bytes(base64.b64decode(coded + "=" * (-len(coded) % 4), validate=True))
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest({"image": "is not Base64"}) from error


async def _canonical(stores: AsyncStores, state: State, source: Path, reservation: Reservation) -> _Staged:
    target = source.with_name("canonical.png")
    # In a child with a memory limit: a picture that breaks the decoder must not end the API.
    measured, sha256 = await stores.pools.images.run(_made_canonical, state.image_workers, source, target)
    await reservation.becomes(measured.size)
    return _Staged(target, sha256, measured, reservation)


def _made_canonical(workers: ImageWorkers, source: Path, target: Path) -> tuple[CanonicalImage, str]:
    measured = workers.canonicalise(source, target)
    with target.open("rb") as content:
        return measured, hashlib.file_digest(content, "sha256").hexdigest()
