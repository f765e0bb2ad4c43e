"""A load client in one thread: plain sockets, requests written beforehand, nothing parsed but where a response ends.

It costs a few microseconds a request, so that on a machine with few cores the server's time is what is measured. Every
server is asked by the same code over the same number of connections.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from statistics import median, quantiles

_LENGTH = b"content-length: "


@dataclass
class Timing:
    """Seconds of each request, and of all of them together."""

    seconds: list[float] = field(default_factory=list)
    whole: float = 0.0

    @property
    def rate(self) -> float:
        """Requests in a second."""
        return len(self.seconds) / self.whole

    @property
    def p50(self) -> float:
        """The median in milliseconds."""
        return median(self.seconds) * 1000

    @property
    def p99(self) -> float:
        """The 99th percentile in milliseconds."""
        return quantiles(self.seconds, n=100)[98] * 1000


class _Line:
    """One connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = 0.0
        self._received = bytearray()
        self._expected = 0

    def send(self, request: bytes) -> None:
        """Begin a request."""
        self._received.clear()
        self._expected = 0
        self.began = time.perf_counter()
        self.socket.sendall(request)

    def read(self) -> bool:
        """Take what has come; whether that is the whole response. Raises ConnectionError for anything but 200."""
        self._received += self.socket.recv(1 << 18)
        if not self._expected:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(self._received[:end]).lower()
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise ConnectionError(bytes(self._received[:600]).decode(errors="replace"))
            at = head.index(_LENGTH) + len(_LENGTH)
            self._expected = end + 4 + int(head[at:].split(b"\r\n", 1)[0])
        return len(self._received) >= self._expected


def load(port: int, paths: Sequence[str], count: int, *, connections: int = 32) -> Timing:
    """`count` requests for the paths in turn, over some connections that each wait for their response."""
    requests = [f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode() for path in paths]
    waiting: Iterator[bytes] = islice(cycle(requests), count)
    timing, selector = Timing(), selectors.DefaultSelector()
    lines = [_Line(port) for _ in range(min(connections, count))]
    began = time.perf_counter()
    for line in lines:
        line.send(next(waiting))
        selector.register(line.socket, selectors.EVENT_READ, line)
    under_way = len(lines)
    while under_way:
        for key, _ in selector.select():
            line: _Line = key.data
            if not line.read():
                continue
            timing.seconds.append(time.perf_counter() - line.began)
            following = next(waiting, None)
            if following is None:
                under_way -= 1
                selector.unregister(line.socket)
            else:
                line.send(following)
    timing.whole = time.perf_counter() - began
    for line in lines:
        line.socket.close()
    return timing


def fetch(port: int, path: str) -> bytes:
    """The body of one response."""
    line = _Line(port)
    line.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    while not line.read():
        pass
    body = bytes(line._received).split(b"\r\n\r\n", 1)[1]
    line.socket.close()
    return body
