"""A piece of internet on this machine: names with public addresses, certificates, and receivers that can misbehave."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flows.notifications.channels.transport import PublicTransport

PUBLIC = "93.184.215.14"


@dataclass(frozen=True)
class Call:
    """One request that a receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A server that responds as `response` says: a status, or a function that does as it likes with the request."""

    port: int
    response: int | Callable[[BaseHTTPRequestHandler], None] = 200
    calls: list[Call] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Internet:
    """Names and who is behind them. `connections` are the addresses that were connected to."""

    authority: Path
    names: dict[str, list[str]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    connections: list[tuple[str, int]] = field(default_factory=list)

    def transport(self, seconds: float = 5.0) -> PublicTransport:
        """The guarded transport in this internet."""
        trust = ssl.create_default_context(cafile=str(self.authority))
        return PublicTransport(seconds, resolve=self.resolve, connect=self.connect, trust=trust)

    def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a name; an address is its own name, as for a real resolver."""
        if host in self.names:
            return self.names[host]
        return list(
            dict.fromkeys(str(one[4][0]) for one in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST))
        )

    def connect(self, address: tuple[str, int], timeout: float) -> socket.socket:
        """A connection to whoever is behind a public address here."""
        self.connections.append(address)
        return socket.create_connection(("127.0.0.1", self.ports[address[0]]), timeout=timeout)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with receiver.lock:
            receiver.calls.append(Call(self.path, {name.lower(): text for name, text in self.headers.items()}, body))
        if callable(receiver.response):
            receiver.response(self)
            return
        self.send_response(receiver.response)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.receiver = Receiver(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Callers that hang up are what some tests are about."""


@contextlib.contextmanager
def receiving(folder: Path, *names: str) -> Iterator[tuple[Internet, Receiver]]:
    """An internet in which these names lead to one receiver, which has a certificate for them."""
    internet = Internet(folder / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(folder, names))
    server = _Server()
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    receiver = server.receiver
    internet.ports[PUBLIC] = receiver.port
    internet.names.update({name: [PUBLIC] for name in names})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield internet, receiver
    server.shutdown()
    server.server_close()


def _certificate(folder: Path, names: tuple[str, ...]) -> Path:
    """A certificate of a new authority for some names, with its key; the authority's own is beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "authority.pem").write_bytes(public)
    (folder / "both.pem").write_bytes(public + private)
    return folder / "both.pem"
