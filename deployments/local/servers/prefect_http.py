"""Prefect's REST interface over httpx, for processes that need not import Prefect (three seconds and 90 MB)."""

from __future__ import annotations

import base64
from collections.abc import Generator
from uuid import uuid4

import httpx

from storage.settings import PrefectSettings

CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class PrefectAuth(httpx.Auth):
    """Signs requests in with the auth string, and those that change something with a CSRF token fetched before.

    Where the server asks for neither, requests are sent as they are.
    """

    # httpx reads the body before auth_flow goes on, which looks for the reason of a 403 in it.
    requires_response_body = True

    def __init__(self, settings: PrefectSettings) -> None:
        self._tokens = f"{settings.api_url}/csrf-token"
        auth = settings.auth.get_secret_value()
        self._authorization = f"Basic {base64.b64encode(auth.encode()).decode()}" if auth else ""
        self._client = str(uuid4())
        self._token = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """The request, and before it the one for a token; again with a new token when the old one has expired."""
        self._sign_in(request)
        if request.method not in CHANGES:
            yield request
            return
        if not self._token:
            yield from self._fetch_token()
        self._add_token(request)
        response = yield request
        # Only for that reason: a 403 for a wrong auth string would be the same again.
        if response.status_code == 403 and "CSRF" in response.text:
            yield from self._fetch_token()
            self._add_token(request)
            yield request

    def _fetch_token(self) -> Generator[httpx.Request, httpx.Response]:
        asked = httpx.Request("GET", self._tokens, params={"client": self._client})
        self._sign_in(asked)
        response = yield asked
        self._token = str(response.json()["token"]) if response.is_success else ""

    def _sign_in(self, request: httpx.Request) -> None:
        if self._authorization:
            request.headers["Authorization"] = self._authorization

    def _add_token(self, request: httpx.Request) -> None:
        if self._token:
            request.headers["Prefect-Csrf-Token"] = self._token
            request.headers["Prefect-Csrf-Client"] = self._client


def prefect_http(settings: PrefectSettings) -> httpx.Client:
    """A client whose paths begin at Prefect's API. The caller closes it."""
    return httpx.Client(base_url=f"{settings.api_url}/", timeout=30, auth=PrefectAuth(settings))
