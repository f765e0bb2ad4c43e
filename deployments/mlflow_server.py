"""MLflow's server as Darkroom serves it, for `darkroom up` and for compose alike:

    python -m uvicorn deployments.mlflow_server:create --factory

It is MLflow's own application with accounts and with its own checks of Host and Origin. Those let in the page of any
other server on this machine, with the password that the browser keeps; here only its own pages may call it.
"""

from __future__ import annotations

import os
import secrets
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.local.environment import mlflow_hosts, mlflow_origins
from deployments.local.errors import PlatformError
from storage.settings import load_settings

ACCOUNTS, CHECKS = "MLFLOW_AUTH_CONFIG_PATH", "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE"


class OwnPagesOnly:
    """Refuses a request that a page of another origin makes: its Origin is not where the request goes to."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return 403, or pass on."""
        headers = Headers(scope=scope) if scope["type"] in ("http", "websocket") else Headers()
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            refused = PlainTextResponse("This page may not call MLflow: it comes from another origin.", 403)
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)


def create() -> ASGIApp:
    """The ASGI application. Raises PlatformError when one of its guards is not switched on."""
    environment = import_module("mlflow.environment_variables")
    if not getattr(environment, ACCOUNTS).get() or getattr(environment, CHECKS).get() == "true":
        raise PlatformError(f"MLflow does not start open to everybody. Set {ACCOUNTS}, and leave {CHECKS} out.")
    settings = load_settings().mlflow
    # Before mlflow.server is imported and its application made: both read their settings from here.
    os.environ |= {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(mlflow_hosts(settings)),
        # Without it MLflow refuses what its own pages change, once their address is not this machine's.
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(mlflow_origins(settings)),
        # It signs the form for new accounts, for as long as this process lives.
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
    }
    auth = import_module("mlflow.server.auth")
    app: ASGIApp = auth.create_app()
    keep_password(auth)
    return OwnPagesOnly(app)


def keep_password(auth: Any) -> None:
    """Give the first account the password of the settings, should it have another: the file was created again.

    Upstream: mlflow/mlflow#9695, open, asks for an admin that is given at each start. `auth_config` and `store` are in
    no page of MLflow's, and are used here alone.
    """
    user, password = auth.auth_config.admin_username, auth.auth_config.admin_password
    if not auth.store.authenticate_user(user, password):
        auth.store.update_user(user, password=password)
