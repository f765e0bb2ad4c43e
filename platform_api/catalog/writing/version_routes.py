"""Routes that write versions and their files: changed, published now or at a date, hidden, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from litestar import Controller, Request, delete, patch, post
from litestar.params import FromPath, JSONBody

from platform_api.access.dependencies import AppStores, RequestViewer
from platform_api.access.permissions import check_may_open, check_may_publish, deleted_by, held_version, hidden_by
from platform_api.catalog.reading.catalog_views import VersionDetail
from platform_api.catalog.writing.model_routes import (
    WRITES,
    PublishOperation,
    check_not_public,
    checked_time,
    shown_version,
)
from platform_api.catalog.writing.validation import check_file_name
from platform_api.catalog.writing.write_models import FileChanges, Publication, VersionChanges, kept
from platform_api.http import downloads
from platform_api.http.json_bodies import strictly
from platform_api.http.links import addresses
from platform_api.http.problems import can_return
from storage.errors import NotFound
from storage.postgres.catalog import catalog, files, versions
from storage.postgres.connection import Script
from storage.records.catalog.catalog import FileRole, VersionFile


class VersionWriteRoutes(Controller):
    """What owners do with their versions, and moderators with everybody's."""

    path = "/model-versions"
    tags = ("Models",)
    guards = WRITES

    @patch(
        "/{version_id:int}",
        before_request=strictly(VersionChanges),
        responses=can_return(401, 403, 404, 410, 413, 422),
        summary="Change a version",
    )
    async def change(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        viewer: RequestViewer,
        version_id: FromPath[int],
        data: JSONBody[VersionChanges],
    ) -> VersionDetail:
        """What is left out stays."""
        fields, where = kept(data), addresses(request, stores.settings.api)

        def script() -> Script[VersionDetail]:
            model, version = yield from held_version(version_id, viewer)
            check_may_open(version, model, fields, viewer)
            yield from versions.change(version, fields)
            return (yield from shown_version(version_id, viewer, where))

        return await stores.database.run(script)

    @delete("/{version_id:int}", responses=can_return(401, 403, 404, 410), summary="Delete a version")
    async def remove(self, stores: AppStores, viewer: RequestViewer, version_id: FromPath[int]) -> None:
        """With its files and images. Its address returns 410 from then on, and its number is not used again."""

        def script() -> Script[None]:
            model, version = yield from held_version(version_id, viewer)
            yield from versions.delete(version, deleted_by(model, viewer))

        await stores.database.run(script)

    @post(
        "/{version_id:int}/publish",
        before_request=strictly(Publication, optional=True),
        operation_class=PublishOperation,
        status_code=200,
        responses=can_return(401, 403, 404, 409, 410, 413, 422),
        summary="Publish a version",
    )
    async def publish(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        viewer: RequestViewer,
        version_id: FromPath[int],
        data: JSONBody[Publication | None] = None,
    ) -> VersionDetail:
        """Now or at a date; everybody sees it when its model is published too. When its owner asks, a private one is
        public from then on. Publishing again moves no date."""
        at, where = checked_time(data), addresses(request, stores.settings.api)

        def script() -> Script[VersionDetail]:
            model, version = yield from held_version(version_id, viewer)
            check_may_publish(version, viewer)
            check_not_public(version, at)
            yield from versions.publish(version, at, opens=viewer.is_account(model.account_id))
            return (yield from shown_version(version_id, viewer, where))

        return await stores.database.run(script)

    @post(
        "/{version_id:int}/unpublish",
        status_code=200,
        responses=can_return(401, 403, 404, 409, 410),
        summary="Unpublish a version",
    )
    async def unpublish(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer, version_id: FromPath[int]
    ) -> VersionDetail:
        """Hidden until it is published again; what a moderator hides, a moderator publishes again."""
        where = addresses(request, stores.settings.api)

        def script() -> Script[VersionDetail]:
            model, version = yield from held_version(version_id, viewer)
            yield from versions.unpublish(version, hidden_by(model, viewer))
            return (yield from shown_version(version_id, viewer, where))

        return await stores.database.run(script)

    @patch(
        "/{version_id:int}/files/{path:path}",
        before_request=strictly(FileChanges),
        responses=can_return(401, 403, 404, 410, 413, 422),
        summary="Change a file's fields",
    )
    async def change_file(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        viewer: RequestViewer,
        version_id: FromPath[int],
        path: FromPath[PurePosixPath],
        data: JSONBody[FileChanges],
    ) -> VersionDetail:
        """`path`: the file's id, or its path. Its bytes never change; `visibility` Private hides it."""
        fields, where = kept(data), addresses(request, stores.settings.api)

        def script() -> Script[VersionDetail]:
            yield from held_version(version_id, viewer)
            file = _named((yield from catalog.files(version_id)), path)
            check_file_name(fields.get("override_name"), file.path)
            yield from files.change(file, fields)
            return (yield from shown_version(version_id, viewer, where))

        return await stores.database.run(script)

    @delete(
        "/{version_id:int}/files/{path:path}",
        responses=can_return(401, 403, 404, 409, 410),
        summary="Delete a file",
    )
    async def remove_file(
        self, stores: AppStores, viewer: RequestViewer, version_id: FromPath[int], path: FromPath[PurePosixPath]
    ) -> None:
        """`path`: the file's id, or its path. The last file of a published version stays: unpublish that first."""

        def script() -> Script[None]:
            _, version = yield from held_version(version_id, viewer)
            yield from files.delete(version, _named((yield from catalog.files(version_id)), path))

        await stores.database.run(script)


def _named(found: Sequence[VersionFile], path: PurePosixPath) -> VersionFile:
    """The weights file of this id or path; members of the diffusers folder stay as they are. Raises NotFound."""
    name = downloads.plain_path(path)
    for file in found:
        if file.role is FileRole.WEIGHTS and name in (str(file.id), file.path):
            return file
    raise NotFound("The version has no weights file of that id or path.")
