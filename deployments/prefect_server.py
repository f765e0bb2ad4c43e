"""Prefect's server as Darkroom serves it, for `darkroom up` and for compose alike:

    python -m uvicorn deployments.prefect_server:create --factory

Whoever may write deployments may run code on the workers, so every route of it asks for the auth string. Beside that a
page of another origin can neither read responses (CORS) nor change anything (CSRF), and a request whose Host is not one
of the server's own names, as a rebound DNS name sends it, gets 400.

Upstream: `create_app` stands in Prefect's API reference, but no page shows how to serve it behind a middleware of one's
own. No issue found that asks for that, or for a setting of the hosts that the server accepts (searched 2026-11-29);
either would do.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from starlette.middleware.trustedhost import TrustedHostMiddleware

from deployments.local.environment import prefect_hosts
from deployments.local.errors import PlatformError
from storage.settings import load_settings


def create() -> TrustedHostMiddleware:
    """The ASGI application. Raises PlatformError when one of its guards is not switched on."""
    # Imported here, and by name: what Prefect reads from the environment it reads while it is imported.
    prefect: Any = import_module("prefect.settings").get_current_settings()
    api = prefect.server.api
    off = [
        *([] if api.auth_string else ["PREFECT_SERVER_API_AUTH_STRING"]),
        *([] if api.csrf_protection_enabled else ["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"]),
        *(["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] if "*" in api.cors_allowed_origins else []),
    ]
    if off:
        raise PlatformError(f"Prefect's server does not start open to everybody. Set {', '.join(off)}.")
    create_app: Any = import_module("prefect.server.api.server").create_app
    return TrustedHostMiddleware(create_app(), allowed_hosts=prefect_hosts(load_settings().prefect))
