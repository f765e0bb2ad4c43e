"""API keys: listed, made, revoked. A key's text is shown once and kept nowhere; only a hash of it is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Requires
from platform_api.catalog.writing.write_models import kept
from platform_api.http.json_bodies import strictly
from platform_api.http.limits import PageCursor, PageLimit, end_of_page, read_moment_cursor
from platform_api.http.links import API
from platform_api.http.pages import Page, page_metadata
from platform_api.http.problems import can_return
from storage.errors import AccessDenied, InvalidRequest, NotFound
from storage.postgres.accounts import accounts
from storage.records.accounts.accounts import ApiKey, Scope, make_key
from storage.request_faults import has_control_characters

MAX_LIFETIME = timedelta(days=3660)


class NewApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A key to make."""

    name: Annotated[str, Meta(min_length=1, max_length=64, description="What it is for.", examples=["my laptop"])]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=32, description="What it allows.")]
    expires_at: (
        Annotated[datetime, Meta(tz=True, description="When it stops; null: when the present key does.")] | None
    ) = None


class KeyView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A key without its secret."""

    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: Annotated[datetime | None, Meta(description="To the minute; null: never, or before it was noted.")]
    made_by: Annotated[
        str | None, Meta(description="The id of the key that made it; null: the operator, or before it was noted.")
    ]


class MadeKey(KeyView, frozen=True, kw_only=True, rename="camel"):
    """A key just made; `key` is shown this once."""

    key: str


class Keys(Controller):
    """The caller's API keys."""

    path = "/keys"
    tags = ("Keys",)

    @get("/", guards=[Requires(Scope.KEYS_READ)], responses=can_return(401, 403, 422), summary="List, newest first")
    async def list_page(
        self, stores: AppStores, caller: RequestCaller, cursor: PageCursor = None, limit: PageLimit = 50
    ) -> Page[KeyView]:
        """A page of the caller's keys, revoked and expired ones too; never a secret."""
        before = read_moment_cursor(cursor, str)
        found = await stores.database.run(accounts.keys_of(caller.account_id, before=before, limit=limit + 1))
        end = end_of_page(found, limit, lambda last: (last.created_at.isoformat(), last.id))
        return Page(
            items=[msgspec.convert(key, KeyView, from_attributes=True) for key in found[:limit]],
            metadata=page_metadata(f"{API}/keys", end, {"limit": limit}),
        )

    @post(
        "/",
        guards=[Requires(Scope.KEYS_WRITE)],
        before_request=strictly(NewApiKey),
        responses=can_return(401, 403, 413, 422),
        summary="Make a key",
    )
    async def create(self, stores: AppStores, caller: RequestCaller, data: JSONBody[NewApiKey]) -> MadeKey:
        """Its text is in this response and nowhere else, so a repeat makes another key: revoke the one you lost.

        It can allow only what the key that asks allows, ends no later than that one, and is revoked with it. An account
        has 100 working keys at most.
        """
        name, scopes = kept(data)["name"], list(dict.fromkeys(data.scopes))
        # Else a key could make itself a stronger one.
        _check_gives(caller.key, scopes)
        made = make_key()
        expires_at = _expiry(caller.key, data.expires_at)
        asking = caller.key.id
        # No Idempotency-Key here: a repeat would have to return the secret, which is not kept.
        row = await stores.database.run(
            lambda: accounts.make_key(caller.account_id, made, name, scopes, expires_at, made_by=asking)
        )
        fields = msgspec.structs.asdict(msgspec.convert(row, KeyView, from_attributes=True))
        return MadeKey(**fields, key=made.text)

    @delete(
        "/{key_id:str}",
        guards=[Requires(Scope.KEYS_WRITE)],
        responses=can_return(401, 403, 404),
        summary="Revoke a key",
    )
    async def revoke(self, stores: AppStores, caller: RequestCaller, key_id: FromPath[str]) -> None:
        """It and the keys that it made, and those that they made, are refused from the next request on. A key may
        revoke itself: this request succeeds, the next does not."""
        # Postgres refuses NUL in a text with an error of its own; no key has such an id.
        if has_control_characters(key_id):
            raise NotFound("No key has an id with control characters.")
        await stores.database.run(lambda: accounts.revoke_key(key_id, caller.account_id))


def _check_gives(giving: ApiKey, scopes: list[Scope]) -> None:
    """Raises AccessDenied for a scope that the giving key lacks."""
    missing = [scope.value for scope in scopes if not giving.allows(scope)]
    if missing:
        raise AccessDenied(f"The key lacks {', '.join(missing)}, so it cannot give it. Ask with a key that has it.")


def _expiry(giving: ApiKey, asked: datetime | None) -> datetime | None:
    """When a new key stops: no later than the one that makes it. Raises InvalidRequest."""
    if asked is None:
        return giving.expires_at
    now = datetime.now(UTC)
    if not now < asked <= now + MAX_LIFETIME:
        raise InvalidRequest({"expiresAt": f"must be in the future, at most {MAX_LIFETIME.days:,} days from now"})
    if giving.expires_at is not None and asked > giving.expires_at:
        reason = f"must not be later than {giving.expires_at.isoformat()}, when the key that asks expires"
        raise InvalidRequest({"expiresAt": reason})
    return asked
