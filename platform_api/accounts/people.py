"""Creators, users, and who a key belongs to."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from litestar import Controller, Request, Response, get
from litestar.params import Parameter
from msgspec import Meta

from platform_api.access.dependencies import AppStores, RequestCaller, RequestViewer
from platform_api.access.guards import Reads, Requires
from platform_api.cache.response_cache import CACHE_SECONDS, PEOPLE_SECONDS
from platform_api.cache.responses import UNCHANGED, respond
from platform_api.catalog.reading.catalog_parts import read_parts
from platform_api.catalog.reading.catalog_views import ModelView, model_view
from platform_api.http.limits import PageCursor, end_of_page, read_number_cursor
from platform_api.http.links import API, Addresses, addresses
from platform_api.http.pages import Page, page_metadata
from platform_api.http.pagination import DEFAULT_NUMBERED, Numbers, numbering, numbers, queried, read_numbers
from platform_api.http.problems import can_return
from platform_api.http.query_parameters import QueryParameters, integer_schema, list_schema, text_schema
from storage.postgres.accounts import accounts, quotas
from storage.postgres.catalog import catalog
from storage.postgres.connection import Script
from storage.postgres.events.watch import Dependencies, Every
from storage.records.accounts.accounts import Account, AccountStatus, Creator, Scope
from storage.records.accounts.quotas import Usage, UsageByKind
from storage.records.catalog.catalog import Model
from storage.records.policy.facts import model_facts
from storage.records.policy.rights import may

OWN_DEFAULT, OWN_MAX = 20, 100
OwnLimit = Annotated[int, Parameter(ge=1, le=OWN_MAX, description="Models of a page.", required=False)]


class CreatorItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Somebody who has published models."""

    username: str
    model_count: int
    link: str
    image: str | None


class CreatorPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of creators."""

    items: list[CreatorItem]
    metadata: Numbers


class UserItem(msgspec.Struct, frozen=True, kw_only=True):
    """An account."""

    id: int
    username: str


class UserList(msgspec.Struct, frozen=True, kw_only=True):
    """Some accounts."""

    items: list[UserItem]


class StorageByKind(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the account holds, in bytes, by what is deleted to have the room again."""

    models: Annotated[int, Meta(description="Files of its model versions.")]
    images: int
    data_sets: Annotated[int, Meta(description="Photos.")]
    jobs: Annotated[int, Meta(description="What its jobs made, and their checkpoints.")]


class Storage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the account holds, and what it may; null: as much as it likes. A key of the account sees all of it."""

    used_bytes: Annotated[int, Meta(description="Of files, images, photos, and of what its jobs made.")]
    by_kind: StorageByKind
    released_bytes: Annotated[
        int, Meta(description="Of what it has deleted in about the last day; these count until the bytes are gone.")
    ]
    unfinished_bytes: Annotated[int, Meta(description="Of what it has begun to send; these count too.")]
    unfinished_uploads: int
    max_bytes: int | None
    max_unfinished_bytes: int | None
    max_unfinished_uploads: int | None


class Me(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whom the key belongs to."""

    id: int
    username: str
    tier: str
    status: str
    is_member: bool
    subscriptions: list[str]
    role: str
    scopes: list[str]
    storage: Storage


class People(Controller):
    """Creators, users, yourself."""

    tags = ("People",)

    @get(
        "/creators",
        guards=[Reads(Scope.MODELS_READ)],
        operation_class=queried(numbering("a name")),
        opt={CACHE_SECONDS: PEOPLE_SECONDS},
        responses=can_return(401, 403, 422) | UNCHANGED,
        summary="Creators",
    )
    async def creators(self, request: Request[Any, Any, Any], stores: AppStores) -> Response[CreatorPage]:
        """Who has public models, the most productive first."""
        query, where = QueryParameters(request), addresses(request, stores.settings.api)
        limit, page, text = read_numbers(query)

        def script() -> Script[tuple[list[Creator], int]]:
            found = yield from accounts.creators(text, offset=(page - 1) * limit, limit=limit)
            return found, (yield from accounts.count_creators(text))[0]

        found, total = await stores.database.run(script)
        items = [creator_item(one, where) for one in found]
        metadata = numbers(total, page, limit, f"{API}/creators", query, where)
        people, dependencies = CreatorPage(items=items, metadata=metadata), Dependencies(all_of=Every.EDITS)
        return respond(request, people, ignored=query.ignored, dependencies=dependencies)

    @get(
        "/users",
        guards=[Reads(Scope.MODELS_READ)],
        operation_class=queried(
            {
                "query": (text_schema(), "The beginning of a name."),
                "ids": (list_schema(integer_schema()), "Accounts by their numbers."),
            }
        ),
        responses=can_return(401, 403, 422) | UNCHANGED,
        summary="Users",
    )
    async def users(self, request: Request[Any, Any, Any], stores: AppStores) -> Response[UserList]:
        """Accounts by name or number."""
        query = QueryParameters(request)
        text, ids = query.text("query"), query.numbers("ids")
        query.check()
        found: list[Account] = []
        if ids is not None:
            found = await stores.database.run(accounts.users(numbers=ids))
        elif text is not None:
            found = await stores.database.run(accounts.find_users(text, DEFAULT_NUMBERED))
        # Who is banned is shown to nobody.
        active = [one for one in found if one.status is AccountStatus.ACTIVE]
        users = UserList(items=[UserItem(id=one.number, username=one.name) for one in active])
        return respond(request, users, ignored=query.ignored)

    @get("/me", guards=[Requires(Scope.MODELS_READ)], responses=can_return(401, 403), summary="Yourself")
    async def me(self, stores: AppStores, caller: RequestCaller) -> Me:
        """Whom the key belongs to, what it allows, and how much more may be uploaded."""
        account, limits = caller.account, stores.settings.quotas.limits

        def script() -> Script[tuple[Usage, UsageByKind]]:
            return (yield from quotas.usage(account.id)), (yield from quotas.kinds(account.id))

        usage, kinds = await stores.database.run(script)
        return Me(
            id=account.number,
            username=account.name,
            # Civitai's clients read these; there are no tiers and no members here.
            tier="free",
            status=account.status,
            is_member=False,
            subscriptions=[],
            role=account.role,
            scopes=list(caller.key.scopes),
            storage=Storage(
                used_bytes=usage.bytes,
                by_kind=msgspec.convert(kinds, StorageByKind, from_attributes=True),
                released_bytes=usage.released_bytes,
                unfinished_bytes=usage.unfinished_bytes,
                unfinished_uploads=usage.unfinished_uploads,
                max_bytes=limits.account_bytes or None,
                max_unfinished_bytes=limits.unfinished_bytes or None,
                max_unfinished_uploads=limits.unfinished_uploads or None,
            ),
        )

    @get(
        "/me/models",
        guards=[Requires(Scope.MODELS_READ)],
        responses=can_return(401, 403, 422),
        summary="Your models",
    )
    async def models(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        viewer: RequestViewer,
        cursor: PageCursor = None,
        limit: OwnLimit = OWN_DEFAULT,
    ) -> Page[ModelView]:
        """What the account owns, newest first, with drafts and what is private; everybody else's list is /models."""
        before, where = read_number_cursor(cursor), addresses(request, stores.settings.api)

        def script() -> Script[tuple[list[Model], list[ModelView]]]:
            found = yield from catalog.list_models(caller.account_id, before=before, limit=limit + 1)
            # Own models too: one that a moderator took down is not shown to its owner either.
            seen = [model for model in found[:limit] if may(viewer, model_facts(model)).see]
            parts = yield from read_parts(seen, viewer)
            return found, [model_view(model, parts, where) for model in seen]

        found, items = await stores.database.run(script)
        end = end_of_page(found, limit, lambda last: (last.id,))
        return Page(items=items, metadata=page_metadata(f"{API}/me/models", end, {"limit": limit}))


def creator_item(creator: Creator, where: Addresses) -> CreatorItem:
    """A creator as lists show them."""
    return CreatorItem(
        username=creator.name,
        model_count=creator.models,
        link=where.page(f"{API}/models", f"username={quote(creator.name, safe='')}"),
        image=creator.image,
    )
