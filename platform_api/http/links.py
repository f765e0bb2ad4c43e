"""Absolute addresses of the API under a known host, and how long a signed one holds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

from litestar import Request

from storage.records.catalog.catalog import CatalogImage
from storage.records.policy.signed_links import Link, image_subject
from storage.settings import ApiSettings
from storage.signing import link_query

API = "/api/v1"


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
        link = Link(subject=subject, reader=self.reader, expires=expires)
        return f"{self.base}{path}?{link_query(link, keys)}"


def link_expiry(settings: ApiSettings) -> int:
    """When a link to an image ends (Unix seconds): rounded up to a day's end, so that its address stays the same."""
    return (int(time.time()) + settings.link_lifetime_seconds) // 86400 * 86400 + 86400


def addresses(request: Request[Any, Any, Any], settings: ApiSettings) -> Addresses:
    """Addresses under the request's own host when it is one of ours, else under the public URL."""
    host, reader = request.headers.get("host", ""), number_of(request)
    # A Host that we do not know must get into no link: it may be an attacker's, and a cache may keep the response.
    if host and host in settings.allowed_hosts:
        return Addresses(f"{request.url.scheme}://{host}", settings, reader)
    return Addresses(settings.public_url.rstrip("/"), settings, reader)


def number_of(request: Request[Any, Any, Any]) -> int | None:
    """The number of the account that asks; None for anybody."""
    caller = getattr(request.state, "caller", None)
    return None if caller is None else cast(int, caller.account.number)
