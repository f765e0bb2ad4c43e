"""Says which ports are taken before anything is started."""

from __future__ import annotations

import socket
from collections.abc import Iterable

import psutil

from deployments.local.errors import PortTaken
from deployments.local.parts import Part


def refuse_taken_ports(parts: Iterable[Part]) -> None:
    """Raise PortTaken, naming each port, the setting that moves it and the process that has it."""
    taken = [part for part in parts if part.listens and not _is_free(part.listens.port)]
    if not taken:
        return
    lines = [
        f"port {part.listens.port} ({part.name}) is taken{_by_whom(part.listens.port)}: "
        f"stop that, or set {part.listens.setting} to a free port"
        for part in taken
        if part.listens
    ]
    raise PortTaken("Nothing was started. " + "; ".join(lines) + ".")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        # Without it a port counts as taken for a minute after its last connection (TIME_WAIT).
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _by_whom(port: int) -> str:
    """' by process 12 (name)', as far as this account may know."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return " by another process"
    for connection in connections:
        address = connection.laddr
        if connection.status == psutil.CONN_LISTEN and address and address.port == port and connection.pid:
            return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return " by another process"
