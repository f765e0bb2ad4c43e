"""Resources by their AIR: what a workflow can be drawn with."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, get
from litestar.params import PathParameter
from msgspec import Meta

from platform_api.access.dependencies import AppStores, RequestViewer
from platform_api.access.guards import Reads
from platform_api.http.links import Addresses, addresses
from platform_api.orchestration.refusals import can_return
from storage.errors import InvalidRequest, NotFound
from storage.postgres.catalog import catalog
from storage.postgres.connection import Script
from storage.postgres.generation.drawn_models import model_facts
from storage.records.accounts.accounts import Scope
from storage.records.catalog.catalog import FileRole, Model, ModelVersion, VersionFile
from storage.records.catalog.variants import air, primary_file
from storage.records.orchestration.translation import plain_air
from storage.records.policy.checks import check_version
from storage.records.policy.facts import version_facts
from storage.records.policy.rights import may
from storage.records.policy.viewers import Viewer

ResourceAir = Annotated[
    str,
    PathParameter(
        description="An AIR with a version.",
        schema_extra={"pattern": r"^urn:air:[a-z0-9]+:[a-z]+:civitai:[0-9]{1,9}@[0-9]{1,9}$"},
    ),
]
_FORMATS = {"SafeTensor": "safeTensor", "Diffusers": "diffusers"}


class ResourceInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A version of a model. `size` in bytes, of its primary file, or of all when it has none."""

    air: Annotated[str, Meta(examples=["urn:air:sd1:checkpoint:civitai:2@3"])]
    size: int
    hashes: dict[str, str]
    download_urls: list[str]
    resource_name: str
    version_name: str
    check_permission: bool
    can_generate: bool
    requires_authorization: bool
    file_format: str
    published_at: datetime | None
    has_mature_content_restriction: bool = False
    has_nsfw_content_restriction: bool = msgspec.field(name="hasNSFWContentRestriction", default=False)


class Resources(Controller):
    """Versions of the catalogue as resources."""

    path = "/resources"
    tags = ("Orchestration",)

    @get(
        "/{air:str}",
        guards=[Reads(Scope.MODELS_READ)],
        responses=can_return(401, 403, 404, 410),
        summary="One resource",
    )
    async def get_resource(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer, air: ResourceAir
    ) -> ResourceInfo:
        """A version by its AIR; `canGenerate` says whether pictures can be drawn with it here."""
        where = addresses(request, stores.settings.api)
        return await stores.database.run(lambda: _resource(air, viewer, where))


def _resource(text: str, viewer: Viewer, where: Addresses) -> Script[ResourceInfo]:
    faults: dict[str, str] = {}
    wanted = plain_air(text, "air", faults)
    if faults:
        raise InvalidRequest(faults)
    version = yield from catalog.version_by_id(int(wanted.rpartition("@")[2]))
    model = yield from catalog.model_by_id(version.model_id)
    check_version(version, model, viewer)
    files = yield from catalog.files(version.id)
    primary = primary_file(files)
    if air(model, version, primary).lower() != wanted.lower():
        raise NotFound(f"No resource '{text[:100]}' here.")
    drawn = yield from _can_generate(version, viewer)
    return _info(model, version, files, primary, drawn, viewer, where)


def _can_generate(version: ModelVersion, viewer: Viewer) -> Script[bool]:
    try:
        yield from model_facts(version.id, viewer)
    except InvalidRequest:
        return False
    return True


def _info(
    model: Model,
    version: ModelVersion,
    files: list[VersionFile],
    primary: VersionFile | None,
    drawn: bool,
    viewer: Viewer,
    where: Addresses,
) -> ResourceInfo:
    fetched = may(viewer, version_facts(model, version)).unfetched is None
    hashes: dict[str, str] = {} if primary is None else msgspec.to_builtins(primary.hashes)
    parts = [file.size for file in files if file.role is FileRole.FOLDER]
    return ResourceInfo(
        air=air(model, version, primary),
        size=sum(parts) if primary is None else primary.size,
        hashes=hashes,
        download_urls=[where.download(version.id)] if fetched and primary is not None else [],
        resource_name=model.name,
        version_name=version.name,
        check_permission=version.id not in model.public_versions,
        can_generate=drawn,
        requires_authorization=version.require_auth,
        file_format=_FORMATS.get("" if primary is None else primary.format, "diffusers" if parts else "unknown"),
        published_at=version.published_at,
    )
