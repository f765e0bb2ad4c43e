"""darkroom backfill: days of a flow rebuilt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from deployments.commands.operator import operator_stores
from flows.metrics.backfill import backfill as fill
from flows.metrics.backfill import backfill_boards
from storage.errors import InvalidRequest
from storage.records.metrics.leaderboards import RANK
from storage.records.metrics.rollups import ROLL_UP
from storage.settings import load_settings


class Flow(StrEnum):
    """Flows that work by days."""

    ROLL_UP = ROLL_UP
    RANK = RANK


DAY = ["%Y-%m-%d"]


def backfill(
    flow: Annotated[Flow, typer.Argument(help="Whose days.")],
    first: Annotated[datetime, typer.Option("--from", formats=DAY, help="The first UTC day.")],
    last: Annotated[
        datetime | None, typer.Option("--to", formats=DAY, help="The last UTC day; default: yesterday.")
    ] = None,
    at_once: Annotated[int, typer.Option(min=1, max=16, help="Days that are built at the same time.")] = 2,
) -> None:
    """Rebuild days of a flow from what they are made of. Repeating it goes on where it broke off."""
    now = datetime.now(UTC)
    end = last.date() if last else now.date() - timedelta(days=1)
    if not first.date() <= end <= now.date():
        raise InvalidRequest({"--from": f"must not be after --to ({end}), nor --to after today ({now.date()})"})
    with operator_stores(load_settings()) as stores:
        match flow:
            case Flow.ROLL_UP:
                done = fill(stores, first.date(), end, at_once=at_once, now=now)
                days = len([part for part in done if part.batches or part.activities or part.hour_cells])
                made = f"{sum(part.activities for part in done):,} activities of {days} days"
            case Flow.RANK:
                ranked = backfill_boards(stores, first.date(), end, at_once=at_once, now=now)
                made = f"{sum(part.boards for part in ranked):,} boards of {len(ranked)} days"
    typer.echo(f"{flow}: {made}, {first.date()} to {end}")
