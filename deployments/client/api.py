"""The API as the command line speaks it: one method, typed responses, and errors that say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

import httpx
import msgspec

from deployments.client.responses import ProblemResponse
from storage.backoff import retried
from storage.errors import DarkroomError
from storage.settings import Settings

T = TypeVar("T")

TIMEOUT = httpx.Timeout(60.0, connect=5.0)
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 5.0
# Not 500: a fault of the API, which the same request meets again.
PASSING = frozenset({502, 503, 504})


class ApiUnreachable(DarkroomError):
    """Nothing responds at the API's address."""

    code = "api_unreachable"


class NoKey(DarkroomError):
    """There is no API key to send."""

    code = "no_key"


class ApiRefusal(DarkroomError):
    """The API refused. `status` is HTTP's; `problem` is its body."""

    code = "api_refusal"

    def __init__(self, status: int, problem: ProblemResponse) -> None:
        self.status, self.problem = status, problem
        lines = [f"{field}: {reason}" for field, reason in problem.errors.items()]
        text = "\n".join(lines) or problem.detail or problem.title or f"the API returned {status} without a reason"
        if status >= 500 and problem.request_id:
            text += f" (request {problem.request_id})"
        super().__init__(text)


class Api:
    """A connection to the API with a key."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def ask(self, method: str, path: str, kind: type[T], *, patience_seconds: float = 0.0, **options: Any) -> T:
        """The response as a `kind`. While the API is unavailable the request is repeated for `patience_seconds`: pass
        that only for what may be repeated. Raises ApiRefusal, ApiUnreachable."""
        response = self._send(method, path, patience_seconds, options)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.DecodeError as error:
            raise ApiUnreachable(
                f"{self.http.base_url} responds, but not as Darkroom's API does ({error}). "
                "Check DARKROOM_API__PUBLIC_URL."
            ) from error

    def get(self, path: str, kind: type[T], *, patience_seconds: float = 0.0, **options: Any) -> T:
        """What is at an address. Raises ApiRefusal, ApiUnreachable."""
        return self.ask("GET", path, kind, patience_seconds=patience_seconds, **options)

    def post(self, path: str, kind: type[T], **options: Any) -> T:
        """Send something. Raises ApiRefusal, ApiUnreachable."""
        return self.ask("POST", path, kind, **options)

    def delete(self, path: str, **options: Any) -> None:
        """Delete what is at an address. Raises ApiRefusal, ApiUnreachable."""
        self._send("DELETE", path, 0.0, options)

    def _send(self, method: str, path: str, patience_seconds: float, options: Mapping[str, Any]) -> httpx.Response:
        def request() -> httpx.Response:
            response = self.http.request(method, path, **options)
            raise_for_problem(response)
            return response

        try:
            return retried(
                request,
                _passes,
                patience_seconds=patience_seconds,
                first_seconds=FIRST_PAUSE_SECONDS,
                longest_seconds=MAX_PAUSE_SECONDS,
            )
        except httpx.TransportError as error:
            raise self.unreachable(error) from error

    def unreachable(self, error: Exception) -> ApiUnreachable:
        """The error for a connection that failed, with what to do."""
        return ApiUnreachable(
            f"the API at {str(self.http.base_url).rstrip('/')} does not respond ({type(error).__name__}). "
            "Is the platform up? Start it with: darkroom up --detach"
        )


def _passes(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    return isinstance(error, httpx.TransportError) or (isinstance(error, ApiRefusal) and error.status in PASSING)


def raise_for_problem(response: httpx.Response) -> None:
    """Raise ApiRefusal when the response is an error. The body must have been read."""
    if response.is_success:
        return
    try:
        problem = msgspec.json.decode(response.content, type=ProblemResponse)
    except msgspec.DecodeError:
        problem = ProblemResponse(detail=f"the API returned {response.status_code} {response.reason_phrase}")
    raise ApiRefusal(response.status_code, problem)


@contextlib.contextmanager
def open_api(settings: Settings) -> Generator[Api]:
    """A connection with the key of the settings. Raises NoKey when there is none."""
    headers = {"Authorization": f"Bearer {read_key(settings)}", "User-Agent": "darkroom"}
    # trust_env: no proxy that the environment names; the key goes to this address and nowhere else.
    with httpx.Client(base_url=settings.api.public_url, headers=headers, timeout=TIMEOUT, trust_env=False) as http:
        yield Api(http)


def read_key(settings: Settings) -> str:
    """The API key to send. Raises NoKey."""
    key = settings.api.key.get_secret_value()
    if key:
        return key
    file = settings.owner_key_file
    try:
        return file.read_text().strip()
    except FileNotFoundError as error:
        raise NoKey(
            f"there is no API key in {file}: the first `darkroom up` writes it. Start the platform with "
            "`darkroom up --detach`, or set DARKROOM_API__KEY to a key that `darkroom key create` gave you."
        ) from error
    except PermissionError as error:
        raise NoKey(f"{file} cannot be read by this user. Set DARKROOM_API__KEY to a key of your own.") from error
