"""The catalogue: models, their versions and files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, get
from msgspec import Meta

from platform_api import downloads
from platform_api.access import Caller, Requires
from platform_api.limits import PageCursor, PageLimit, read_number_cursor, write_cursor
from platform_api.problems import can_answer
from platform_api.resources.views import API, Page, camelised, page_metadata
from storage.errors import NotFound
from storage.postgres import catalog
from storage.postgres.connection import Script
from storage.records.access import Scope
from storage.records.catalog import FileRole, Model, ModelVersion, VersionFile
from storage.stores import AsyncStores


class FileHashesView(msgspec.Struct, frozen=True, kw_only=True):
    """The hashes other tools know a weights file by."""

    sha256: str
    auto_v1: Annotated[str | None, msgspec.Meta(examples=["a1b2c3d4"])] = msgspec.field(name="autoV1")
    auto_v2: str | None = msgspec.field(name="autoV2")
    auto_v3: str | None = msgspec.field(name="autoV3")


class FileView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One file of a model version."""

    path: Annotated[str, Meta(examples=["unet/diffusion_pytorch_model.safetensors"])]
    role: FileRole
    size: int
    hashes: FileHashesView
    download_url: str


class VersionView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A model version with its files."""

    id: int
    model_id: int
    name: Annotated[str, Meta(examples=["v1"])]
    position: int
    base_model: str
    trained_words: Annotated[list[str], Meta(description="Say these in a prompt.", examples=[["sks mug"]])]
    job_id: UUID | None
    evaluation: dict[str, Any] | None
    recipe: dict[str, Any] | None
    registered_as: str | None
    published_at: datetime | None
    files: list[FileView]


class ModelView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A model in a list."""

    id: int
    name: Annotated[str, Meta(examples=["sks mug"])]
    type: str
    created_at: datetime


class ModelDetail(ModelView, frozen=True, kw_only=True, rename="camel"):
    """A model with its versions, newest first."""

    versions: list[VersionView]


def _model_fields(model: Model) -> dict[str, Any]:
    return {"id": model.id, "name": model.name, "type": model.type, "created_at": model.created_at}


def _version_view(version: ModelVersion, files: Sequence[VersionFile]) -> VersionView:
    return VersionView(
        id=version.id,
        model_id=version.model_id,
        name=version.name,
        position=version.position,
        base_model=version.base_model,
        trained_words=list(version.trained_words),
        job_id=version.job_id,
        evaluation=camelised(version.evaluation),
        recipe=camelised(version.recipe),
        registered_as=version.registered_as,
        published_at=version.published_at,
        files=[_file_view(version.id, file) for file in files],
    )


def _file_view(version_id: int, file: VersionFile) -> FileView:
    hashes = file.hashes
    return FileView(
        path=file.path,
        role=file.role,
        size=file.size,
        hashes=FileHashesView(
            sha256=file.sha256, auto_v1=hashes.auto_v1, auto_v2=hashes.auto_v2, auto_v3=hashes.auto_v3
        ),
        download_url=f"{API}/model-versions/{version_id}/files/{quote(file.path)}",
    )


class Models(Controller):
    """What the caller's succeeded training jobs published."""

    path = "/models"
    tags = ("Models",)

    @get("/", guards=[Requires(Scope.MODELS_READ)], responses=can_answer(401, 403, 422), summary="List, newest first")
    async def list_page(
        self, stores: AsyncStores, caller: Caller, cursor: PageCursor = None, limit: PageLimit = 50
    ) -> Page[ModelView]:
        """A page of the caller's models."""
        before = read_number_cursor(cursor)
        found = await stores.database.run(catalog.list_models(caller.account_id, before=before, limit=limit + 1))
        end = write_cursor(found[limit - 1].id) if len(found) > limit else None
        return Page(
            items=[ModelView(**_model_fields(model)) for model in found[:limit]],
            metadata=page_metadata(f"{API}/models", end, {"limit": limit}),
        )

    @get(
        "/{model_id:int}",
        guards=[Requires(Scope.MODELS_READ)],
        responses=can_answer(401, 403, 404),
        summary="One model",
    )
    async def show(self, stores: AsyncStores, caller: Caller, model_id: int) -> ModelDetail:
        """A model with its versions, their files and hashes."""

        def script() -> Script[ModelDetail]:
            model = yield from catalog.model(model_id, caller.account_id)
            views: list[VersionView] = []
            for version in (yield from catalog.versions([model.id])):
                files = yield from catalog.files(version.id)
                views.append(_version_view(version, files))
            return ModelDetail(**_model_fields(model), versions=views)

        return await stores.database.run(script())


class ModelVersions(Controller):
    """One released set of files each."""

    path = "/model-versions"
    tags = ("Models",)

    @get(
        "/{version_id:int}",
        guards=[Requires(Scope.MODELS_READ)],
        responses=can_answer(401, 403, 404),
        summary="One version",
    )
    async def show(self, stores: AsyncStores, caller: Caller, version_id: int) -> VersionView:
        """A version with its files, their hashes, its recipe and how it measured up."""

        def script() -> Script[VersionView]:
            version = yield from catalog.version(version_id, caller.account_id)
            return _version_view(version, (yield from catalog.files(version_id)))

        return await stores.database.run(script())

    @downloads.read_route(
        "/{version_id:int}/files/{path:path}", guards=[Requires(Scope.MODELS_READ)], summary="Bytes of a version's file"
    )
    async def file(
        self,
        request: Request[Any, Any, Any],
        stores: AsyncStores,
        caller: Caller,
        version_id: int,
        path: PurePosixPath,
    ) -> Response[Any]:
        """The bytes of one file, whole or a range; the ETag is their SHA-256."""
        name = downloads.plain_path(path)

        def script() -> Script[list[VersionFile]]:
            yield from catalog.version(version_id, caller.account_id)
            return (yield from catalog.files(version_id))

        found = [file for file in await stores.database.run(script()) if file.path == name]
        if not found:
            raise NotFound(f"Model version {version_id} has no file '{name}'.")
        kind = "application/json" if name.endswith(".json") else "application/octet-stream"
        wanted = downloads.Download(found[0].sha256, found[0].size, name, kind)
        return await downloads.respond(request, stores.blobs, wanted)
