"""darkroom sql: Postgres' own prompt on Darkroom's database."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flows.upkeep.dumps import program
from storage.settings import load_settings


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Answer this and end; left out: a prompt.")] = "",
) -> None:
    """Ask Darkroom's database with psql."""
    settings = load_settings()
    facts = {name: str(value) for name, value in conninfo_to_dict(settings.postgres.url.get_secret_value()).items()}
    password = facts.pop("password", "")
    psql = program(settings.backup, "psql")
    # A command line can be read by every user of the machine, an environment cannot.
    environment = {**os.environ, **({"PGPASSWORD": password} if password else {})}
    command = [psql, "--no-psqlrc", f"--dbname={make_conninfo('', **facts)}", *(["--command", query] if query else [])]
    os.execve(psql, command, environment)
