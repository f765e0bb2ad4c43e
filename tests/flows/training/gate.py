"""A way to a server of this machine that can be closed: who comes then is refused, as where no server listens."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading

from tests.conftest import free_port


class Gate:
    """Before the port `receiver`, on a port of its own that stays the same. Closed at first."""

    def __init__(self, receiver: int) -> None:
        self.receiver, self.port = receiver, free_port()
        self._server: _GateServer | None = None

    def open(self) -> None:
        """Let connections through."""
        self._server = _GateServer(self)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        """Break the connections there are, and refuse new ones."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        for connection in list(server.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _GateServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, gate: Gate) -> None:
        super().__init__(("127.0.0.1", gate.port), _Passage)
        self.receiver = gate.receiver
        # The server takes requests for its own address alone.
        self.names = (f"127.0.0.1:{gate.port}".encode(), f"127.0.0.1:{gate.receiver}".encode())
        self.connections: set[socket.socket] = set()


class _Passage(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _GateServer)
        here: socket.socket = self.request
        with socket.create_connection(("127.0.0.1", self.server.receiver)) as there:
            self.server.connections |= {here, there}
            back = threading.Thread(target=_pass, args=(there, here), daemon=True)
            back.start()
            _pass(here, there, self.server.names)
            back.join()
            self.server.connections -= {here, there}


def _pass(source: socket.socket, target: socket.socket, names: tuple[bytes, bytes] = (b"", b"")) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data.replace(*names) if names[0] else data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
