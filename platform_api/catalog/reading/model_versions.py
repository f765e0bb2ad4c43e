"""Model versions: by id, by the hash of a file, summarized, and their files by path."""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.params import FromPath
from msgspec import Meta

from platform_api.access.dependencies import AppStores, RequestViewer
from platform_api.access.guards import Reads
from platform_api.cache.response_cache import CACHE_SECONDS, MODEL_SECONDS, keep_absence
from platform_api.cache.responses import UNCHANGED, respond
from platform_api.catalog.reading.catalog_parts import IMAGES_EACH, read_parts
from platform_api.catalog.reading.catalog_views import VersionDetail, version_detail, version_fields
from platform_api.catalog.reading.hash_lookup import (
    HASH,
    MAX_BODY_BYTES,
    MAX_IDS,
    MAX_WHOLE,
    ByHashIdsOperation,
    ByHashOperation,
    HashOwner,
    read_hashes,
)
from platform_api.http import downloads
from platform_api.http.links import Addresses, addresses
from platform_api.http.problems import can_return
from platform_api.http.rate_limits import LIMITED_AS, RateKind
from storage.errors import Gone, NotFound
from storage.postgres.catalog import catalog, hashes
from storage.postgres.connection import Script
from storage.postgres.events.watch import Dependencies, Every
from storage.postgres.policy import policy
from storage.records.accounts.accounts import Scope
from storage.records.catalog.catalog import FileHashes, Model, ModelVersion
from storage.records.catalog.variants import air, download_name, primary_file
from storage.records.catalog.vocabulary import Availability
from storage.records.policy.checks import check_fetched, check_version
from storage.records.policy.facts import version_facts
from storage.records.policy.rights import may
from storage.records.policy.viewers import Viewer

_READS = Reads(Scope.MODELS_READ)


class MiniVersion(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A version's summary, as programs that draw need it. `size` is in units of 1,024 bytes."""

    air: str
    version_name: str
    model_name: str
    user_id: int
    base_model: str
    availability: str
    published_at: datetime | None
    size: float
    file_type: str
    file_name: str
    hashes: FileHashes
    download_urls: list[str]
    format: str
    can_generate: bool
    is_featured: bool
    require_auth: bool
    check_permission: bool
    additional_resource_charge: bool
    minor: bool
    sfw_only: bool
    fees: list[Annotated[dict[str, Any], Meta()]]
    payout_enabled: bool


class ModelVersions(Controller):
    """One released set of files each."""

    path = "/model-versions"
    tags = ("Models",)

    @get(
        "/{version_id:int}",
        guards=[_READS],
        opt={CACHE_SECONDS: MODEL_SECONDS},
        responses=can_return(401, 403, 404, 410) | UNCHANGED,
        summary="One version",
    )
    async def show(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer, version_id: FromPath[int]
    ) -> Response[VersionDetail]:
        """A version with its files and hashes; a trained one also with its recipe and how it measured up."""
        where = addresses(request, stores.settings.api)
        found = await stores.database.run(_detail(version_id, viewer, where))
        return respond(request, found, dependencies=Dependencies(frozenset({found.model_id})))

    @get(
        "/by-hash/{hash:str}",
        guards=[_READS],
        opt={CACHE_SECONDS: MODEL_SECONDS},
        responses=can_return(401, 403, 404, 410) | UNCHANGED,
        summary="The version of a file, by its hash",
    )
    async def by_hash(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        viewer: RequestViewer,
        hash: FromPath[str],
    ) -> Response[VersionDetail]:
        """By SHA256, AutoV1, AutoV2, AutoV3, CRC32 or BLAKE3, in any case.

        Of several versions with one hash it is the earliest published, then the one with the smallest id.
        """
        where, unknown = addresses(request, stores.settings.api), NotFound("No version has a file with this hash.")

        def script() -> Script[VersionDetail]:
            if not HASH.fullmatch(hash):
                raise unknown
            found = yield from hashes.lookup([hash], viewer)
            if not found:
                raise unknown
            try:
                return (yield from _detail(found[0].version_id, viewer, where))
            except NotFound:
                # The same words as for no hash at all: whether a hidden version has this file is not revealed.
                raise unknown from None

        try:
            version = await stores.database.run(script)
        except NotFound as error:
            keep_absence(request.scope, error, Dependencies(all_of=Every.EDITS))
            raise
        # Which version a hash names, any model's edit can change.
        return respond(request, version, dependencies=Dependencies(frozenset({version.model_id}), Every.EDITS))

    @post(
        # A POST that reads, and counts as a read: a list of hashes does not fit into an address.
        "/by-hash",
        guards=[_READS],
        operation_class=ByHashOperation,
        request_max_body_size=MAX_BODY_BYTES,
        status_code=200,
        opt={LIMITED_AS: RateKind.READS},
        responses=can_return(401, 403, 413, 422),
        summary="The versions of files, by their hashes",
    )
    async def by_hashes(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer
    ) -> list[VersionDetail]:
        """Up to 100 hashes; unknown ones and what is gone are left out."""
        where, asked = addresses(request, stores.settings.api), read_hashes(await request.body(), MAX_WHOLE)

        def script() -> Script[list[VersionDetail]]:
            found: list[VersionDetail] = []
            for match in (yield from hashes.lookup(asked, viewer)):
                try:
                    found.append((yield from _detail(match.version_id, viewer, where)))
                except (NotFound, Gone):
                    continue
            return found

        return await stores.database.run(script)

    @post(
        "/by-hash/ids",
        guards=[_READS],
        operation_class=ByHashIdsOperation,
        request_max_body_size=MAX_BODY_BYTES,
        status_code=200,
        opt={LIMITED_AS: RateKind.READS},
        responses=can_return(401, 403, 413, 422),
        summary="The versions' ids of files, by their hashes",
    )
    async def ids_by_hashes(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer
    ) -> list[HashOwner]:
        """Up to 10,000 hashes; unknown ones and what is gone are left out."""
        asked = read_hashes(await request.body(), MAX_IDS)

        def script() -> Script[list[HashOwner]]:
            matches = yield from hashes.lookup(asked, viewer)
            models = {model.id: model for model in (yield from catalog.models_by_id([m.model_id for m in matches]))}
            versions = yield from catalog.versions_by_id([match.version_id for match in matches])
            seen = {
                version.id for version in versions if may(viewer, version_facts(models[version.model_id], version)).see
            }
            return [
                HashOwner(model_version_id=match.version_id, model_id=match.model_id, hash=match.hash)
                for match in matches
                if match.version_id in seen
            ]

        return await stores.database.run(script)

    @get(
        "/mini/{version_id:int}",
        guards=[_READS],
        responses=can_return(401, 403, 404, 410) | UNCHANGED,
        summary="A version's summary",
    )
    async def mini(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer, version_id: FromPath[int]
    ) -> Response[MiniVersion]:
        """What a program that draws with the version needs to know."""
        where = addresses(request, stores.settings.api)

        def script() -> Script[MiniVersion]:
            model, version = yield from read_version(version_id, viewer)
            parts = yield from read_parts([model], viewer, images_each=0)
            fields = version_fields(model, version, 0, parts, where)
            primary = primary_file(parts.files.get(version_id, ()))
            if primary is None:
                raise NotFound(f"Model version {version_id} has no file.")
            return MiniVersion(
                air=air(model, version, primary),
                version_name=version.name,
                model_name=model.name,
                user_id=parts.accounts[model.account_id].number,
                base_model=version.base_model,
                availability=version.availability,
                published_at=fields["published_at"],
                size=primary.size / 1024,
                file_type=primary.type,
                file_name=download_name(model, version, primary),
                hashes=primary.hashes,
                download_urls=[where.download(version_id)],
                format=primary.format,
                can_generate=version.recipe is not None,
                is_featured=False,
                require_auth=version.require_auth,
                check_permission=version.availability is Availability.PRIVATE,
                additional_resource_charge=False,
                minor=model.minor,
                sfw_only=model.sfw_only,
                fees=[],
                payout_enabled=False,
            )

        return respond(request, await stores.database.run(script))

    @downloads.read_route(
        "/{version_id:int}/files/{path:path}", guards=[_READS], summary="Bytes of a version's file, by its path"
    )
    async def file(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        viewer: RequestViewer,
        version_id: FromPath[int],
        path: FromPath[PurePosixPath],
    ) -> Response[Any]:
        """The bytes of one file, whole or a range; the ETag is their SHA-256."""
        name = downloads.plain_path(path)
        facts, file = await stores.database.run(policy.file_by_path(version_id, name))
        check_fetched(viewer, facts)
        if file is None:
            raise NotFound(f"Model version {version_id} has no file '{name}'.")
        kind = "application/json" if name.endswith(".json") else "application/octet-stream"
        wanted = downloads.Download(file.sha256, file.size, name, kind)
        return await downloads.respond(request, stores.blobs, wanted)


def read_version(version_id: int, viewer: Viewer) -> Script[tuple[Model, ModelVersion]]:
    """A version that the viewer may see, and its model. Raises NotFound, Gone."""
    version = yield from catalog.version_by_id(version_id)
    model = yield from catalog.model_by_id(version.model_id)
    check_version(version, model, viewer)
    return model, version


def _detail(version_id: int, viewer: Viewer, where: Addresses) -> Script[VersionDetail]:
    model, version = yield from read_version(version_id, viewer)
    parts = yield from read_parts([model], viewer, images_each=IMAGES_EACH // 2)
    index = [sibling.id for sibling in parts.versions[model.id]].index(version_id)
    return version_detail(model, version, index, parts, where)
