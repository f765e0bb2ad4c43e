"""Routes that write images of versions: uploaded, rated, described, deleted. Nothing of a refused upload is kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
from litestar import Controller, Request, Response, delete, patch, post
from litestar.datastructures import State
from litestar.openapi.spec import OpenAPIFormat, OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import FromPath, JSONBody

from platform_api.access.dependencies import AppStores, RequestCaller, RequestViewer
from platform_api.access.permissions import held_version
from platform_api.access.reservations import reserving
from platform_api.catalog.reading.catalog_views import ImageView, image_view
from platform_api.catalog.writing.model_routes import WRITES
from platform_api.catalog.writing.write_models import ImageChanges, kept
from platform_api.http import multipart
from platform_api.http.idempotency import IdempotencyKey, checked_key, created_once
from platform_api.http.json_bodies import read_strictly, strictly
from platform_api.http.links import Addresses, addresses
from platform_api.http.problems import can_return
from platform_api.http.query_parameters import QueryParameters, described
from storage.blobs.image_workers import CanonicalImage, ImageWorkers
from storage.blobs.store import Blob
from storage.errors import Gone, ImageRefused, InvalidRequest, NotAllowed, WrongState
from storage.postgres.accounts import idempotency
from storage.postgres.catalog import catalog, images
from storage.postgres.connection import Script
from storage.records.catalog.catalog import CatalogImage, Model, ModelVersion, NewImage
from storage.records.catalog.vocabulary import BrowsingLevel
from storage.records.policy.viewers import Viewer
from storage.settings import UploadSettings

FORM_BYTES = 128 * 1024
"""What a form has beside its image: the other field and the boundaries."""

LEVELS = Schema(type=OpenAPIType.INTEGER, enum=[level.value for level in BrowsingLevel])
LEVEL_WORDS = "PG 1, PG-13 2, R 4, X 8, XXX 16; 32 is the moderators'."


@dataclass
class ImageUploadOperation(Operation):
    """The upload's body, which the handler reads as it comes."""

    def __post_init__(self) -> None:
        """Describe the form, the bare image and the query."""
        binary = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
        meta = Schema(type=OpenAPIType.STRING, description="JSON: how the image was made, as PATCH takes it.")
        form = Schema(
            type=OpenAPIType.OBJECT,
            properties={"files": binary, "meta": meta},
            required=["files"],
            additional_properties=False,
        )
        bare = {kind: OpenAPIMediaType(schema=binary) for kind in multipart.ONE_IMAGE.kinds}
        content = {"multipart/form-data": OpenAPIMediaType(schema=form), **bare}
        self.request_body = RequestBody(content=content, required=True)
        self.parameters = [*(self.parameters or []), *described({"nsfwLevel": (LEVELS, LEVEL_WORDS)})]


class ImageWriteRoutes(Controller):
    """What owners do with the images of their versions, and moderators with everybody's."""

    path = "/model-versions/{version_id:int}/images"
    tags = ("Images",)
    guards = WRITES

    @post(
        "/",
        responses=can_return(401, 403, 404, 408, 409, 410, 413, 415, 422, 429),
        operation_class=ImageUploadOperation,
        request_max_body_size=None,
        summary="Upload an image of a version",
    )
    async def upload_image(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        viewer: RequestViewer,
        state: State,
        version_id: FromPath[int],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[ImageView]:
        """A PNG, JPEG or WebP, as the body or as `files` of a form. Turned upright, stripped of its metadata (also of
        where it was taken) and kept as a PNG, behind the version's other images."""
        query = QueryParameters(request)
        level = query.number("nsfwLevel", high=BrowsingLevel.BLOCKED) or BrowsingLevel.PG
        query.check()
        check_level(level, viewer)
        limits, where = stores.settings.uploads, addresses(request, stores.settings.api)
        # Before the bytes come. Those of a repeat are compared and never kept, so there need not be room for them.
        repeats = await stores.database.run(idempotency.is_used(caller.account_id, checked_key(idempotency_key)))
        if not repeats:
            await stores.database.run(lambda: _with_room(version_id, viewer, limits))
        async with (
            state.uploads.hold(caller.account_id),
            reserving(stores, caller, multipart.declared_length(request), kept=not repeats) as reservation,
            multipart.staging_folder(stores) as folder,
        ):
            one = multipart.of_one_image(limits, FORM_BYTES), multipart.ONE_IMAGE
            upload = await multipart.receive(request, folder, *one, arrived=reservation.arrived)
            meta = _read_meta(upload.texts.get("meta"))
            target = folder / "canonical.png"
            # In a child with a memory limit: an image that breaks the decoder, or unpacks without an end, must not end
            # the API.
            measured = await stores.pools.images.run(_made_canonical, upload, target, state.image_workers)
            # What counts is the PNG that is kept, not the JPEG that came.
            await reservation.becomes(target.stat().st_size)
            blob = await stores.pools.blob_writes.run(_blob_of if repeats else stores.blobs.put_file, target)
            image = _described(blob, measured, int(level), meta)

            def make() -> Script[ImageView]:
                if repeats:
                    # Its bytes were only compared and never kept, so no image can be made of them.
                    raise WrongState("The Idempotency-Key was forgotten just now. Send the image again.")
                yield from reservation.redeem()
                model, version = yield from _with_room(version_id, viewer, limits)
                [image_id] = yield from catalog.add_images(version_id, caller.account_id, [image])
                return gallery_view(model, version, (yield from images.of_version(version_id, image_id)), where)

            asked = ("image", version_id, image)
            return await stores.database.run(
                lambda: created_once(caller.account_id, idempotency_key, asked, make(), "{url}")
            )

    @patch(
        "/{image_id:int}",
        before_request=strictly(ImageChanges),
        responses=can_return(401, 403, 404, 410, 413, 422),
        summary="Change an image's fields",
    )
    async def change_image(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        viewer: RequestViewer,
        version_id: FromPath[int],
        image_id: FromPath[int],
        data: JSONBody[ImageChanges],
    ) -> ImageView:
        """What is left out stays; the picture itself never changes."""
        fields, where = kept(data), addresses(request, stores.settings.api)
        check_level(fields.get("nsfw_level", BrowsingLevel.PG), viewer)

        def script() -> Script[ImageView]:
            model, version = yield from held_version(version_id, viewer)
            image = yield from _there(version_id, image_id)
            # What it is now decides, too: an owner must not take a moderator's block away.
            if "nsfw_level" in fields:
                check_level(image.nsfw_level, viewer)
            return gallery_view(model, version, (yield from images.change(image, fields)), where)

        return await stores.database.run(script)

    @delete("/{image_id:int}", responses=can_return(401, 403, 404, 410), summary="Delete an image")
    async def remove_image(
        self, stores: AppStores, viewer: RequestViewer, version_id: FromPath[int], image_id: FromPath[int]
    ) -> None:
        """Its address returns 410 from then on."""

        def script() -> Script[None]:
            yield from held_version(version_id, viewer)
            yield from images.delete((yield from _there(version_id, image_id)))

        await stores.database.run(script)


def _with_room(version_id: int, viewer: Viewer, limits: UploadSettings) -> Script[tuple[Model, ModelVersion]]:
    """A version that takes another image, held, and its model. Raises as `held_version`, and WrongState."""
    model, version = yield from held_version(version_id, viewer)
    yield from check_room(version_id, limits)
    return model, version


def check_room(version_id: int, limits: UploadSettings) -> Script[None]:
    """Raises WrongState for a version that has as many images as it may."""
    if len((yield from images.of_versions([version_id], limits.max_images))) >= limits.max_images:
        raise WrongState(f"Model version {version_id} has {limits.max_images} images, the limit. Delete one first.")


def _blob_of(path: Path) -> Blob:
    """What a file would be called in the blob store, without putting it there."""
    with path.open("rb") as stream:
        return Blob(hashlib.file_digest(stream, "sha256").hexdigest(), path.stat().st_size)


def gallery_view(model: Model, version: ModelVersion, image: CatalogImage, where: Addresses) -> ImageView:
    """An image as whoever may change it sees it."""
    return image_view(model, image, where, public=version.id in model.public_versions and model.visible)


def _there(version_id: int, image_id: int) -> Script[CatalogImage]:
    """An image of a version. Raises NotFound, Gone."""
    image = yield from images.of_version(version_id, image_id)
    if image.gone_at is not None:
        raise Gone(f"Image {image_id} is gone: it was deleted.")
    return image


def check_level(level: int, viewer: Viewer) -> None:
    """Raises InvalidRequest for what is no level, NotAllowed where a moderator's decision is asked for or undone."""
    if level not in {one.value for one in BrowsingLevel}:
        raise InvalidRequest({"nsfwLevel": "must be one of 1, 2, 4, 8, 16 and 32"})
    if level == BrowsingLevel.BLOCKED and not viewer.moderator:
        raise NotAllowed("Only moderators block an image, or show a blocked one again.")


def _read_meta(text: str | None) -> dict[str, Any] | None:
    """The form's `meta`, by the rules of a change. Raises InvalidRequest."""
    if not text:
        return None
    try:
        body = msgspec.json.encode({"meta": cast(object, msgspec.json.decode(text))})
    except (ValueError, RecursionError) as error:
        raise InvalidRequest({"meta": "must be a JSON object"}) from error
    # The same check as that of a JSON body, so that a form cannot say what a body may not.
    read_strictly(body, ImageChanges)
    return kept(msgspec.json.decode(body, type=ImageChanges))["meta"]


def _made_canonical(upload: multipart.Upload, target: Path, workers: ImageWorkers) -> CanonicalImage:
    """The image made canonical in a child. Raises InvalidRequest, ImageRefused."""
    if not upload.files:
        raise InvalidRequest({"files": "is required: the image"})
    [file] = upload.files
    try:
        return workers.canonicalise(file.path, target)
    except ImageRefused as refusal:
        raise ImageRefused(refusal.reason, f"'{file.name}' {refusal}.") from refusal


def _described(blob: Blob, measured: CanonicalImage, level: int, meta: dict[str, Any] | None) -> NewImage:
    return NewImage(
        sha256=blob.sha256,
        size=blob.size,
        media_type="image/png",
        width=measured.width,
        height=measured.height,
        blurhash=measured.blurhash,
        nsfw_level=level,
        meta=meta,
    )
