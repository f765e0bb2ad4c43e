"""Links in e-mail: confirm an address, stop a kind of e-mail. No key is needed; the link's signature is enough.

GET only shows a page with a button, since mail programs and scanners follow links by themselves; POST acts. A mail
program's one-click unsubscribe (RFC 8058) posts by itself.
"""

from __future__ import annotations

import html
from typing import Annotated

from litestar import Controller, MediaType, Response, get, post
from litestar.params import Parameter

from platform_api.access.dependencies import AppStores
from platform_api.access.guards import Open
from platform_api.http.problems import can_return
from storage.postgres.accounts import accounts
from storage.postgres.connection import Script
from storage.postgres.notifications import endpoints, preferences
from storage.records.notifications.channels import Channel
from storage.records.notifications.notification_links import MAX_LENGTH, Confirm, Unsubscribe
from storage.records.notifications.notifications import TYPES
from storage.signing import read_email_link

Token = Annotated[str, Parameter(min_length=1, max_length=MAX_LENGTH, description="The signed part of the link.")]

# No script: the token is in the address, and the page must be able to do nothing but post its button.
_HEADERS = {"Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'"}
_OPENS = Open("the link's signature says whose it is and what it does, and e-mail programs have no key")


class NotificationLinks(Controller):
    """Links in e-mail."""

    path = "/notifications"
    tags = ("Notifications",)
    guards = (_OPENS,)

    @get("/confirm", media_type=MediaType.HTML, responses=can_return(403, 422), summary="Page that confirms an address")
    async def ask_to_confirm(self, stores: AppStores, token: Token) -> Response[str]:
        """A page with a button. Changes nothing."""
        read_email_link(token, Confirm, stores.settings.api.signing_keys)
        return _page("Is this your e-mail address?", "Then Darkroom may write to it.", "Yes, it is mine")

    @post(
        "/confirm",
        media_type=MediaType.HTML,
        responses=can_return(403, 404, 422),
        status_code=200,
        summary="Confirm an address",
    )
    async def confirm(self, stores: AppStores, token: Token) -> Response[str]:
        """The address is used from now on. A link of an address that was changed since is not found."""
        link = read_email_link(token, Confirm, stores.settings.api.signing_keys)
        endpoint = await stores.database.run(endpoints.confirm(link.endpoint_id))
        return _page("Confirmed", f"Darkroom may write to {endpoint.shown}.")

    @get(
        "/unsubscribe",
        media_type=MediaType.HTML,
        responses=can_return(403, 422),
        summary="Page that stops a kind of e-mail",
    )
    async def ask_to_unsubscribe(self, stores: AppStores, token: Token) -> Response[str]:
        """A page with a button. Changes nothing."""
        link = read_email_link(token, Unsubscribe, stores.settings.api.signing_keys)
        return _page("No more e-mail of this kind?", _about(link), "No more e-mail of this kind")

    @post(
        "/unsubscribe",
        media_type=MediaType.HTML,
        responses=can_return(403, 404, 422),
        status_code=200,
        summary="Stop a kind of e-mail",
    )
    async def unsubscribe(self, stores: AppStores, token: Token) -> Response[str]:
        """No more e-mail of the types that the link names, also of what waits already. Other channels go on."""
        link = read_email_link(token, Unsubscribe, stores.settings.api.signing_keys)

        def script() -> Script[None]:
            # A link in an old e-mail may name a type that there is no more.
            known = [kind for kind in link.types if kind in TYPES]
            if (yield from accounts.users(number=link.reader)) and known:
                yield from preferences.say(link.reader, preferences.never(known, Channel.EMAIL))

        await stores.database.run(script)
        return _page("Done", "You get no more e-mail of this kind. Your preferences can bring it back.")


def _about(link: Unsubscribe) -> str:
    return " ".join(TYPES[kind].about for kind in link.types if kind in TYPES)


def _page(title: str, text: str, button: str = "") -> Response[str]:
    form = f"<form method=post><button>{html.escape(button)}</button></form>" if button else ""
    body = f"<h1>{html.escape(title)}</h1><p>{html.escape(text)}</p>{form}"
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>{body}</html>"
    return Response(page, media_type=MediaType.HTML, headers=_HEADERS)
