"""What resources share: pages, links and signed image addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast
from urllib.parse import urlencode
from uuid import UUID

import msgspec

from platform_api.http.links import link_expiry
from storage.settings import ApiSettings
from storage.signing import job_image_link

Item = TypeVar("Item")


class PageMetadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where the next page begins; both are null on the last page."""

    next_cursor: str | None
    next_page: str | None


class Page(msgspec.Struct, Generic[Item], frozen=True, kw_only=True, rename="camel"):
    """Some of many items, newest first."""

    items: list[Item]
    metadata: PageMetadata


def page_metadata(path: str, cursor: str | None, query: Mapping[str, object]) -> PageMetadata:
    """The metadata of a page of `path` that ends at `cursor`; `query` is what else the next request must say, several
    values of a name in a list."""
    if cursor is None:
        return PageMetadata(next_cursor=None, next_page=None)
    said = {name: value for name, value in query.items() if value is not None}
    return PageMetadata(next_cursor=cursor, next_page=f"{path}?{urlencode({'cursor': cursor, **said}, doseq=True)}")


def signed_image(settings: ApiSettings, job_id: UUID, sha256: str) -> str | None:
    """The address of one image of a job for a page that cannot send a key; None while there is no signing key."""
    if not settings.signing_keys:
        return None
    return settings.public_url + job_image_link(job_id, sha256, link_expiry(settings), settings.signing_keys)


def camelised(value: Any) -> Any:
    """JSON content with its object names in camelCase."""
    if isinstance(value, dict):
        members = cast(dict[str, Any], value)
        return {_camel(name): camelised(member) for name, member in members.items()}
    if isinstance(value, list):
        return [camelised(member) for member in cast(list[Any], value)]
    return value


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)
