"""What was deployed into Prefect, and what the relay misses there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from storage.postgres.connection import Query, Script, column, load_statements, many

SQL = load_statements(__file__)


class MissingDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """A flow that was deployed and that Prefect does not know: since when, and when it was looked for last."""

    flow: str
    missing_since: datetime
    missing_at: datetime


def note(flows: Iterable[str]) -> Query[list[str]]:
    """These flows are deployed from now on, and no others."""
    return column(SQL["note"], {"flows": sorted(flows)}, str)


def compare(present: Iterable[str], wanted: Iterable[str]) -> Script[list[str]]:
    """Compare what Prefect has with what was deployed and what is `wanted` in any case; returns what is missing."""
    found = sorted(present)
    yield from column(SQL["want"], {"flows": sorted(wanted)}, str)
    rows = yield from Query(SQL["compare"], {"present": found}, list)
    return sorted(row["flow"] for row in rows if row["missing_since"] is not None)


def miss(flow: str) -> Query[list[str]]:
    """A flow was to be started and Prefect does not know it."""
    return column(SQL["miss"], {"flow": flow}, str)


def absent() -> Query[list[str]]:
    """What Prefect did not know when it was looked for last."""
    return column(SQL["absent"], {}, str)


def missing() -> Query[list[MissingDeployment]]:
    """What has been missed at two looks at least."""
    return many(SQL["missing"], {}, MissingDeployment)
