"""Pictures that steps go on from: uploads, and what stands in a template as a data URL, in Base64, as a blob."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Any

from litestar import Request
from litestar.datastructures import State

from platform_api.access.guards import Caller
from platform_api.access.reservations import Reservation, reserving
from platform_api.http import multipart
from platform_api.orchestration.blob_links import blob_in_address
from storage.errors import ImageRefused, InvalidRequest, LinkRefused, NotFound
from storage.postgres.accounts import quotas
from storage.postgres.connection import Script
from storage.postgres.generation import source_pictures
from storage.postgres.generation.source_pictures import SentPicture
from storage.postgres.orchestration import workflow_pages
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


async def receive(request: Request[Any, Any, Any], stores: AsyncStores, caller: Caller, state: State) -> SentPicture:
    """Take an uploaded picture. Raises as `multipart.receive`, ImageRefused, QuotaExceeded, FreeSpaceLow."""
    limits = stores.settings.uploads
    one = limits.model_copy(update={"max_images": 1, "max_upload_bytes": limits.max_image_bytes + FORM_BYTES})
    async with (
        state.uploads.hold(caller.account_id),
        reserving(stores, caller, multipart.declared_length(request)) as reservation,
        multipart.staging_folder(stores) as folder,
    ):
        upload = await multipart.receive(request, folder, one, EXPECTED, arrived=reservation.arrived)
        if not upload.files:
            raise InvalidRequest({"files": "is required: the picture"})
        return await _keep(stores, caller, state, upload.files[0].path, reservation)


async def pictures_of(read: TemplateRead, stores: AsyncStores, caller: Caller, state: State) -> dict[int, str]:
    """The SHA-256 of the picture that each step goes on from, by the step's place; bytes that came are kept.

    Raises InvalidRequest naming the fields at fault, and as `receive`.
    """
    found: dict[int, str] = {}
    faults: dict[str, str] = {}
    # The same bytes in several steps are one picture, looked at once.
    known: dict[str, str] = {}
    for place, step in enumerate(read.steps):
        picture = picture_of(step)
        if not isinstance(picture, str):
            continue
        try:
            if picture not in known:
                known[picture] = await picture_in(picture, stores, caller, state)
            found[place] = known[picture]
        except (InvalidRequest, ImageRefused) as error:
            faults[f"steps[{place}].input.{picture_field(step)}"] = _reason(error)
    if faults:
        raise InvalidRequest(faults)
    return found


def _reason(error: InvalidRequest | ImageRefused) -> str:
    return next(iter(error.fields.values())) if isinstance(error, InvalidRequest) else f"the picture {error}"


async def picture_in(text: str, stores: AsyncStores, caller: Caller, state: State) -> str:
    """The SHA-256 of a picture that stands in a request. Raises InvalidRequest, ImageRefused, and as `receive`."""
    content = _bytes_in(text, stores.settings.uploads)
    if content is not None:
        return await _keep_bytes(content, stores, caller, state)
    blob = text
    if "://" in text:
        try:
            named = blob_in_address(text, stores.settings.api)
        except LinkRefused as error:
            raise InvalidRequest({"image": str(error)}) from error
        if named is None:
            reason = "is an address of another host, from which nothing is fetched; send the picture to"
            raise InvalidRequest({"image": f"{reason} POST /v2/consumer/blobs and name the blob"})
        blob = named
    try:
        return await stores.database.run(lambda: _sha256_of(blob, caller))
    except NotFound as error:
        raise InvalidRequest({"image": f"{str(error).rstrip('.')} of yours"}) from error


def _sha256_of(blob: str, caller: Caller) -> Script[str]:
    named = read_blob_id(blob)
    if isinstance(named, SentBlob):
        return named.sha256
    return (yield from workflow_pages.picture(named.job_id, caller.account_id, named.name)).sha256


def _bytes_in(text: str, limits: UploadSettings) -> bytes | None:
    """The bytes of a data URL, or of a long text in Base64; None for what is a name or an address."""
    found = _DATA_URL.match(text)
    if found is None and not (_BASE64.match(text) and "://" not in text):
        return None
    coded = text[found.end() if found else 0 :]
    if len(coded) * 3 // 4 > limits.max_image_bytes:
        raise InvalidRequest({"image": f"has more than {limits.max_image_bytes:,} bytes; export it smaller"})
    try:
        return base64.b64decode(coded + "=" * (-len(coded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest({"image": "is not Base64"}) from error


async def _keep_bytes(content: bytes, stores: AsyncStores, caller: Caller, state: State) -> str:
    async with reserving(stores, caller, len(content)) as reservation, multipart.staging_folder(stores) as folder:
        source = folder / "received"
        await stores.pools.blob_writes.run(source.write_bytes, content)
        return (await _keep(stores, caller, state, source, reservation)).sha256


async def _keep(
    stores: AsyncStores, caller: Caller, state: State, source: Path, reservation: Reservation
) -> SentPicture:
    target = source.with_name("canonical.png")
    # In a child with a memory limit: a picture that breaks the decoder must not end the API.
    measured = await stores.pools.images.run(state.image_workers.canonicalise, source, target)
    await reservation.becomes(target.stat().st_size)
    blob = await stores.pools.blob_writes.run(stores.blobs.put_file, target)

    def script() -> Script[SentPicture]:
        yield from reservation.redeem()
        yield from quotas.hold(caller.account_id, stores.settings.quotas.limits)
        return (
            yield from source_pictures.add(caller.account_id, blob.sha256, blob.size, measured.width, measured.height)
        )

    return await stores.database.run(script)
