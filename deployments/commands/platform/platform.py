"""darkroom up, down, status: the embedded platform on this machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deployments.commands.operator import operator_stores
from deployments.local.errors import NotRunning
from deployments.local.lines import shown_by
from deployments.local.platform import run_platform, start_detached, stop_platform
from deployments.local.reports.backup_report import backup_line, nightly_destination, refuse_backups_without_key
from deployments.local.reports.report import PartReport, platform_report
from deployments.local.reports.storage_report import SHOWN_ACCOUNTS, disk_lines, usage_lines
from deployments.restore.database_mark import finish
from storage.errors import StoreUnavailable
from storage.postgres.accounts import quotas
from storage.postgres.upkeep import last_backup
from storage.settings import MIB, Settings, load_settings

PREFECT, MLFLOW = ("prefect", "auth"), ("mlflow", "auth")


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when healthy; logs go to DATA/logs.")] = False,
) -> None:
    """Run the whole platform on this machine until Ctrl-C."""
    settings = load_settings()
    # First of all: it refuses to start on a data folder that is half restored.
    finish(settings)
    refuse_backups_without_key(settings)
    if detach:
        pid = start_detached(settings)
        typer.echo(f"Darkroom runs (process {pid}, data in {settings.data_folder}).\n{addresses(settings)}")
        return
    shown = shown_by(settings.logs)

    def say(part: str, line: str) -> None:
        typer.echo(shown(part, line))

    def healthy(seconds: float) -> None:
        for line in (f"healthy after {seconds:.1f} s", *addresses(settings).splitlines(), "stop with Ctrl-C"):
            say("darkroom", line)

    run_platform(settings, say, healthy)


def down() -> None:
    """Stop the platform and leave no process behind."""
    settings = load_settings()
    try:
        stop_platform(settings)
    except NotRunning as nothing:
        typer.echo(str(nothing))
        return
    typer.echo(f"Darkroom on {settings.data_folder} is stopped.")


def status() -> None:
    """Show each part: state, process, uptime, memory, address. Exits with 1 when something is not healthy."""
    settings = load_settings()
    reports = platform_report(settings)
    if not reports:
        typer.echo(f"`darkroom up` runs nothing on {settings.data_folder}. {what_to_do(settings)}")
        _echo_storage(settings)
        raise typer.Exit(1)
    Console().print(_table(reports))
    typer.echo(sign_in(settings))
    _echo_storage(settings)
    if not all(report.healthy for report in reports):
        raise typer.Exit(1)


def what_to_do(settings: Settings) -> str:
    """What to type when `darkroom up` runs nothing: it may be what runs elsewhere that is meant."""
    if settings.has_embedded_stores:
        return "Start it with: darkroom up"
    return (
        "Every store is a server elsewhere; what starts the processes there watches them (`docker compose ps`). "
        f"How they all are: {settings.api.public_url}/health"
    )


def _echo_storage(settings: Settings) -> None:
    for line in _storage(settings):
        typer.echo(line)


def _storage(settings: Settings) -> list[str]:
    """Free space; as far as the database says, the accounts that hold most and the newest backup."""
    try:
        with operator_stores(settings) as stores:
            found = stores.database.run(quotas.largest(SHOWN_ACCOUNTS))
            last = stores.database.run(last_backup.newest())
    except StoreUnavailable:
        return [*disk_lines(settings), "accounts and backups are not known: the database does not respond"]
    backups = backup_line(nightly_destination(settings), last, datetime.now(UTC))
    return [*disk_lines(settings), *usage_lines(found, settings.quotas.limits), backups]


def addresses(settings: Settings) -> str:
    """Where a person finds what: one address a line."""
    return (
        f"API      {settings.api.public_url}  (documentation: {settings.api.public_url}/docs)\n"
        f"Prefect  {settings.prefect.ui_url}\n"
        f"MLflow   {settings.mlflow.ui_url}\n"
        f"{sign_in(settings)}"
    )


def sign_in(settings: Settings) -> str:
    """How a person signs in to the pages of Prefect and MLflow; the secrets themselves stay in their files."""
    held = settings.secret_files()
    lines: list[str] = []
    if PREFECT in held:
        lines.append(f"Prefect's page asks for one thing, all that this prints: cat {held[PREFECT]}")
    if MLFLOW in held:
        lines.append(
            f"MLflow's page asks for a user and a password, what is before and after the colon: cat {held[MLFLOW]}"
        )
    return "\n".join(lines)


def _table(reports: list[PartReport]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("part", "state", "pid", "up for", "memory", "restarts", "address"):
        table.add_column(title, justify="right" if title in ("pid", "up for", "memory", "restarts") else "left")
    for report in reports:
        uptime = report.uptime_seconds
        table.add_row(
            report.name,
            report.state if report.healthy else f"[red]{report.state}[/red]",
            str(report.pid or "-"),
            str(timedelta(seconds=int(uptime))) if uptime is not None else "-",
            f"{report.memory / MIB:.0f} MB" if report.memory else "-",
            str(report.restarts),
            report.url,
        )
    table.add_row("all", "", "", "", f"{sum(report.memory for report in reports) / MIB:.0f} MB", "", "")
    return table
