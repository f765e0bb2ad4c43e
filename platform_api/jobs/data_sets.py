"""Data sets: the subject's photos. Nothing of a refused upload is kept: no row, no blob, no file."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from litestar import Controller, Request, Response, delete, get, post
from litestar.datastructures import State
from litestar.params import FromPath

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Requires
from platform_api.access.reservations import reserving
from platform_api.http import multipart
from platform_api.http.limits import PageCursor, PageLimit, end_of_page, read_moment_cursor
from platform_api.http.links import API
from platform_api.http.pages import Page, page_metadata
from platform_api.http.problems import can_return
from platform_api.jobs.data_set_views import DataSetDetail, DataSetView, UploadOperation, detail, view_fields
from storage.blobs.archives import ArchiveLimits, unpack_photos
from storage.blobs.image_workers import CanonicalImage, ImageWorkers
from storage.blobs.store import BlobStore
from storage.errors import ArchiveRefused, ImageRefused, InvalidRequest, PoolBusy, UploadRefused
from storage.postgres.connection import Script
from storage.postgres.jobs import data_sets
from storage.records.accounts.accounts import Scope
from storage.records.jobs.data_sets import DataSet, DataSetImage
from storage.records.jobs.photos.photo_layouts import MAXIMUM_LEFT_OUT, PhotoLayout, PlacedPhoto, read_files
from storage.records.jobs.photos.photo_metadata import PhotoMetadata, read_metadata
from storage.records.jobs.photos.photo_places import ListedFiles
from storage.settings import UploadSettings
from storage.thread_pools import ThreadPool

MIN_IMAGES = 2
_ADVICE = "3 to 6 photos of one subject, from different sides and in different places, work best."


@dataclass(frozen=True)
class Staged:
    """A photo in the staging folder, before and after it is made canonical; what its archive says of it."""

    name: str
    source: Path
    target: Path
    caption: str = ""
    repeats: int = 1
    whole_prompt: bool = False


class DataSets(Controller):
    """The subject's photos."""

    path = "/data-sets"
    tags = ("Data sets",)

    @post(
        "/",
        guards=[Requires(Scope.DATA_SETS_WRITE)],
        responses=can_return(401, 403, 408, 413, 415, 422, 429),
        operation_class=UploadOperation,
        request_max_body_size=None,
        summary="Upload photos",
    )
    async def upload(
        self, request: Request[Any, Any, Any], stores: AppStores, caller: RequestCaller, state: State
    ) -> Response[DataSetDetail]:
        """PNG, JPEG or WebP files, or zip archives of them, become one data set. An archive may have captions in `.txt`
        files, a `metadata.jsonl`, or a layout of kohya's scripts; `leftOut` says what of it was not taken.

        Each photo is turned upright, stripped of its metadata (also of where it was taken) and kept as a PNG. A caption
        becomes the photo's prompt, behind the subject's own sentence where it does not hold the identifier.
        """
        limits = stores.settings.uploads
        writing = stores.pools.blob_writes
        async with (
            state.uploads.hold(caller.account_id),
            reserving(stores, caller, multipart.declared_length(request)) as reservation,
            multipart.staging_folder(stores) as folder,
        ):
            upload = await multipart.receive(request, folder, limits, arrived=reservation.arrived)
            # By the names that the photos have here, which are without folders and excess.
            said = {
                multipart.plain_name(name): one for name, one in read_metadata(upload.texts.get("metadata", "")).items()
            }
            staged, left_out = await writing.run(_unpack, upload, folder, limits)
            _check_count(len(staged), limits)
            _check_names(said, staged)
            measured = await _make_canonical(staged, state.image_workers, stores.pools.images)
            await reservation.becomes(sum(photo.target.stat().st_size for photo in staged))
            images = await writing.run(_keep, stores.blobs, staged, measured, said)
            name = upload.name or f"{len(images)} photos"

            def script() -> Script[DataSet]:
                yield from reservation.redeem()
                return (yield from data_sets.create(caller.account_id, name, images))

            data_set = await stores.database.run(script)
        return Response(
            detail(data_set, images, left_out), status_code=201, headers={"Location": f"{API}/data-sets/{data_set.id}"}
        )

    @get(
        "/", guards=[Requires(Scope.DATA_SETS_READ)], responses=can_return(401, 403, 422), summary="List, newest first"
    )
    async def list_page(
        self, stores: AppStores, caller: RequestCaller, cursor: PageCursor = None, limit: PageLimit = 50
    ) -> Page[DataSetView]:
        """A page of the caller's data sets."""
        before = read_moment_cursor(cursor, UUID)
        found = await stores.database.run(data_sets.list_for_account(caller.account_id, before=before, limit=limit + 1))
        end = end_of_page(found, limit, lambda last: (last.created_at.isoformat(), last.id))
        return Page(
            items=[DataSetView(**view_fields(data_set)) for data_set in found[:limit]],
            metadata=page_metadata(f"{API}/data-sets", end, {"limit": limit}),
        )

    @get(
        "/{data_set_id:uuid}",
        guards=[Requires(Scope.DATA_SETS_READ)],
        responses=can_return(401, 403, 404),
        summary="One data set",
    )
    async def show(self, stores: AppStores, caller: RequestCaller, data_set_id: FromPath[UUID]) -> DataSetDetail:
        """A data set with its photos."""

        def script() -> Script[DataSetDetail]:
            data_set = yield from data_sets.get(data_set_id, caller.account_id)
            return detail(data_set, (yield from data_sets.images(data_set_id)))

        return await stores.database.run(script)

    @delete(
        "/{data_set_id:uuid}",
        guards=[Requires(Scope.DATA_SETS_WRITE)],
        responses=can_return(401, 403, 404, 409),
        summary="Delete a data set",
    )
    async def remove(self, stores: AppStores, caller: RequestCaller, data_set_id: FromPath[UUID]) -> None:
        """The photos, and the grids of evaluations, which show some of them, are gone for good once the sweep of unused
        bytes has passed. Models made from them stay, with samples of what they draw."""
        await stores.database.run(lambda: data_sets.delete(data_set_id, caller.account_id))


def _unpack(upload: multipart.Upload, folder: Path, limits: UploadSettings) -> tuple[list[Staged], list[str]]:
    """Every photo of an upload, archives unpacked, and what of these was not taken: of the first archives, and how many
    more there are. Raises ArchiveRefused and UploadRefused naming the archive."""
    sources: list[tuple[str, Path, PlacedPhoto]] = []
    left_out: list[str] = []
    more = 0
    for position, file in enumerate(upload.files):
        if not file.is_archive:
            sources.append((file.name, file.path, PlacedPhoto(file.name, file.name)))
            continue
        inside = folder / f"unpacked-{position:06}"
        inside.mkdir()
        place, layout = _read_archive(file, inside, limits)
        sources += [(multipart.plain_name(photo.name), place.local(photo.path), photo) for photo in layout.photos]
        reasons = _left_out_of(file, layout)
        if len(left_out) < MAXIMUM_LEFT_OUT:
            left_out += reasons
        else:
            more += bool(reasons)
        _check_most(len(sources), limits)
    if more:
        left_out.append(f"... and of {more:,} more archives")
    staged = [
        Staged(name, source, folder / f"{index:06}.png", photo.caption, photo.repeats, photo.whole_prompt)
        for index, (name, source, photo) in enumerate(sources)
    ]
    return staged, left_out


def _left_out_of(file: multipart.ReceivedFile, layout: PhotoLayout) -> list[str]:
    said = [f"'{layout.tokens}', which its folders are named for; set it in the training"] if layout.tokens else []
    return [f"{file.name}: {reason}" for reason in (*layout.left_out, *said)]


def _read_archive(
    file: multipart.ReceivedFile, folder: Path, limits: UploadSettings
) -> tuple[ListedFiles, PhotoLayout]:
    bounds = ArchiveLimits(limits.max_images, limits.max_image_bytes, limits.max_unpacked_bytes)
    try:
        place = ListedFiles(file.name, {entry.name: entry.path for entry in unpack_photos(file.path, folder, bounds)})
    except ArchiveRefused as refusal:
        raise ArchiveRefused(refusal.reason, f"{file.name}: {refusal}") from refusal
    return place, read_files(place, limits.max_images)


def _check_most(count: int, limits: UploadSettings) -> None:
    if count > limits.max_images:
        message = f"{count:,} photos; the limit is {limits.max_images:,}. {_ADVICE}"
        raise UploadRefused("too_many_images", message)


def _check_count(count: int, limits: UploadSettings) -> None:
    _check_most(count, limits)
    if count < MIN_IMAGES:
        reason = "No photo was sent" if count == 0 else "One photo is too few: a model would learn its background too"
        raise UploadRefused("too_few_images", f"{reason}. Send at least {MIN_IMAGES}. {_ADVICE}")


async def _make_canonical(staged: Sequence[Staged], workers: ImageWorkers, threads: ThreadPool) -> list[CanonicalImage]:
    """Canonical PNGs beside their sources, a few at once. Raises ImageRefused naming the first bad photo, PoolBusy.

    After a refusal no photo is begun, and those under way are waited for: the staging folder goes right after.
    """
    places, refused = asyncio.Semaphore(workers.count), asyncio.Event()

    async def make(photo: Staged) -> CanonicalImage | ImageRefused | PoolBusy | None:
        async with places:
            if refused.is_set():
                return None
            try:
                return await threads.run(workers.canonicalise, photo.source, photo.target)
            except PoolBusy as busy:
                refused.set()
                return busy
            except ImageRefused as refusal:
                refused.set()
                return ImageRefused(refusal.reason, f"'{photo.name}' {refusal}.")

    made: list[CanonicalImage] = []
    for result in await asyncio.gather(*(make(photo) for photo in staged)):
        if isinstance(result, ImageRefused | PoolBusy):
            raise result
        if result is not None:
            made.append(result)
    return made


def _check_names(said: Mapping[str, PhotoMetadata], staged: Sequence[Staged]) -> None:
    """Every photo that something is said of was sent, and once. Raises InvalidRequest."""
    names = [photo.name for photo in staged]
    for name in said:
        if names.count(name) != 1:
            reason = "was not sent" if name not in names else "was sent twice; give the photos names of their own"
            raise InvalidRequest({"metadata": f"'{name}' {reason}"})


def _keep(
    blobs: BlobStore,
    staged: Sequence[Staged],
    measured: Sequence[CanonicalImage],
    said: Mapping[str, PhotoMetadata],
) -> list[DataSetImage]:
    """Bytes before rows: every photo of an upload that passed as a whole. Raises UploadRefused for copies of one."""
    # Of the canonical bytes: one photo as JPEG and as PNG, or under two names, is one.
    if len({_digest(photo.target) for photo in staged}) < MIN_IMAGES:
        raise UploadRefused("too_few_images", f"All photos are the same one. Send different ones. {_ADVICE}")
    images: list[DataSetImage] = []
    for position, (photo, canonical) in enumerate(zip(staged, measured, strict=True)):
        # What the form says counts more: whoever wrote it knew the archive.
        meant = said.get(photo.name)
        blob = blobs.put_file(photo.target)
        images.append(
            DataSetImage(
                position=position,
                name=photo.name,
                sha256=blob.sha256,
                size=blob.size,
                width=canonical.width,
                height=canonical.height,
                caption=photo.caption if meant is None else meant.words,
                repeats=photo.repeats if meant is None else meant.repeats,
                whole_prompt=photo.whole_prompt if meant is None else meant.whole_prompt,
            )
        )
    return images


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
