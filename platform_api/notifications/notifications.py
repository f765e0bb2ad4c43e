"""Notifications in the app: the list, what is unread, the stream of new ones, and what a reader wants to be notified
of."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Response, get, post, put
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, HeaderParameter, JSONBody, Parameter, QueryParameter

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Requires
from platform_api.http.headers import EVENT_STREAM
from platform_api.http.json_bodies import strictly
from platform_api.http.limits import PageCursor, PageLimit, end_of_page, read_number_cursor
from platform_api.http.links import API
from platform_api.http.pages import Page, page_metadata
from platform_api.http.problems import can_return
from platform_api.notifications import in_app_stream
from platform_api.notifications.notification_views import (
    NotificationView,
    PreferencesView,
    PreferencesWish,
    UnreadView,
    notification_view,
    preferences_view,
    read_wish,
    unread_view,
)
from platform_api.streams import job_events
from storage.postgres.connection import Script
from storage.postgres.notifications import in_app, preferences
from storage.records.accounts.accounts import Scope

READ, WRITE = Scope.NOTIFICATIONS_READ, Scope.NOTIFICATIONS_WRITE


class Notifications(Controller):
    """What the caller is notified of in the app."""

    path = "/notifications"
    tags = ("Notifications",)

    @get("/", guards=[Requires(READ)], responses=can_return(401, 403, 422), summary="List, newest first")
    async def list_page(
        self,
        stores: AppStores,
        caller: RequestCaller,
        cursor: PageCursor = None,
        limit: PageLimit = 50,
        unread: Annotated[bool, Parameter(description="Only those not read yet.")] = False,
    ) -> Page[NotificationView]:
        """A page of the caller's notifications."""
        before = read_number_cursor(cursor)
        query = in_app.page(caller.account.number, before=before, unread=unread, limit=limit + 1)
        found = await stores.database.run(query)
        end = end_of_page(found, limit, lambda last: (last.id,))
        return Page(
            items=[notification_view(one, stores.settings) for one in found[:limit]],
            metadata=page_metadata(f"{API}/notifications", end, {"limit": limit, "unread": "true" if unread else None}),
        )

    @get("/unread", guards=[Requires(READ)], responses=can_return(401, 403), summary="How many are unread")
    async def unread(self, stores: AppStores, caller: RequestCaller) -> UnreadView:
        """Counted from the rows at this moment."""
        return unread_view(await stores.database.run(in_app.unread(caller.account.number)))

    @post(
        "/read",
        guards=[Requires(WRITE)],
        responses=can_return(401, 403, 422),
        status_code=200,
        summary="Mark read up to one",
    )
    async def read_up_to(
        self,
        stores: AppStores,
        caller: RequestCaller,
        up_to: Annotated[
            int, QueryParameter(name="upTo", ge=1, le=2**53, description="The id of the newest one that was read.")
        ],
    ) -> UnreadView:
        """That one and all before it are read. What came after stays unread, also when it came meanwhile."""

        def script() -> Script[dict[str, int]]:
            yield from in_app.read_up_to(caller.account.number, up_to)
            return (yield from in_app.unread(caller.account.number))

        return unread_view(await stores.database.run(script))

    @post(
        "/{notification_id:int}/read",
        guards=[Requires(WRITE)],
        responses=can_return(401, 403, 404),
        status_code=200,
        summary="Mark one read",
    )
    async def read(self, stores: AppStores, caller: RequestCaller, notification_id: FromPath[int]) -> UnreadView:
        """The first reading counts; once more changes nothing."""

        def script() -> Script[dict[str, int]]:
            yield from in_app.read(caller.account.number, notification_id)
            return (yield from in_app.unread(caller.account.number))

        return unread_view(await stores.database.run(script))

    @get(
        "/events",
        guards=[Requires(READ)],
        responses={
            200: ResponseSpec(str, generate_examples=False, description="The stream", media_type=EVENT_STREAM),
            **can_return(401, 403, 422, 429),
        },
        media_type=EVENT_STREAM,
        summary="Follow new ones",
    )
    async def follow(
        self,
        stores: AppStores,
        caller: RequestCaller,
        state: State,
        last_event_id: Annotated[
            str | None, HeaderParameter(name="Last-Event-ID", description="Only those after this one.", required=False)
        ] = None,
    ) -> Response[Any]:
        """Server-sent events, one `notification` for each new one, with its id.

        Without Last-Event-ID the stream begins with the next one; with it, with all that came since. None is left out.
        """
        after = None if last_event_id is None else job_events.read_last_event_id(last_event_id)
        allowed = state.stream_keys.allowing(caller.key.id)
        return in_app_stream.respond(stores, state.announcements, state.streams, caller.account, after, allowed)

    @get(
        "/preferences",
        guards=[Requires(READ)],
        responses=can_return(401, 403),
        summary="What you want to be notified of",
    )
    async def preferences(self, stores: AppStores, caller: RequestCaller) -> PreferencesView:
        """Every type on every channel, as you set it or by default, and your quiet hours."""
        return await stores.database.run(_preferences(caller.account.number))

    @put(
        "/preferences",
        guards=[Requires(WRITE)],
        before_request=strictly(PreferencesWish),
        responses=can_return(401, 403, 413, 422),
        summary="Set what you are notified of",
    )
    async def set_preferences(
        self, stores: AppStores, caller: RequestCaller, data: JSONBody[PreferencesWish]
    ) -> PreferencesView:
        """Replaces all that you set before. System messages pass quiet hours; nothing else that interrupts does."""
        chosen, clocks = read_wish(data)

        def script() -> Script[PreferencesView]:
            yield from preferences.replace(caller.account.number, chosen, clocks)
            return (yield from _preferences(caller.account.number))

        return await stores.database.run(script)


def _preferences(reader: int) -> Script[PreferencesView]:
    chosen = yield from preferences.chosen(reader)
    return preferences_view(chosen, (yield from preferences.clocks(reader)))
