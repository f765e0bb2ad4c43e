"""Models, versions, files and images as Civitai's clients read them, and our own fields where they do not collide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from platform_api.catalog.reading.file_views import FileView, StoredFileView, file_view, stored_file_view
from platform_api.http.links import Addresses
from platform_api.http.pages import camelised
from storage.records.accounts.accounts import Account
from storage.records.catalog.catalog import CatalogImage, Model, ModelStats, ModelVersion, VersionFile, VersionStats
from storage.records.catalog.variants import air, primary_file, public_files
from storage.records.catalog.vocabulary import BrowsingLevel, ModelMode, Status
from storage.records.jobs.training import published_recipe


class StatsView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How a model was received."""

    download_count: int
    thumbs_up_count: int
    thumbs_down_count: int
    comment_count: int
    collected_count: int
    tipped_amount_count: int


class VersionStatsView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How a version was received."""

    download_count: int
    thumbs_up_count: int
    thumbs_down_count: int


class CreatorView(msgspec.Struct, frozen=True, kw_only=True):
    """Whose it is."""

    username: Annotated[str, Meta(examples=["owner"])]
    image: str | None


class ImageView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An image of a version; `hash` is its BlurHash, `nsfwLevel` a browsing-level bit."""

    id: int
    url: str
    nsfw_level: int
    width: int
    height: int
    hash: str
    type: str
    minor: bool
    poi: bool
    has_meta: bool
    has_positive_prompt: bool
    on_site: bool
    remix_of_id: int | None
    meta: dict[str, Any] | None


class VersionView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A version inside its model."""

    id: int
    index: int
    name: Annotated[str, Meta(examples=["v1"])]
    description: str
    base_model: Annotated[str, Meta(examples=["SD 1.5"])]
    base_model_type: str
    created_at: datetime
    updated_at: datetime
    published_at: datetime | None
    status: Status
    availability: str
    nsfw_level: int
    trained_words: Annotated[list[str], Meta(description="Say these in a prompt.", examples=[["sks mug"]])]
    covered: bool
    supports_generation: bool
    paid_access: None
    early_access_config: dict[str, Any]
    stats: VersionStatsView
    files: list[FileView]
    images: list[ImageView]
    download_url: str | msgspec.UnsetType = msgspec.UNSET


class ModelView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A model with its versions, newest first."""

    id: int
    name: Annotated[str, Meta(examples=["sks mug"])]
    description: str
    type: Annotated[str, Meta(examples=["Checkpoint"])]
    nsfw: bool
    nsfw_level: Annotated[int, Meta(description="Bits: PG 1, PG-13 2, R 4, X 8, XXX 16.")]
    poi: bool
    minor: bool
    sfw_only: bool
    allow_no_credit: bool
    allow_commercial_use: list[str]
    allow_derivatives: bool
    allow_different_license: bool
    availability: str
    status: Status
    checkpoint_type: str | None
    user_id: int
    cosmetic: None
    supports_generation: bool
    created_at: datetime
    updated_at: datetime
    published_at: datetime | None
    last_version_at: datetime | None
    stats: StatsView
    creator: CreatorView
    tags: list[str]
    model_versions: list[VersionView]
    mode: str | msgspec.UnsetType = msgspec.UNSET


class ModelOfVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What a version says of its model."""

    name: str
    type: str
    nsfw: bool
    poi: bool


class VersionDetail(VersionView, frozen=True, kw_only=True, rename="camel"):
    """A version by itself. From `jobId` on: how it was trained, for versions that a training job made."""

    model_id: int
    training_status: None
    training_details: None
    upload_type: str
    usage_control: str
    require_auth: bool
    licensing_fee: None
    air: Annotated[str, Meta(examples=["urn:air:sd1:checkpoint:civitai:1201@3407"])]
    model: ModelOfVersion
    job_id: UUID | None
    recipe: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    registered_as: str | None
    stored_files: list[StoredFileView]


class PageParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a page of models is made of, by ids."""

    accounts: Mapping[UUID, Account]
    tags: Mapping[int, Sequence[str]]
    model_stats: Mapping[int, ModelStats]
    version_stats: Mapping[int, VersionStats]
    versions: Mapping[int, Sequence[ModelVersion]]
    files: Mapping[int, Sequence[VersionFile]]
    images: Mapping[int, Sequence[CatalogImage]]


def model_view(model: Model, parts: PageParts, where: Addresses, *, primary_only: bool = False) -> ModelView:
    """A model as lists and its own address show it."""
    account, stats = parts.accounts[model.account_id], parts.model_stats.get(model.id, ModelStats())
    versions = parts.versions.get(model.id, ())
    return ModelView(
        id=model.id,
        name=model.name,
        description=model.description,
        type=model.type,
        nsfw=model.nsfw,
        nsfw_level=model.nsfw_level,
        poi=model.poi,
        minor=model.minor,
        sfw_only=model.sfw_only,
        allow_no_credit=model.allow_no_credit,
        allow_commercial_use=[use.value for use in model.allow_commercial_use],
        allow_derivatives=model.allow_derivatives,
        allow_different_license=model.allow_different_license,
        availability=model.availability,
        status=model.status,
        checkpoint_type=model.checkpoint_type,
        user_id=account.number,
        # Fields that Civitai's clients read and that mean nothing here have the value that says so.
        cosmetic=None,
        supports_generation=any(version.recipe is not None for version in versions),
        created_at=model.created_at,
        updated_at=model.updated_at,
        # At Civitai the date of what is scheduled stands in the same field, and lies ahead.
        published_at=model.published_at or model.scheduled_for,
        last_version_at=model.last_version_at,
        stats=msgspec.convert(stats, StatsView, from_attributes=True),
        creator=CreatorView(username=account.name, image=account.image),
        tags=list(parts.tags.get(model.id, ())),
        model_versions=[
            VersionView(**version_fields(model, version, index, parts, where, primary_only=primary_only))
            for index, version in enumerate(versions)
        ],
        mode=model.mode.value if model.mode else msgspec.UNSET,
    )


def version_fields(
    model: Model, version: ModelVersion, index: int, parts: PageParts, where: Addresses, *, primary_only: bool = False
) -> dict[str, Any]:
    """What a version says inside its model and by itself."""
    files, images = parts.files.get(version.id, ()), parts.images.get(version.id, ())
    primary = primary_file(files)
    # Archived or taken down: Civitai shows such a model without files.
    shown = [] if model.mode is not None else public_files(files)
    public = version.id in model.public_versions and model.visible
    stats = parts.version_stats.get(version.id, VersionStats())
    return {
        "id": version.id,
        "index": index,
        "name": version.name,
        "description": version.description,
        "base_model": version.base_model,
        "base_model_type": version.base_model_type,
        "created_at": version.created_at,
        "updated_at": version.updated_at,
        "published_at": version.published_at or version.scheduled_for,
        "status": version.status,
        "availability": version.availability,
        "nsfw_level": version.nsfw_level,
        "trained_words": list(version.trained_words),
        "covered": bool(images),
        # Images are drawn from what was trained here: its diffusers folder is kept, and its recipe names the family.
        "supports_generation": version.recipe is not None,
        "paid_access": None,
        "early_access_config": {},
        "stats": msgspec.convert(stats, VersionStatsView, from_attributes=True),
        "files": [
            file_view(model, version, file, file is primary, where)
            for file in shown
            if file is primary or not primary_only
        ],
        "images": []
        if model.mode is ModelMode.TAKEN_DOWN
        else [image_view(model, i, where, public=public) for i in images],
        "download_url": msgspec.UNSET if model.mode or primary is None else where.download(version.id),
    }


def version_detail(
    model: Model, version: ModelVersion, index: int, parts: PageParts, where: Addresses
) -> VersionDetail:
    """A version by itself, with its lineage."""
    files = parts.files.get(version.id, ())
    return VersionDetail(
        **version_fields(model, version, index, parts, where),
        model_id=model.id,
        training_status=None,
        training_details=None,
        upload_type=version.upload_type,
        usage_control=version.usage_control,
        require_auth=version.require_auth,
        licensing_fee=None,
        air=air(model, version, primary_file(files)),
        model=ModelOfVersion(name=model.name, type=model.type, nsfw=model.nsfw, poi=model.poi),
        job_id=version.job_id,
        # Also of versions that were published with all of their job's request.
        recipe=None if version.recipe is None else camelised(published_recipe(version.recipe)),
        evaluation=camelised(version.evaluation),
        registered_as=version.registered_as,
        stored_files=[] if model.mode is not None else [stored_file_view(version.id, file) for file in files],
    )


def image_view(model: Model, image: CatalogImage, where: Addresses, *, public: bool) -> ImageView:
    """An image of a version. `public`: everybody sees the version."""
    return ImageView(
        id=image.id,
        # A public address needs no signature, so it stays the same and caches keep it. A blocked image is never public.
        url=where.image(image, public=public and image.nsfw_level != BrowsingLevel.BLOCKED),
        nsfw_level=image.nsfw_level,
        width=image.width,
        height=image.height,
        hash=image.blurhash,
        type="image",
        minor=model.minor,
        poi=model.poi,
        has_meta=image.meta is not None,
        has_positive_prompt=bool(image.meta and image.meta.get("prompt")),
        on_site=False,
        remix_of_id=None,
        meta=image.meta,
    )
