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

from platform_api import remembered
from storage.postgres.watch import Grounds
from storage.records.access import sign_link
from storage.records.catalog import CatalogImage
from storage.settings import ApiSettings

T = TypeVar("T")

API = "/api/v1"
IGNORED = "X-Ignored-Parameters"


@dataclass(frozen=True)
class Addresses:
    """Absolute addresses for one request."""

    base: str
    settings: ApiSettings

    def download(self, version_id: int, query: str = "") -> str:
        """Where a version's file is downloaded; without a query, its primary one."""
        return f"{self.base}/api/download/models/{version_id}{'?' if query else ''}{query}"

    def page(self, path: str, query: str) -> str:
        """A page of a list."""
        return f"{self.base}{path}?{query}"

    def image(self, image: CatalogImage, *, public: bool) -> str:
        """An image, in the form in which clients put a width into the path. Signed when not everybody may see it."""
        extension = image.media_type.rsplit("/", 1)[-1]
        path = f"{API}/images/{image.sha256}/original=true/{image.id}.{extension}"
        key = self.settings.signing_key.get_secret_value()
        if public or not key:
            return self.base + path
        # The image is signed, not the path's middle: clients replace that. Rounded, so that an address stays the same.
        expires = (int(time.time()) + self.settings.link_lifetime_seconds) // 86400 * 86400 + 86400
        signed = sign_link(image_subject(image.sha256), expires, key)
        return f"{self.base}{path}?{signed.partition('?')[2]}"


def image_subject(sha256: str) -> str:
    """What the signature of an image's address is over."""
    return f"image {sha256}"


def addresses(request: Request[Any, Any, Any], settings: ApiSettings) -> Addresses:
    """Addresses under the request's own host when it is one of ours, else under the public URL."""
    host = request.headers.get("host", "")
    if host and host in settings.allowed_hosts:
        return Addresses(f"{request.url.scheme}://{host}", settings)
    return Addresses(settings.public_url.rstrip("/"), settings)


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
        remembered.keep(request.scope, sent, body, etag, grounds)
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in known or "*" in known:
        return Response(cast(T, b""), status_code=304, media_type="application/json", headers=whole)
    return Response(cast(T, body), media_type="application/json", headers=whole)
