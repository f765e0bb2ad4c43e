"""How long trainings take is read from a few rows, however many jobs there are."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from storage.postgres.connection import Database
from storage.postgres.jobs.paces import ON, SQL


def test_only_the_newest_jobs_of_the_base_model_are_looked_at(database: Database) -> None:
    values = {"base_model": "starter", "settings": Jsonb({}), **dict.fromkeys(ON, True)}
    with database.connect() as connection:
        # Of an empty table a planner reads all, whatever its indexes are.
        connection.execute("set enable_seqscan = off")
        connection.execute("set enable_sort = off")
        for statement in (SQL["paces"], SQL["seconds_per_step"]):
            rows = connection.execute(f"explain {statement}".encode(), values).fetchall()
            plan = "\n".join(str(row["QUERY PLAN"]) for row in rows)
            around, found, _ = plan.partition("Index Scan using jobs_trained_on_base")
            assert found, plan
            assert "Limit" in around.splitlines()[-2], plan
