"""Follows and reactions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Controller, delete, get, put
from litestar.params import FromPath, PathParameter

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Requires
from platform_api.http.limits import PageCursor, PageLimit, end_of_page, read_moment_cursor, read_number
from platform_api.http.links import API
from platform_api.http.pages import Page, page_metadata
from platform_api.http.problems import can_return
from platform_api.http.query_parameters import MAX_INTEGER
from storage.postgres.social import social
from storage.records.accounts.accounts import Scope
from storage.records.policy.viewers import viewer_of
from storage.records.social.social import Entity, Reaction

PathNumber = Annotated[int, PathParameter(ge=1, le=MAX_INTEGER)]
PathEntity = FromPath[Entity]
PathReaction = FromPath[Reaction]


class FollowView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An account that you follow."""

    number: int
    username: str
    since: datetime


class FollowedView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether you follow an account now."""

    number: int
    username: str
    following: bool


class ReactionsView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Your reactions to an entity."""

    entity: Entity
    entity_id: int
    reactions: list[Reaction]


class Follows(Controller):
    """Whom you follow."""

    path = "/follows"
    tags = ("Social",)

    @get("/", guards=[Requires(Scope.SOCIAL_READ)], responses=can_return(401, 403, 422), summary="Whom you follow")
    async def list_page(
        self, stores: AppStores, caller: RequestCaller, cursor: PageCursor = None, limit: PageLimit = 50
    ) -> Page[FollowView]:
        """A page of the accounts that you follow, newest first."""
        before = read_moment_cursor(cursor, read_number)
        found = await stores.database.run(social.followed(caller.account_id, before=before, limit=limit + 1))
        end = end_of_page(found, limit, lambda last: (last.created_at.isoformat(), last.number))
        return Page(
            items=[FollowView(number=one.number, username=one.name, since=one.created_at) for one in found[:limit]],
            metadata=page_metadata(f"{API}/follows", end, {"limit": limit}),
        )

    @put(
        "/{number:int}",
        guards=[Requires(Scope.SOCIAL_WRITE)],
        responses=can_return(401, 403, 404, 409, 422),
        summary="Follow",
    )
    async def follow(self, stores: AppStores, caller: RequestCaller, number: PathNumber) -> FollowedView:
        """Follow the account of this number. Repeating it changes nothing."""
        followed = await stores.database.run(lambda: social.follow(caller.account_id, number))
        return FollowedView(number=followed.number, username=followed.name, following=True)

    @delete(
        "/{number:int}",
        guards=[Requires(Scope.SOCIAL_WRITE)],
        responses=can_return(401, 403, 404, 422),
        status_code=200,
        summary="Follow no more",
    )
    async def unfollow(self, stores: AppStores, caller: RequestCaller, number: PathNumber) -> FollowedView:
        """Follow the account of this number no more. Repeating it changes nothing."""
        followed = await stores.database.run(lambda: social.unfollow(caller.account_id, number))
        return FollowedView(number=followed.number, username=followed.name, following=False)


class Reactions(Controller):
    """Your reactions: thumbs for models and versions; like, dislike, laugh, cry, heart for images and comments."""

    path = "/reactions/{entity:str}/{entity_id:int}"
    tags = ("Social",)

    @get("/", guards=[Requires(Scope.SOCIAL_READ)], responses=can_return(401, 403, 404, 422), summary="Your reactions")
    async def show(
        self, stores: AppStores, caller: RequestCaller, entity: PathEntity, entity_id: PathNumber
    ) -> ReactionsView:
        """Your own reactions to an entity. How many there are of all stands with the entity."""
        mine = await stores.database.run(social.reactions_of(caller.account_id, entity, entity_id))
        return ReactionsView(entity=entity, entity_id=entity_id, reactions=mine)

    @put(
        "/{reaction:str}",
        guards=[Requires(Scope.SOCIAL_WRITE)],
        responses=can_return(401, 403, 404, 410, 422),
        summary="React",
    )
    async def react(
        self,
        stores: AppStores,
        caller: RequestCaller,
        entity: PathEntity,
        entity_id: PathNumber,
        reaction: PathReaction,
    ) -> ReactionsView:
        """Once for each reaction: repeating it changes nothing. A thumb takes the place of the other one."""
        viewer = viewer_of(caller.account)
        mine = await stores.database.run(lambda: social.react(viewer, caller.account_id, entity, entity_id, reaction))
        return ReactionsView(entity=entity, entity_id=entity_id, reactions=mine)

    @delete(
        "/{reaction:str}",
        guards=[Requires(Scope.SOCIAL_WRITE)],
        responses=can_return(401, 403, 404, 422),
        status_code=200,
        summary="Take a reaction back",
    )
    async def take_back(
        self,
        stores: AppStores,
        caller: RequestCaller,
        entity: PathEntity,
        entity_id: PathNumber,
        reaction: PathReaction,
    ) -> ReactionsView:
        """Repeating it changes nothing."""
        mine = await stores.database.run(lambda: social.take_back(caller.account_id, entity, entity_id, reaction))
        return ReactionsView(entity=entity, entity_id=entity_id, reactions=mine)
