"""Roll-ups of counted acts beside plain SQL that writes the same rows.

    python -m benchmarks.metrics              300,000 activities of one week, or ACTIVITIES=n; SIZE=full: 10,000,000

Seven kinds of acts on 100,000 entities, of which few have most (a power law, seeded), spread over the week. Rolled up
as a backfill does it: each day built beside, indexed and put in place, then the totals of every period. The peer is one
CREATE TABLE AS ... GROUP BY for the hours and one for the days, with primary keys, in the same database with the same
memory, without totals. Both are timed in turns, and the median counts. The goals are those of the full size: at the
small one nearly every act is a cell of its own, and what each day costs once weighs more.

Then a tenth as many acts come, on the week's next day, and a regular run takes them. `late` is the same for acts
that are spread over the whole week once more, which re-opens every hour of it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import SecretStr

from deployments.local.servers.postgres import EmbeddedPostgres
from storage.postgres.connection import Database
from storage.postgres.metrics import rollups
from storage.postgres.migrating import migrate
from storage.settings import PostgresSettings

ACTIVITIES = 10_000_000 if os.environ.get("SIZE") == "full" else int(os.environ.get("ACTIVITIES", "300000"))
ENTITIES = 100_000
SKEW = 1.1
"""An entity's share falls with its rank to this power."""
DAYS = [date(2026, 6, 1) + timedelta(days=number) for number in range(7)]
PER_BATCH = 1000
TURNS = 3
KINDS = {"view": 60, "download": 15, "generation": 12, "heart": 8, "comment": 2, "follow": 2, "tip": 1}
"""Each kind's weight; a reaction is counted by what it is."""


class Bench:
    """A database with a week of acts."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def rows(self, statement: str, **parameters: object) -> list[dict[str, Any]]:
        """The rows of a statement, without a limit of time, its random numbers seeded."""
        with self.database.connect() as connection:
            connection.execute("set statement_timeout = 0")
            connection.execute("set work_mem = '256MB'")
            connection.execute("select setseed(0.5)")
            connection.execute("set maintenance_work_mem = '256MB'")
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def bring(self, number: int, first: date, days: float) -> None:
        """Acts in batches, spread evenly over some days, as the ingest leaves them."""
        for day in (first + timedelta(days=ahead) for ahead in range(int(days) + 1)):
            self.rows("select day_partition('activity', %(day)s)", day=day)
        kinds = [kind for kind, weight in KINDS.items() for _ in range(weight)]
        started = self.rows("select coalesce(max(id), 0) as id from activity_batches")[0]["id"]
        batches = -(-number // PER_BATCH)
        self.rows(
            "insert into activity_batches (source, accepted) select 'bench', %(each)s from generate_series(1, %(n)s)",
            each=PER_BATCH,
            n=batches,
        )
        self.rows(
            """
            insert into activity (occurred_at, entity_id, amount, batch_id, entity, metric)
            select %(first)s::timestamptz + make_interval(secs => %(days)s::float8 * 86400 * n / %(number)s), rank, 1,
                   %(started)s + 1 + n / %(each)s,
                   (array['model', 'version', 'image', 'user']::activity_entity[])[1 + rank %% 4],
                   (%(kinds)s::activity_metric[])[1 + floor(random() * %(weights)s)::int]
              from generate_series(0, %(number)s - 1) n,
                   lateral (select power(1 + random() * (power(%(entities)s, 1 - %(skew)s) - 1), 1 / (1 - %(skew)s))
                                   ::bigint + 0 * n as rank) drawn
            """,
            first=datetime(first.year, first.month, first.day, tzinfo=UTC),
            days=days,
            number=number,
            entities=float(ENTITIES),
            skew=SKEW,
            started=started,
            each=PER_BATCH,
            kinds=kinds,
            weights=len(kinds),
        )
        self.rows(
            "insert into activity_pending select distinct date_trunc('hour', occurred_at), batch_id from activity "
            "where batch_id > %(started)s",
            started=started,
        )
        self.rows("analyze activity")

    def ours(self) -> None:
        """Every day built whole, then the totals."""
        noon = datetime(DAYS[-1].year, DAYS[-1].month, DAYS[-1].day, 12, tzinfo=UTC)
        for day in DAYS:
            self.database.run(rollups.build_day(day, noon))
        self.database.run(rollups.settle_totals(noon))

    def peer(self) -> None:
        """The same hours and days, in two tables with primary keys."""
        self.rows("drop table if exists peer_hours, peer_days")
        self.rows(
            "create table peer_hours as select date_bin('1 hour', occurred_at, timestamptz '2000-01-01 00:00+00') as "
            "hour, entity_id, entity, metric, sum(amount)::bigint as amount from activity group by 1, 2, 3, 4"
        )
        self.rows("alter table peer_hours add primary key (hour, entity_id, entity, metric)")
        self.rows(
            "create table peer_days as select (hour at time zone 'UTC')::date as day, entity_id, entity, metric, "
            "sum(amount)::bigint as amount from peer_hours group by 1, 2, 3, 4"
        )
        self.rows("alter table peer_days add primary key (day, entity_id, entity, metric)")

    def take(self) -> float:
        """A regular run over every day that waits; returns seconds."""
        began = time.perf_counter()
        days = self.database.run(rollups.waiting_days())
        now = datetime(days[-1].year, days[-1].month, days[-1].day, 23, tzinfo=UTC)
        for day in days:
            self.database.run(rollups.roll_up_day(day, now))
        return time.perf_counter() - began

    def check(self) -> tuple[int, int]:
        """Ours are the peer's rows, to the last one; returns how many hours and days there are."""
        for grain in ("hours", "days"):
            [differing] = self.rows(
                f"select count(*) as n from ((table activity_{grain} except table peer_{grain}) union all "
                f"(table peer_{grain} except table activity_{grain})) either"
            )
            if differing["n"]:
                raise RuntimeError(f"{differing['n']} {grain} differ from the peer's")
        [counts] = self.rows("select (select count(*) from peer_hours) as h, (select count(*) from peer_days) as d")
        return counts["h"], counts["d"]


def timed(work: Callable[[], None]) -> float:
    """Seconds of some work."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Print a table, then the figures."""
    with (
        tempfile.TemporaryDirectory(prefix="dr-") as name,
        EmbeddedPostgres(Path(name) / "postgres", durable=False).serving() as server,
    ):
        server.create_databases(["bench"])
        migrate(server.url("bench"))
        with Database(PostgresSettings(url=SecretStr(server.url("bench")), lock_timeout_seconds=600)) as database:
            measure(Bench(database))


def measure(bench: Bench) -> None:
    """The figures of one database."""
    bench.bring(ACTIVITIES, DAYS[0], 7)
    turns = [(timed(bench.ours), timed(bench.peer)) for _ in range(TURNS)]
    hours, days = bench.check()
    ours, theirs = median(turn[0] for turn in turns), median(turn[1] for turn in turns)
    print(f"{ACTIVITIES:,} activities, {hours:,} hours and {days:,} days of entities")
    print(f"{'rolled up, with totals':<32}{ours:8.2f} s  {ACTIVITIES / ours:12,.0f}/s")
    print(f"{'create table as, primary keys':<32}{theirs:8.2f} s  {ACTIVITIES / theirs:12,.0f}/s")
    tenth = ACTIVITIES // 10
    bench.bring(tenth, DAYS[-1] + timedelta(days=1), 0.999)
    following = bench.take()
    print(f"{'the next day, a tenth':<32}{following:8.2f} s  {tenth / following:12,.0f}/s")
    bench.bring(tenth, DAYS[0], 7)
    late = bench.take()
    print(f"{'a tenth, late, over the week':<32}{late:8.2f} s  {tenth / late:12,.0f}/s")
    print(f"figure rollup-seconds {ours:.2f} {theirs:.2f} {ours / theirs:.2f} goal <=1.2")
    print(f"figure rollup-next-seconds {following:.2f} {ours:.2f} {following / ours:.3f} goal <=0.167")
    print(f"figure rollup-late-seconds {late:.2f} {ours:.2f} {late / ours:.3f} no goal")


if __name__ == "__main__":
    main()
