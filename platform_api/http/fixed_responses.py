"""Responses whose bytes stay the same while a process runs: made, named and compressed once.

They are the largest texts that the API makes, the OpenAPI document and the page around it, and anybody may ask for
them. Nothing else is compressed here: a proxy does that, and the length of a secret text must not say what is in it.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litestar import Request, Response

REVALIDATED = "public, max-age=0, must-revalidate"
"""A new release is seen at once; until then a browser that has the bytes is sent a few bytes that say so."""
_REFUSES_GZIP = re.compile(r"\bgzip\s*;\s*q=0(\.0*)?\s*(,|$)", re.IGNORECASE)


@dataclass(frozen=True)
class FixedResponse:
    """One text, plain and compressed, each with its validator."""

    plain: bytes
    compressed: bytes
    tag: str
    media_type: str
    headers: Mapping[str, str]

    @classmethod
    def of(cls, plain: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> FixedResponse:
        """The response with these bytes. Compressing a megabyte takes about 20 ms."""
        tag = hashlib.sha256(plain).hexdigest()[:32]
        whole = {"Cache-Control": REVALIDATED, "Vary": "Accept-Encoding", **(headers or {})}
        return cls(plain, gzip.compress(plain, mtime=0), tag, media_type, whole)

    def respond(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """As the client reads it best; 304 when it has these bytes."""
        zipped = takes_gzip(request.headers.get("accept-encoding", ""))
        etag = f'"{self.tag}-gzip"' if zipped else f'"{self.tag}"'
        headers = {"ETag": etag, **self.headers}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if etag in known or "*" in known:
            return Response(b"", status_code=304, media_type=self.media_type, headers=headers)
        if not zipped:
            return Response(self.plain, media_type=self.media_type, headers=headers)
        return Response(self.compressed, media_type=self.media_type, headers={**headers, "Content-Encoding": "gzip"})


def takes_gzip(accept_encoding: str) -> bool:
    """Whether a client reads gzip, by its Accept-Encoding."""
    return "gzip" in accept_encoding.lower() and _REFUSES_GZIP.search(accept_encoding) is None
