"""The schema of Postgres, brought up to date file by file while old code goes on serving.

Nobody waits long for a migration: it gives up a lock that it does not get in 4 s, lets everybody pass and tries again,
and a statement may take 5 s. The comment at the head of a file may say otherwise, with its reason:

    -- statement_timeout 30min: an index over a year of events takes its time.
    -- no transaction: indexes are built concurrently.

Without a transaction each statement stands by itself and is one that may be repeated: `create index concurrently if not
exists`, `drop index concurrently if exists`, `validate constraint`, or a block `do $$ ... $$` that commits each of its
batches and goes on where it was cut short. An index that was cut short is dropped and made again by the next try.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from storage.backoff import retried
from storage.errors import DarkroomError
from storage.postgres.lookup_tables import fill

log = logging.getLogger("darkroom.migrations")

MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x6461726B  # "dark" in ASCII

RESTORING = "public.darkroom_restoring"
"""The table that is in a database for as long as `darkroom restore` fills it."""
LOCK_SECONDS = 4  # under the 5 s that others wait for a lock: who queues behind a migration still gets it
STATEMENT_TIMEOUT = "5s"
LAST_UNLIMITED = "0019"
"""Files up to this one were written before there were limits: one rewrites a table, one builds an index that keeps
writers out. They are what they are for whoever has run them; a platform that has not may take its time over them."""
UNLIMITED = "30min"
PATIENCE_SECONDS = 120.0
"""So long a migration is tried again when others hold what it needs."""
WAIT_SECONDS = 900.0
"""So long a starter waits for another one that migrates."""
IDLE_SECONDS = 30.0
"""A starter that is stopped or lost in the middle holds its locks no longer than this."""
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 8.0
_HELD_BY_OTHERS = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)

_HEADER_TIMEOUT = re.compile(r"^-- statement_timeout (\d+(?:ms|s|min|h)): .{10,}$", re.MULTILINE)
_HEADER_ALONE = re.compile(r"^-- no transaction: .{10,}$", re.MULTILINE)
_REPEATABLE = re.compile(
    r"create (?:unique )?index concurrently if not exists (?P<made>\w+) on .+"
    r"|drop index concurrently if exists \w+"
    r"|alter table \w+ validate constraint \w+"
    r"|do \$\$.+\bcommit;.+\$\$",
    re.IGNORECASE | re.DOTALL,
)


class MigrationRefused(DarkroomError):
    """A file is not written as migrations are; nothing of it ran."""

    code = "migration_refused"


class MigrationBlocked(DarkroomError):
    """Others hold what a migration needs, for too long; nothing of it is left."""

    code = "migration_blocked"


class MigrationTooSlow(DarkroomError):
    """A statement of a migration took longer than it may; nothing of it is left."""

    code = "migration_too_slow"


class HalfRestored(DarkroomError):
    """A restore has begun to fill the database and has not ended."""

    code = "half_restored"


@dataclass(frozen=True)
class Migration:
    """One file. `statements` run in one transaction, or, without one, each by itself."""

    name: str
    statements: Sequence[str]
    statement_timeout: str
    transaction: bool


def read_migration(file: Path) -> Migration:
    """A file and what its head says. Raises MigrationRefused for one without a transaction that may not be repeated."""
    text = file.read_text()
    head = "\n".join(_head(text))
    timeout = _HEADER_TIMEOUT.search(head)
    default = UNLIMITED if file.name[:4] <= LAST_UNLIMITED else STATEMENT_TIMEOUT
    limit = timeout.group(1) if timeout else default
    if not _HEADER_ALONE.search(head):
        return Migration(file.stem, [text], limit, transaction=True)
    statements = _split(text)
    for statement in statements:
        if not _REPEATABLE.fullmatch(statement):
            raise MigrationRefused(
                f"{file.name}: without a transaction only statements that may be repeated can stand (create index "
                f"concurrently if not exists, drop index concurrently if exists, validate constraint, do $$ "
                f"with commits), not: {statement[:80]}. Put the others into a file of their own."
            )
    return Migration(file.stem, statements, limit, transaction=False)


def _head(text: str) -> Generator[str]:
    for line in text.splitlines():
        if not line.startswith("--"):
            return
        yield line


def _split(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    parts = re.findall(r"(?:\$\$.*?\$\$|(?!;[ \t]*$).)+", "\n".join(lines), flags=re.MULTILINE | re.DOTALL)
    return [part.strip() for part in parts if part.strip()]


def migrate(
    url: str,
    *,
    folder: Path = MIGRATIONS,
    patience_seconds: float = PATIENCE_SECONDS,
    wait_seconds: float = WAIT_SECONDS,
    idle_seconds: float = IDLE_SECONDS,
    restoring: bool = False,
) -> list[str]:
    """Bring the database at `url` to the newest schema; returns the names of the migrations that ran.

    Each file runs once, under one advisory lock, so that several starters do no harm; lookup tables are filled each
    time. restoring: the caller is the restore that fills it. Raises HalfRestored, MappingRefused, MigrationRefused,
    MigrationBlocked, MigrationTooSlow, and what Postgres says of a statement that is wrong.
    """
    ran: list[str] = []
    with _connected(url, idle_seconds) as connection, _sole_migrator(connection, wait_seconds):
        if not restoring and _value(connection, "select to_regclass(%s) is not null", RESTORING):
            raise HalfRestored(
                "The database is half restored: rows may be missing, and numbers would be given out twice. Restore "
                "again, it is emptied first: darkroom restore"
            )
        connection.execute(
            "create table if not exists schema_migrations (name text primary key, ran_at timestamptz default now())"
        )
        # Read under the lock: another starter may have run some of them meanwhile.
        done = {row[0] for row in connection.execute("select name from schema_migrations")}
        for file in sorted(folder.glob("*.sql")):
            if file.stem in done:
                continue
            began = time.monotonic()
            _carry_out(connection, read_migration(file), patience_seconds)
            log.info("migration %s ran in %.1f s", file.stem, time.monotonic() - began)
            ran.append(file.stem)
        _with_retries(connection, "of the lookup tables", patience_seconds, lambda: fill(connection))
        # A database restored into another cluster: its lists must not compare transaction numbers of both.
        connection.execute(f"set statement_timeout = '{UNLIMITED}'".encode())
        connection.execute("select catalogue_moved_in()")
    return ran


@contextmanager
def _connected(url: str, idle_seconds: float) -> Generator[psycopg.Connection[Any]]:
    """A session that Postgres ends by itself when its starter is dead, stopped or cut off."""
    idle = int(idle_seconds * 1000)
    options = (
        f"-c lock_timeout={LOCK_SECONDS}s -c statement_timeout={STATEMENT_TIMEOUT} "
        f"-c idle_in_transaction_session_timeout={idle} -c idle_session_timeout={idle} "
        # Looked for while a statement runs, too: a killed starter's last one does not go on for half an hour.
        "-c client_connection_check_interval=1s "
        "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    )
    with psycopg.connect(url, autocommit=True, options=options, application_name="darkroom migrations") as connection:
        yield connection


@contextmanager
def _sole_migrator(connection: psycopg.Connection[Any], wait_seconds: float) -> Generator[None]:
    """Hold the lock of whoever migrates. Asked for again and again, never waited for: whoever waits inside a statement
    holds a snapshot, which an index that is built concurrently waits for in turn. Raises MigrationBlocked."""
    deadline = time.monotonic() + wait_seconds
    while not _value(connection, "select pg_try_advisory_lock(%s)", _MIGRATION_LOCK):
        if time.monotonic() > deadline:
            raise MigrationBlocked(
                f"Another starter has been migrating for more than {wait_seconds:.0f} s ({_holder(connection)}). "
                "Wait for it, or end that process; then start again."
            )
        time.sleep(0.2)
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("select pg_advisory_unlock(%s)", (_MIGRATION_LOCK,))


def _carry_out(connection: psycopg.Connection[Any], migration: Migration, patience_seconds: float) -> None:
    try:
        if migration.transaction:
            _with_retries(connection, migration.name, patience_seconds, lambda: _in_transaction(connection, migration))
        else:
            _by_themselves(connection, migration, patience_seconds)
    except psycopg.errors.QueryCanceled as error:
        raise MigrationTooSlow(
            f"Migration {migration.name}: a statement took longer than {migration.statement_timeout}. Do it in smaller "
            "steps, or give the file a head that says why it may take longer: -- statement_timeout 10min: <reason>"
        ) from error


def _in_transaction(connection: psycopg.Connection[Any], migration: Migration) -> None:
    with connection.transaction():
        connection.execute("select set_config('statement_timeout', %s, true)", (migration.statement_timeout,))
        for statement in migration.statements:
            connection.execute(statement.encode())  # without parameters psycopg takes many statements in one text
        connection.execute("insert into schema_migrations (name) values (%s)", (migration.name,))


def _by_themselves(connection: psycopg.Connection[Any], migration: Migration, patience_seconds: float) -> None:
    """Statements that keep no reader and no writer out, also while they wait: only their own time is limited."""
    connection.execute(f"set statement_timeout = '{migration.statement_timeout}'; set lock_timeout = 0".encode())
    try:
        for statement in migration.statements:
            _with_retries(connection, migration.name, patience_seconds, lambda one=statement: _repeat(connection, one))
        # Only after all of them: a starter that dies before repeats the whole file, which such files allow.
        connection.execute("insert into schema_migrations (name) values (%s)", (migration.name,))
    finally:
        if not connection.broken:
            connection.execute(f"set statement_timeout = '{STATEMENT_TIMEOUT}'; reset lock_timeout".encode())


def _repeat(connection: psycopg.Connection[Any], statement: str) -> None:
    match = _REPEATABLE.fullmatch(statement)
    if match and match.group("made"):
        _drop_if_cut_short(connection, match.group("made"))
    connection.execute(statement.encode())


def _drop_if_cut_short(connection: psycopg.Connection[Any], index: str) -> None:
    """An index whose making was cut short is there by name, costs every write, and is never read."""
    unfinished = "select exists (select from pg_index where indexrelid = to_regclass(%s) and not indisvalid)"
    if _value(connection, unfinished, index):
        log.warning("index %s was cut short: it is made again", index)
        # `if not exists` would take it for the finished index, and leave it invalid for ever.
        connection.execute(sql.SQL("drop index concurrently {}").format(sql.Identifier(index)))


def _with_retries(
    connection: psycopg.Connection[Any], what: str, patience_seconds: float, work: Callable[[], None]
) -> None:
    """Do `work` again while others hold what it needs, with pauses in which they pass. Raises MigrationBlocked."""
    try:
        retried(
            work,
            _HELD_BY_OTHERS,
            patience_seconds=patience_seconds,
            first_seconds=FIRST_PAUSE_SECONDS,
            longest_seconds=MAX_PAUSE_SECONDS,
        )
    except _HELD_BY_OTHERS as error:
        raise MigrationBlocked(
            f"Migration {what} did not get its locks in {patience_seconds:.0f} s. "
            f"{_oldest(connection)} Start again when those have ended; nothing of it is left."
        ) from error


def _oldest(connection: psycopg.Connection[Any]) -> str:
    rows = connection.execute(
        "select pid, coalesce(nullif(application_name, ''), 'no name'), state,"
        "       round(extract(epoch from now() - xact_start))::int from pg_stat_activity"
        " where datname = current_database() and xact_start is not null and pid <> pg_backend_pid()"
        " order by xact_start limit 3"
    ).fetchall()
    sessions = ", ".join(f"process {pid} ({name}, {state}) for {seconds} s" for pid, name, state, seconds in rows)
    return f"Transactions are open: {sessions}." if sessions else "The transactions that held them have ended since."


def _holder(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute(
        "select activity.pid, activity.state, round(extract(epoch from now() - activity.state_change))::int"
        "  from pg_locks lock join pg_stat_activity activity using (pid)"
        # pg_locks shows a 64-bit number in two halves: classid is the upper one, which is 0 for ours.
        " where lock.locktype = 'advisory' and lock.granted and lock.classid = 0 and lock.objid = %s",
        (_MIGRATION_LOCK,),
    ).fetchone()
    return f"Postgres process {row[0]}, {row[1]} for {row[2]} s" if row else "it has just ended"


def _value(connection: psycopg.Connection[Any], statement: str, *parameters: object) -> Any:
    row = connection.execute(statement.encode(), parameters).fetchone()
    return row[0] if row else None
