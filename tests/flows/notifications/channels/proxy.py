"""A proxy that `requests` is pointed to by the environment: it notes which host is asked for, and leads to a receiver.

Names of the internet are so led to this machine without a change in the library that calls them.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """Where it listens, where it leads, and which hosts were asked for."""

    port: int = 0
    receiver: int = 0
    asked: list[str] = field(default_factory=list)


class _Tunnel(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _ProxyServer)
        proxy = self.server.proxy
        method, host, _ = self.rfile.readline().decode().split(" ")
        assert method == "CONNECT"
        while self.rfile.readline().strip():
            pass
        proxy.asked.append(host)
        with socket.create_connection(("127.0.0.1", proxy.receiver)) as other:
            self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = threading.Thread(target=_pump, args=(other, self.connection), daemon=True)
            back.start()
            _pump(self.connection, other)
            back.join()


class _ProxyServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, receiver: int) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.proxy = Proxy(self.server_address[1], receiver)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxying(receiver: int) -> Iterator[Proxy]:
    """A proxy before a receiver's port."""
    server = _ProxyServer(receiver)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server.proxy
    server.shutdown()
    server.server_close()
