"""Answers of the catalogue: bytes with a validator that caches must ask about, and addresses under a known host."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import quote

import msgspec
from litestar import Request, Response

from platform_api.cache import response_cache
from storage.postgres.events.watch import Grounds
from storage.records.catalog.catalog import CatalogImage
from storage.records.policy.signed_links import Link, image_subject
from storage.settings import ApiSettings

T = TypeVar("T")

API = "/api/v1"
IGNORED = "X-Ignored-Parameters"


@dataclass(frozen=True)
class Addresses:
    """Absolute addresses for one request."""

    base: str
    settings: ApiSettings
    reader: int | None = None
    """The number of the account that asks: what not everybody may see is linked for it alone."""

    def download(self, version_id: int, query: str = "") -> str:
        """Where a version's file is downloaded; without a query, its primary one."""
        return f"{self.base}/api/download/models/{version_id}{'?' if query else ''}{query}"

    def page(self, path: str, query: str) -> str:
        """A page of a list."""
        return f"{self.base}{path}?{query}"

    def image(self, image: CatalogImage, *, public: bool) -> str:
        """An image, in the form in which clients put a width into the path. Signed when not everybody may see it: for
        the account that asks, as long as it may."""
        extension = image.media_type.rsplit("/", 1)[-1]
        path = f"{API}/images/{image.sha256}/original=true/{image.id}.{extension}"
        keys = self.settings.signing_keys
        if public or not keys:
            return self.base + path
        subject, expires = image_subject(image.id, image.sha256), link_expiry(self.settings)
        return f"{self.base}{path}?{Link(subject=subject, reader=self.reader, expires=expires).query(keys)}"


def link_expiry(settings: ApiSettings) -> int:
    """When a link to an image ends (Unix seconds): rounded up to a day's end, so that its address stays the same."""
    return (int(time.time()) + settings.link_lifetime_seconds) // 86400 * 86400 + 86400


def addresses(request: Request[Any, Any, Any], settings: ApiSettings) -> Addresses:
    """Addresses under the request's own host when it is one of ours, else under the public URL."""
    host, reader = request.headers.get("host", ""), number_of(request)
    if host and host in settings.allowed_hosts:
        return Addresses(f"{request.url.scheme}://{host}", settings, reader)
    return Addresses(settings.public_url.rstrip("/"), settings, reader)


def number_of(request: Request[Any, Any, Any]) -> int | None:
    """The number of the account that asks; None for anybody."""
    caller = getattr(request.state, "caller", None)
    return None if caller is None else cast(int, caller.account.number)


def answer(
    request: Request[Any, Any, Any],
    content: T,
    *,
    ignored: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    grounds: Grounds | None = None,
) -> Response[T]:
    """JSON that a cache keeps and asks about each time, so that what is hidden is not shown for another moment.

    With its `grounds` it is kept here, too, where the route is remembered: it must be what anybody is shown.
    """
    body = msgspec.json.encode(content)
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    keyed = "authorization" in request.headers
    whole = {
        "ETag": etag,
        "Cache-Control": f"{'private' if keyed else 'public'}, max-age=0, must-revalidate",
        "Vary": "Authorization, Host",
        **(headers or {}),
    }
    if ignored:
        whole[IGNORED] = ", ".join(quote(name[:60], safe="") for name in ignored[:50])
    if grounds is not None:
        sent = [(b"content-type", b"application/json"), *((n.lower().encode(), v.encode()) for n, v in whole.items())]
        response_cache.keep(request.scope, sent, body, etag, grounds)
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in known or "*" in known:
        return Response(cast(T, b""), status_code=304, media_type="application/json", headers=whole)
    return Response(cast(T, body), media_type="application/json", headers=whole)
