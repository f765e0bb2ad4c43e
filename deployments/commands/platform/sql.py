"""darkroom sql: Postgres' own prompt on Darkroom's database."""

from __future__ import annotations

import os
from typing import Annotated

import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from deployments.commands.operator import CONNECT_SECONDS
from flows.upkeep.backup.dumps import program
from storage.settings import Settings, load_settings


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Run this and end; left out: a prompt.")] = "",
) -> None:
    """Ask Darkroom's database with psql."""
    settings = load_settings()
    facts = {name: str(value) for name, value in conninfo_to_dict(settings.postgres.url.get_secret_value()).items()}
    password = facts.pop("password", "")
    psql = program(settings.backup, "psql")
    _say_how_to_start(settings)
    # A command line can be read by every user of the machine, an environment cannot.
    environment = {**os.environ, **({"PGPASSWORD": password} if password else {})}
    command = [psql, "--no-psqlrc", f"--dbname={make_conninfo('', **facts)}", *(["--command", query] if query else [])]
    # In place of this process, so that Ctrl-C and the terminal are psql's.
    os.execve(psql, command, environment)


def _say_how_to_start(settings: Settings) -> None:
    """Psql says why a database does not respond, not how the embedded one is started."""
    url = settings.postgres.url.get_secret_value()
    try:
        psycopg.connect(url, connect_timeout=CONNECT_SECONDS).close()
    except psycopg.OperationalError:
        if url == settings.embedded_postgres_url("darkroom"):
            typer.echo("The database does not respond. Start it with: darkroom up --detach", err=True)
