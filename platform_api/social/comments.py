"""Comments on models, versions and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.params import FromQuery, JSONBody, PathParameter, QueryParameter
from msgspec import Meta

from platform_api.access.dependencies import AppStores, RequestCaller, RequestViewer
from platform_api.access.guards import Reads, Requires
from platform_api.http.json_bodies import LINES, strictly
from platform_api.http.limits import PageCursor, PageLimit, end_of_page, read_number_cursor
from platform_api.http.links import API
from platform_api.http.pages import Page, page_metadata
from platform_api.http.problems import can_return
from platform_api.http.query_parameters import MAX_INTEGER
from storage.postgres.connection import Script
from storage.postgres.social import social
from storage.records.accounts.accounts import Scope
from storage.records.policy.viewers import viewer_of
from storage.records.social.social import MAX_COMMENT, Comment, Subject

PathNumber = Annotated[int, PathParameter(ge=1, le=MAX_INTEGER)]
CommentText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_COMMENT,
        pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x08\x0b-\x1f\x7f]*$",
        description="Plain text, at least one sign that is not a space; @name mentions an account.",
        examples=["Lovely light, @owner!"],
    ),
    LINES,
]


class NewComment(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A comment to write. `parentId` is a comment on the same entity that it replies to."""

    entity: Subject
    entity_id: Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
    content: CommentText
    parent_id: Annotated[int, Meta(ge=1, le=MAX_INTEGER)] | None = None


class EditedComment(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A comment's new text."""

    content: CommentText


class CommentView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A comment. Without content it was deleted, or its author banned: its place stays, for the replies to it."""

    id: int
    entity: Subject
    entity_id: int
    parent_id: int | None
    number: Annotated[int, Meta(description="The author's number.")]
    username: str
    content: str | None
    mentions: Annotated[list[str], Meta(description="The names of the accounts that it mentions.")]
    created_at: datetime
    edited_at: datetime | None
    deleted: bool


class Comments(Controller):
    """Comments on models, versions and images."""

    path = "/comments"
    tags = ("Social",)

    @get("/", guards=[Reads(Scope.SOCIAL_READ)], responses=can_return(401, 403, 404, 410, 422), summary="List")
    async def list_page(
        self,
        stores: AppStores,
        viewer: RequestViewer,
        entity: FromQuery[Subject],
        entity_id: Annotated[int, QueryParameter(name="entityId", ge=1, le=MAX_INTEGER)],
        cursor: PageCursor = None,
        limit: PageLimit = 50,
    ) -> Page[CommentView]:
        """A page of the comments on an entity, newest first."""
        before = read_number_cursor(cursor)

        def script() -> Script[list[CommentView]]:
            found = yield from social.comments(viewer, entity, entity_id, before=before, limit=limit + 1)
            return (yield from _views(found))

        views = await stores.database.run(script)
        end = end_of_page(views, limit, lambda last: (last.id,))
        query = {"entity": entity.value, "entityId": entity_id, "limit": limit}
        return Page(items=views[:limit], metadata=page_metadata(f"{API}/comments", end, query))

    @post(
        "/",
        guards=[Requires(Scope.SOCIAL_WRITE)],
        before_request=strictly(NewComment),
        responses=can_return(401, 403, 404, 410, 413, 422),
        summary="Comment",
    )
    async def write(
        self, stores: AppStores, caller: RequestCaller, data: JSONBody[NewComment]
    ) -> Response[CommentView]:
        """Comment on a model, version or image, or reply to a comment there."""
        viewer = viewer_of(caller.account)
        comment = (data.entity, data.entity_id, data.content, data.parent_id)
        view = await stores.database.run(lambda: _view(social.comment(viewer, caller.account_id, *comment)))
        return Response(view, status_code=201, headers={"Location": f"{API}/comments/{view.id}"})

    @get(
        "/{comment_id:int}",
        guards=[Reads(Scope.SOCIAL_READ)],
        responses=can_return(401, 403, 404, 410, 422),
        summary="One comment",
    )
    async def show(self, stores: AppStores, viewer: RequestViewer, comment_id: PathNumber) -> CommentView:
        """A comment on something that you may see."""
        return await stores.database.run(_view(social.seen_comment(viewer, comment_id)))

    @patch(
        "/{comment_id:int}",
        guards=[Requires(Scope.SOCIAL_WRITE)],
        before_request=strictly(EditedComment),
        responses=can_return(401, 403, 404, 410, 413, 422),
        summary="Edit",
    )
    async def edit(
        self, stores: AppStores, caller: RequestCaller, comment_id: PathNumber, data: JSONBody[EditedComment]
    ) -> CommentView:
        """Change the text of your own comment. Whom it did not mention before is notified now."""
        viewer = viewer_of(caller.account)
        return await stores.database.run(lambda: _view(social.edit_comment(viewer, comment_id, data.content)))

    @delete(
        "/{comment_id:int}",
        guards=[Requires(Scope.SOCIAL_WRITE)],
        responses=can_return(401, 403, 404, 410, 422),
        summary="Delete",
    )
    async def remove(self, stores: AppStores, caller: RequestCaller, comment_id: PathNumber) -> None:
        """Delete your own comment; a moderator can delete anybody's. Replies stay."""
        await stores.database.run(lambda: social.delete_comment(viewer_of(caller.account), comment_id))


def _view(script: Script[Comment]) -> Script[CommentView]:
    found = yield from script
    return (yield from _views([found]))[0]


def _views(found: Sequence[Comment]) -> Script[list[CommentView]]:
    mentions: dict[int, list[str]] = {}
    for comment_id, name in (yield from social.mentions([comment.id for comment in found])):
        mentions.setdefault(comment_id, []).append(name)
    return [_as_view(comment, mentions) for comment in found]


def _as_view(comment: Comment, mentions: Mapping[int, list[str]]) -> CommentView:
    return CommentView(
        id=comment.id,
        entity=comment.entity,
        entity_id=comment.entity_id,
        parent_id=comment.parent_id,
        number=comment.number,
        username=comment.name,
        content=comment.content,
        mentions=[] if comment.content is None else mentions.get(comment.id, []),
        created_at=comment.created_at,
        edited_at=comment.edited_at,
        deleted=comment.content is None,
    )
