"""Fan-out: one notification to every account, beside one INSERT … SELECT of the same rows.

    python -m benchmarks.notifications       50,000 readers or READERS=n; SIZE=full for 1,000,000

A tenth of the readers have opted out of the type. The peer is one statement with the same test into a table with the
columns, checks and indexes of `deliveries`; both begin with an empty table and take turns. Ours does it in chunks, each
committed with its cursor, skips what is there already and wakes streams; the goal is at most twice the peer's time,
and memory that does not follow the number of readers.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil
import psycopg
from pydantic import SecretStr

from deployments.local.servers.postgres import EmbeddedPostgres
from flows.notifications.fan_out import fan_out
from storage.postgres.migrating import migrate
from storage.postgres.notifications import notifications
from storage.records.notifications.notifications import SystemNotice
from storage.settings import PostgresSettings, Settings
from storage.stores import Stores, open_stores

READERS = 1_000_000 if os.environ.get("SIZE") == "full" else int(os.environ.get("READERS", "50000"))
TURNS = 3
GOAL = 2.0
MIB = 1024 * 1024

PEER = """
insert into peer (notification_id, reader, channel, state, frequency)
select 1, account.number, 'in_app', 'sent', 'now'
  from accounts account
  left join notification_preferences said
    on said.type = 'system' and said.channel = 'in_app' and said.reader = account.number
 where account.status = 'active' and coalesce(said.frequency, 'now') <> 'never'
 order by account.number
"""


def fill(connection: psycopg.Connection) -> None:
    """Accounts, of which every tenth has opted out, and the peer's table."""
    connection.execute("insert into accounts (name) select 'reader ' || n from generate_series(1, %s) n", (READERS,))
    connection.execute(
        "insert into notification_preferences (type, channel, reader, frequency)"
        " select 'system', 'in_app', number, 'never' from accounts where number % 10 = 0"
    )
    connection.execute("create table peer (like deliveries including all)")
    connection.execute("vacuum analyze")


def timed(connection: psycopg.Connection, table: bytes, work: Callable[[], object]) -> tuple[float, int]:
    """Seconds that `work` takes to fill an empty table, and how many rows it wrote."""
    connection.execute(b"truncate " + table)
    connection.execute("checkpoint")
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    [rows] = connection.execute(b"select count(*) from " + table).fetchone() or [0]
    return seconds, int(rows)


def growth(work: Callable[[], object]) -> float:
    """MiB by which this process grew at most while it did `work`, looked at every 5 ms."""
    process = psutil.Process()
    before = most = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return (most - before) / MIB


def tell_all(stores: Stores, key: str) -> None:
    """One notification to everybody."""
    stores.database.run(notifications.add(key, SystemNotice(title="Maintenance", text="On Sunday.")))
    fan_out(stores)


def measure(stores: Stores, connection: psycopg.Connection) -> None:
    """Both in turns, then the table."""
    ours: list[float] = []
    peer: list[float] = []
    grown: list[float] = []
    counts: set[int] = set()
    for turn in range(TURNS + 1):
        theirs, rows = timed(connection, b"peer", lambda: connection.execute(PEER))
        mine, told = timed(
            connection, b"deliveries", lambda turn=turn: grown.append(growth(lambda: tell_all(stores, f"turn {turn}")))
        )
        counts |= {rows, told}
        if turn:  # the first turn warms both up
            ours.append(mine)
            peer.append(theirs)
    ratio = median(ours) / median(peer)
    print(f"readers                 {READERS:>12,}   deliveries {', '.join(f'{count:,}' for count in sorted(counts))}")
    print(f"one INSERT … SELECT     {median(peer):>10.2f} s   {max(counts) / median(peer):>12,.0f} rows a second")
    print(f"fan-out in chunks       {median(ours):>10.2f} s   {max(counts) / median(ours):>12,.0f} rows a second")
    print(f"growth of our process   {max(grown[1:]):>8.1f} MiB")
    print(f"figure fan-out-seconds {median(ours):.2f} {median(peer):.2f} {ratio:.2f} goal <={GOAL}")


def main() -> None:
    """Print the table."""
    with (
        tempfile.TemporaryDirectory(prefix="dr-") as name,
        EmbeddedPostgres(Path(name) / "postgres", durable=False).serving() as server,
    ):
        server.create_databases(["bench"])
        url = server.url("bench")
        migrate(url)
        settings = Settings(data_folder=Path(name), postgres=PostgresSettings(url=SecretStr(url)))
        with psycopg.connect(url, autocommit=True) as connection, open_stores(settings) as stores:
            fill(connection)
            measure(stores, connection)


if __name__ == "__main__":
    main()
