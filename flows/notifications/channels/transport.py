"""The one way to call an address that somebody typed: to the internet only, over TLS, bounded in time and size.

The name is resolved once for each call, every address that it resolves to must be public, and the connection goes to
the very address that was checked, while TLS and the Host header keep the name. Redirects are not followed. There is no
setting that allows an inside address; how to resolve, how to connect and whose certificates to trust are arguments, so
that tests can have the names of the internet on this machine.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import httpcore

from storage.errors import AddressRefused
from storage.records.notifications.addresses import WebAddress, is_public

Resolve = Callable[[str, int], Sequence[str]]
Connect = Callable[[tuple[str, int], float], socket.socket]

MAX_BYTES = 64 * 1024
"""A response is read so far and no further."""
_CONNECT_SECONDS = 10.0


class CallFailed(Exception):
    """The other side could not be reached or did not respond properly. Another try may succeed."""


@dataclass(frozen=True)
class ReceiverResponse:
    """What the receiver returned. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def resolve(host: str, port: int) -> list[str]:
    """Every IP address of a name, by this machine's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def connect(address: tuple[str, int], timeout: float) -> socket.socket:
    """A TCP connection to an IP address."""
    return socket.create_connection(address, timeout=timeout)


@dataclass(frozen=True)
class PublicTransport:
    """Calls public https addresses."""

    seconds: float
    resolve: Resolve = resolve
    connect: Connect = connect
    trust: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def post(self, address: WebAddress, body: bytes, headers: Mapping[str, str]) -> ReceiverResponse:
        """Send a body and return the response, of which MAX_BYTES are read. It takes `seconds` at most beside the
        resolver.

        Raises AddressRefused when the name leads inside, CallFailed when the other side does not respond.
        """
        deadline = _Deadline(self.seconds)
        backend = _CheckedBackend(self.resolve, self.connect, deadline)
        # httpcore and not httpx: there the connection's backend, which checks the address, can be given.
        origin = httpcore.Origin(b"https", address.host.encode(), address.port)
        host = address.host if ":" not in address.host else f"[{address.host}]"
        sent = {"Host": host if address.port == 443 else f"{host}:{address.port}", **headers}
        url = httpcore.URL(scheme=b"https", host=address.host, port=address.port, target=address.target)
        try:
            with (
                httpcore.HTTPConnection(origin, ssl_context=self.trust, network_backend=backend) as connection,
                connection.stream("POST", url, headers=list(sent.items()), content=body) as response,
            ):
                return ReceiverResponse(response.status, _headers(response.headers), _bounded(response.iter_stream()))
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            late = deadline.left() <= 0
            reason = f"took more than {self.seconds:g} s" if late else str(error).strip()[:200]
            raise CallFailed(f"{type(error).__name__}: {reason}") from error


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        return self._end - time.monotonic()

    def bound(self, seconds: float | None = None) -> float:
        """What one operation may take. Raises ReadTimeout when no time is left."""
        left = self.left()
        if left <= 0:
            raise httpcore.ReadTimeout("no time left")
        return left if seconds is None else min(left, seconds)


class _CheckedBackend(httpcore.SyncBackend):
    """Connects to the public address that a name resolved to, and to nothing else."""

    def __init__(self, resolve: Resolve, connect: Connect, deadline: _Deadline) -> None:
        self._resolve, self._connect, self._deadline = resolve, connect, deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        found = list(self._resolve(host, port))
        inside = [address for address in found if not is_public(address)]
        if inside or not found:
            # One inside address among public ones is enough: which of them is called is chance.
            raise AddressRefused(f"{host} leads to {inside[0] if inside else 'nothing'}, which is not on the internet")
        seconds = self._deadline.bound(_CONNECT_SECONDS)
        # To the address, not to the name: resolved once more, the name could lead inside now (DNS rebinding).
        return _BoundedStream(self._connect((found[0], port), seconds), self._deadline)


class _BoundedStream(httpcore.NetworkStream):
    """A connection whose every operation ends with the call's time."""

    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        self._connection, self._deadline = connection, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._connection.settimeout(self._deadline.bound())
        return self._connection.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._connection.settimeout(self._deadline.bound())
        self._connection.sendall(buffer)

    def close(self) -> None:
        self._connection.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        self._connection.settimeout(self._deadline.bound())
        try:
            secured = ssl_context.wrap_socket(self._connection, server_hostname=server_hostname)
        except BaseException:
            self.close()
            raise
        return _BoundedStream(secured, self._deadline)

    def get_extra_info(self, info: str) -> object:
        if info == "ssl_object" and isinstance(self._connection, ssl.SSLSocket):
            return self._connection
        return None


def _headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


def _bounded(chunks: Iterable[bytes]) -> bytes:
    body = b""
    for chunk in chunks:
        body += chunk
        if len(body) >= MAX_BYTES:
            break
    return body[:MAX_BYTES]
