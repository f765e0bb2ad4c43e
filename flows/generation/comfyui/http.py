"""HTTP to a ComfyUI: each response within its time and size, each failure by its name.

Redirects are not followed: the secret of the header would go along.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

import httpx
import msgspec

from flows.generation.comfyui.address import ComfyAddress
from flows.generation.comfyui.limits import RESPONSE_BYTES, ComfyLimits
from storage.errors import BackendBroken, BackendRefused, BackendUnavailable

T = TypeVar("T")
NO_BODY = b""


class NothingThere(BackendUnavailable):
    """A path that ComfyUI does not have."""

    code = "backend_path_unknown"


class RefusedPrompt(Exception):
    """A graph that did not pass ComfyUI's own check; `body` is its JSON."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        super().__init__("ComfyUI refused the graph.")


class ComfyHttp:
    """One connection pool. Paths are below `/api`.

    Every method raises BackendUnavailable when nothing responds in time or the response is an error of the server's,
    BackendBroken when the response is not what the path returns.
    """

    def __init__(self, address: ComfyAddress, limits: ComfyLimits) -> None:
        self._limits, self.address = limits, address
        self._client = httpx.Client(
            base_url=f"{address.base}/api/",
            # Uncompressed, so that no more is read than is counted.
            headers={**address.headers, "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(limits.read, connect=limits.connect),
            follow_redirects=False,
            # Else credentials of a .netrc would be sent.
            trust_env=False,
        )

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def has(self, path: str) -> bool:
        """Whether there is such a route. Other errors are errors."""
        return self._send("GET", path, RESPONSE_BYTES, allowed=(404, 405), discard=True)[0] not in (404, 405)

    def read(self, path: str, kind: type[T], limit: int = RESPONSE_BYTES, **query: str) -> T:
        """A JSON response as `kind`."""
        return decoded(self.read_bytes(path, limit, **query), kind, path)

    def read_bytes(self, path: str, limit: int, **query: str) -> bytes:
        """The bytes of a response, at most `limit`."""
        return self._send("GET", path, limit, params=query)[1]

    def post(self, path: str, body: object) -> bytes:
        """Send JSON; returns the bytes of the response. Raises RefusedPrompt for a 400."""
        content, headers = msgspec.json.encode(body), {"Content-Type": "application/json"}
        status, answer = self._send("POST", path, RESPONSE_BYTES, content=content, headers=headers, allowed=(400,))
        if status == 400:
            raise RefusedPrompt(answer)
        return answer

    def upload(self, path: str, name: str, content: bytes, fields: dict[str, str]) -> bytes:
        """Send a PNG as a form. Raises BackendRefused if the picture is over its limit."""
        files = {"image": (name, content, "image/png")}
        status, answer = self._send("POST", path, RESPONSE_BYTES, files=files, data=fields, allowed=(413,))
        if status == 413:
            raise BackendRefused({"source": f"ComfyUI takes no upload of {len(content):,} bytes; send a smaller one"})
        return answer

    def _send(
        self, method: str, path: str, limit: int, *, allowed: tuple[int, ...] = (), discard: bool = False, **sent: Any
    ) -> tuple[int, bytes]:
        """Status and body of a response whose status is 200 or one of `allowed`."""
        deadline = time.monotonic() + self._limits.response
        try:
            with self._client.stream(method, path, **sent) as response:
                if response.status_code != 200 and response.status_code not in allowed:
                    raise self._failure(path, response.status_code)
                body = NO_BODY if discard else self._body(response, path, limit, deadline)
                return response.status_code, body
        # httpx.InvalidURL is none of its HTTPErrors.
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BackendUnavailable(
                f"ComfyUI does not respond to {path} ({type(error).__name__}). Start it, or check its URL."
            ) from error

    def _body(self, response: httpx.Response, path: str, limit: int, deadline: float) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise BackendBroken(f"ComfyUI responds to {path} compressed, though it was asked not to. Check its proxy.")
        pieces, size = list[bytes](), 0
        for piece in response.iter_raw():
            size += len(piece)
            if size > limit:
                raise BackendBroken(f"ComfyUI's response to {path} is over its limit of {limit:,} bytes.")
            if time.monotonic() > deadline:
                raise BackendUnavailable(
                    f"ComfyUI's response to {path} was not whole after {self._limits.response:g} s. Try again."
                )
            pieces.append(piece)
        return b"".join(pieces)

    def _failure(self, path: str, status: int) -> BackendUnavailable:
        match status:
            case 401 | 403:
                todo = f"Put what its proxy wants into the setting of the header {self.address.header}."
            case 404 | 405:
                todo = "Check its URL in the settings: no ComfyUI is behind it, or one that is too old."
                return NothingThere(f"ComfyUI responds to {path} with status {status}. {todo}")
            case _ if 300 <= status < 400:
                todo = "It points elsewhere, which is not followed; put the final URL into the settings."
            case _:
                todo = "Its log says why; try again."
        return BackendUnavailable(f"ComfyUI responds to {path} with status {status}. {todo}")


def decoded(content: bytes, kind: type[T], path: str) -> T:
    """JSON as `kind`. Raises BackendBroken."""
    try:
        return msgspec.json.decode(content, type=kind)
    # A deep nest of brackets is a RecursionError.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BackendBroken(
            f"ComfyUI's response to {path} is not the JSON that it returns. Check its proxy."
        ) from error
