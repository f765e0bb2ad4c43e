"""The page on which the API can be tried: Swagger UI, with every byte of it served by ourselves.

Swagger UI's files come from the wheel of flask-swagger-ui, the one on PyPI that follows its releases; the wheel's own
code, which is for Flask, is never imported. The page is Litestar's render plugin's. It holds the document and the
script that starts Swagger UI, so the policy names the hash of that script, and no other inline script runs.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from litestar import Request
from litestar.openapi.plugins import SwaggerRenderPlugin

from platform_api.http import problem_list
from storage.errors import NotFound

VERSION = version("flask-swagger-ui")
"""In the addresses of the assets, which browsers keep for ever."""
ASSETS: Mapping[str, str] = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
"""The files that the page uses, and their media types."""
ASSET_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable"}
_STYLE = """
body{margin:0}section{max-width:1460px;margin:0 auto;padding:0 20px 40px;font:14px/1.5 sans-serif;color:#3b4151}
table{border-collapse:collapse}section td{text-align:left;vertical-align:top;padding:.15rem .8rem .15rem 0}
body:has(tr:target){display:flex;flex-direction:column}body:has(tr:target) section{order:-1}tr:target{background:#ffc}
"""
"""An error that the address names is shown first: Swagger UI, growing above it, would push it out of sight."""
_SCRIPT = re.compile(rb"<script type='text/javascript'>(.*?)</script>", re.DOTALL)


class TryItPage(SwaggerRenderPlugin):
    """Litestar's page of Swagger UI, with our assets and, below it, what each error means."""

    def __init__(self) -> None:
        at = f"/docs/{VERSION}"
        super().__init__(
            js_url=f"{at}/swagger-ui-bundle.js",
            css_url=f"{at}/swagger-ui.css",
            standalone_preset_js_url=f"{at}/swagger-ui-standalone-preset.js",
            path="/docs",
            favicon=f"<link rel='icon' type='image/png' href='{at}/favicon-32x32.png'>",
            style=f"<style>{_STYLE}</style>",
        )

    @staticmethod
    def render_json(request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The document as JSON that cannot end the script it stands in."""
        written: bytes = cast(Any, SwaggerRenderPlugin).render_json(request, openapi_schema)
        return written.replace(b"</", b"<\\/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page. `type` of an error leads to its line in the section at the end."""
        page: bytes = cast(Any, super()).render(request, openapi_schema)
        # Swagger UI's deep links would write over the address's fragment, which names an error.
        page = page.replace(b"deepLinking: true", b"deepLinking: false")
        # The plugin leaves Swagger UI's element open, and Swagger UI replaces all that is in it.
        return page.replace(b"</body>", f"</div><section>{problem_list.section()}</section></body>".encode())


def page_headers(page: bytes) -> dict[str, str]:
    """The headers of a page that may run its own script and styles, and reach nothing but this API."""
    scripts = " ".join(_hash(script) for script in _SCRIPT.findall(page))
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' {scripts}",
        "style-src": f"'self' {_hash(_STYLE.encode())}",
        "img-src": "'self' data:",  # Swagger UI's icons are data
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    stated = "; ".join(f"{name} {value}" for name, value in policy.items())
    return {"Content-Security-Policy": stated}


@lru_cache(len(ASSETS))
def read_asset(name: str) -> bytes:
    """A file of Swagger UI. Raises NotFound for all that the page does not use."""
    if name not in ASSETS:
        raise NotFound("There is no such file of the documentation.")
    return (_folder() / name).read_bytes()


def _folder() -> Path:
    """Where the wheel's files are, without importing its code."""
    found = find_spec("flask_swagger_ui")
    if found is None or not found.submodule_search_locations:
        raise NotFound("The files of the documentation's page are not installed: pip install flask-swagger-ui")
    return Path(found.submodule_search_locations[0]) / "dist"


def _hash(content: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
