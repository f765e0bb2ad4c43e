"""Images: lists of what models look like, and single ones by addresses that need no key."""

from __future__ import annotations

import time
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, get
from litestar.params import FromPath, Parameter, QueryParameter

from platform_api.access.browsing_levels import browsing_level_parameter, read_browsing_levels
from platform_api.access.dependencies import AppStores, RequestViewer
from platform_api.access.guards import Open, Reads
from platform_api.cache.responses import UNCHANGED, respond
from platform_api.http import downloads
from platform_api.http.links import API, Addresses, addresses
from platform_api.http.pagination import PageInfo, PageRequest, page_parameters, queried, read_page_request
from platform_api.http.problems import can_return
from platform_api.http.query_parameters import (
    QueryParameters,
    boolean_schema,
    choice_schema,
    integer_schema,
    list_schema,
    text_schema,
)
from storage.errors import LinkRefused, NotFound
from storage.postgres.catalog import images, listing, models
from storage.postgres.connection import Script
from storage.postgres.policy import policy
from storage.records.accounts.accounts import Scope
from storage.records.catalog.catalog import ShownImage
from storage.records.catalog.listing import ImageFilter, ImageSort, Period
from storage.records.policy.checks import check_fetched
from storage.records.policy.signed_links import Link, image_subject, job_file_subject
from storage.records.policy.viewers import Viewer
from storage.signing import is_signed

MAX_LIMIT, DEFAULT_LIMIT = 200, 100
LinkReader = Annotated[
    int | None,
    QueryParameter(name="for", ge=1, le=2**53, description="The account that the link was made for.", required=False),
]


class NsfwWord(StrEnum):
    """How far a list of images goes, or a boolean: true only what is explicit, false nothing of it."""

    NONE = "None"
    SOFT = "Soft"
    MATURE = "Mature"
    X = "X"
    BLOCKED = "Blocked"
    TRUE = "true"
    FALSE = "false"
    ONE = "1"
    ZERO = "0"


# As at Civitai, where true means only what is explicit; the viewer's own limit comes after it.
_LEVELS = {
    NsfwWord.NONE: 1,
    NsfwWord.SOFT: 3,
    NsfwWord.MATURE: 7,
    NsfwWord.X: 31,
    NsfwWord.BLOCKED: 32,
    NsfwWord.TRUE: 60,
    NsfwWord.ONE: 60,
    NsfwWord.FALSE: 1,
    NsfwWord.ZERO: 1,
}
_WORDS = {1: "None", 2: "Soft", 4: "Mature", 8: "X", 16: "X", 32: "Blocked"}


class ImageStatsView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How an image was received."""

    cry_count: int
    laugh_count: int
    like_count: int
    dislike_count: int
    heart_count: int
    comment_count: int


class ListedImage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An image in a list; `hash` is its BlurHash."""

    id: int
    url: str
    hash: str
    width: int
    height: int
    nsfw_level: Annotated[str, msgspec.Meta(examples=["None"])]
    type: str
    nsfw: bool
    browsing_level: int
    created_at: datetime
    post_id: Annotated[int, msgspec.Meta(description="The version that the image was shown with.")]
    stats: ImageStatsView
    meta: dict[str, Any] | None
    username: str
    base_model: str
    model_version_ids: list[int]
    tags: list[str] | msgspec.UnsetType = msgspec.UNSET


class ImagePage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of images."""

    items: list[ListedImage]
    metadata: PageInfo


ListImages = queried(
    {
        **page_parameters(MAX_LIMIT),
        "modelId": (integer_schema(), "Of one model."),
        "modelVersionId": (integer_schema(), "Of one version; `postId` is the same."),
        "imageId": (integer_schema(), "One image."),
        "username": (text_schema(), "Whose images."),
        "userId": (integer_schema(), "Whose images."),
        "period": (choice_schema(Period), "Only images that are not older."),
        "sort": (choice_schema(ImageSort), "Most Reactions by default."),
        "nsfw": (choice_schema(NsfwWord), "None, Soft, Mature and X go that far; true: only what is explicit."),
        **browsing_level_parameter("Bits of the levels to show"),
        "tags": (list_schema(integer_schema()), "Ids of tags of the model."),
        "baseModels": (list_schema(text_schema()), "Catalogue names of base models, for example SD 1.5."),
        "withMeta": (boolean_schema(), "true: how each image was made."),
        "requiringMeta": (boolean_schema(), "true: only images that say how they were made."),
        "withTags": (boolean_schema(), "true: the model's tags with each image."),
    }
)


class Images(Controller):
    """What models look like."""

    path = "/images"
    tags = ("Images",)

    @get(
        "/",
        guards=[Reads(Scope.MODELS_READ)],
        operation_class=ListImages,
        responses=can_return(401, 403, 422) | UNCHANGED,
        summary="List",
    )
    async def list_page(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer
    ) -> Response[ImagePage]:
        """Images of public versions: what their training drew, and what was uploaded to them."""
        query, where = QueryParameters(request), addresses(request, stores.settings.api)
        requested = read_page_request(query, stores.settings.api, maximum=MAX_LIMIT, default=DEFAULT_LIMIT)
        wanted, sort = _read_filter(query, viewer)
        with_meta, with_tags = bool(query.boolean("withMeta")), bool(query.boolean("withTags"))
        query.boolean("flatMeta")  # it is always flat here
        query.check()
        page = await stores.database.run(_page(wanted, sort, requested, query, where, with_meta, with_tags))
        return respond(request, page, ignored=query.ignored)

    @downloads.read_route(
        "/{sha256:str}/{transform:str}/{name:str}",
        guards=[Open("everybody may see images of public versions; the signature in the address opens any other")],
        summary="An image of a version",
    )
    async def of_version(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        sha256: FromPath[str],
        transform: FromPath[str],
        name: FromPath[str],
        expires: Annotated[int, Parameter(ge=0, le=2**53, description="Unix seconds.")] = 0,
        signature: Annotated[str, Parameter(max_length=128)] = "",
        reader: LinkReader = None,
    ) -> Response[Any]:
        """The image as it was stored, whatever `transform` asks for (`original=true`, `width=450`). NAME is ID.png.

        A signed address shows what the account `for` which it was made may see, when it is used.
        """
        number = name.partition(".")[0]
        # 18 digits fit into Postgres' bigint.
        if not (number.isascii() and number.isdigit() and len(number) < 19 and len(sha256) == 64 and sha256.isalnum()):
            raise NotFound("There is no image at this address.")
        link = Link(subject=image_subject(int(number), sha256), reader=reader, expires=expires)
        signed = is_signed(link, signature, stores.settings.api.signing_keys, int(time.time()))
        found = await stores.database.run(policy.image(int(number), sha256, reader if signed else None))
        check_fetched(found.viewer, found.facts)
        image = found.image
        headers = {
            "Content-Disposition": "inline",
            "Cache-Control": f"{'private' if signed else 'public'}, max-age=0, must-revalidate",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
        wanted = downloads.Download(image.sha256, image.size, name, image.media_type, headers)
        return await downloads.respond(request, stores.blobs, wanted)

    @downloads.read_route(
        "/{sha256:str}",
        guards=[Open("the signature in the address opens this one image until it expires")],
        summary="An image behind a signed link",
    )
    async def show(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        sha256: FromPath[str],
        expires: Annotated[int, Parameter(ge=0, le=2**53, description="Unix seconds.")],
        signature: Annotated[str, Parameter(min_length=1, max_length=128)],
        job: Annotated[UUID | None, Parameter(description="Whose image it is.", required=False)] = None,
    ) -> Response[Any]:
        """An image that a job made, shown in the page that links it: for as long as the job's owner may see it."""
        refusal = LinkRefused("The link is not signed by us or has expired. Load the page that shows it again.")
        if job is None:
            raise refusal
        link = Link(subject=job_file_subject(job, sha256), reader=None, expires=expires)
        if not is_signed(link, signature, stores.settings.api.signing_keys, int(time.time())):
            raise refusal
        facts, file = await stores.database.run(policy.job_file(job, sha256))
        check_fetched(Viewer(account_id=facts.owner_id), facts)
        headers = {
            "Content-Disposition": "inline",
            "Cache-Control": "private, max-age=0, must-revalidate",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
        wanted = downloads.Download(sha256, file.size, f"{sha256}.png", file.media_type, headers)
        return await downloads.respond(request, stores.blobs, wanted)


def _read_filter(query: QueryParameters, viewer: Viewer) -> tuple[ImageFilter, ImageSort]:
    nsfw = query.choice(NsfwWord, "nsfw")
    levels = read_browsing_levels(query, viewer, _LEVELS[nsfw] if nsfw else 0)
    kind = query.text("type")
    wanted = ImageFilter(
        levels=levels,
        model_id=query.number("modelId"),
        version_id=query.number("modelVersionId", "postId"),
        image_id=query.number("imageId"),
        username=query.text("username"),
        user_number=query.number("userId"),
        tags=query.numbers("tags"),
        base_models=query.texts("baseModels", "baseModel"),
        requiring_meta=bool(query.boolean("requiringMeta")),
        nothing=kind not in (None, "image"),
        period=query.choice(Period, "period") or Period.ALL_TIME,
    )
    return wanted, query.choice(ImageSort, "sort") or ImageSort.MOST_REACTIONS


def _page(
    wanted: ImageFilter,
    sort: ImageSort,
    requested: PageRequest,
    query: QueryParameters,
    where: Addresses,
    with_meta: bool,
    with_tags: bool,
) -> Script[ImagePage]:
    page = yield from listing.images(
        wanted, sort, limit=requested.limit, cursor=requested.cursor, offset=requested.offset
    )
    found = [image for image in (yield from images.shown(page.ids)) if image.gone_at is None]
    tags = (yield from models.tags_of(*{image.model_id for image in found})) if with_tags else None
    items = [
        listed_image(image, where, with_meta, msgspec.UNSET if tags is None else tags.get(image.model_id, []))
        for image in found
    ]
    return ImagePage(items=items, metadata=requested.info(page.next, f"{API}/images", query, where))


def listed_image(
    image: ShownImage, where: Addresses, with_meta: bool, tags: list[str] | msgspec.UnsetType = msgspec.UNSET
) -> ListedImage:
    """An image as lists show it, to everybody."""
    return ListedImage(
        id=image.id,
        url=where.image(image, public=True),
        hash=image.blurhash,
        width=image.width,
        height=image.height,
        nsfw_level=_WORDS[image.nsfw_level],
        type="image",
        nsfw=image.nsfw_level > 1,
        browsing_level=image.nsfw_level,
        created_at=image.created_at,
        post_id=image.version_id,
        stats=msgspec.convert(image, ImageStatsView, from_attributes=True),
        meta=image.meta if with_meta else None,
        username=image.username,
        base_model=image.base_model,
        model_version_ids=[image.version_id],
        tags=tags,
    )
