"""A cable to a server that can be cut: bytes pass both ways until then, and again for new connections afterwards."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Cable:
    """Listens on a port of its own and passes bytes on to `port`."""

    port: int
    listener: socket.socket
    cut_after: int | None = None
    most_connections: int | None = None
    connections: int = 0
    _ends: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The address of this end."""
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def cut(self) -> None:
        """Break every connection there is."""
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def run(self) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.connections == self.most_connections:
                near.close()
                continue
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self.port))
            self._ends += [near, far]
            threading.Thread(target=self._pass_on, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(far, near, self.cut_after), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, left: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if left is not None:
                    data, left = data[:left], left - len(data)
                sink.sendall(data)
                if left is not None and left <= 0:
                    self.cut()
                    return
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def cable_to(url: str, cut_after: int | None = None, connections: int | None = None) -> Iterator[Cable]:
    """A cable to the server at `url`; each connection is cut after that many bytes of responses, and after so many
    connections each new one is closed at once."""
    listener = socket.create_server(("127.0.0.1", 0))
    cable = Cable(int(url.rpartition(":")[2]), listener, cut_after, connections)
    threading.Thread(target=cable.run, daemon=True).start()
    try:
        yield cable
    finally:
        listener.close()
        cable.cut()
