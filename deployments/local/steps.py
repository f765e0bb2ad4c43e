"""What happens between the parts: as soon as the databases are there, and as soon as Prefect's server is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg

from deployments.local.fingerprint import deploy_is_needed
from deployments.local.parts import Steps, embedded_postgres, is_embedded
from deployments.local.seed import ensure_owner, ensure_search_index, ensure_starter
from deployments.local.servers.prefect_http import prefect_http
from storage.postgres.migrating import migrate
from storage.postgres.upkeep import flow_deployments
from storage.settings import PrefectSettings, Settings

# Encoded, because psycopg's types take only bytes or a text that is written out in the code.
MISSING_SINCE = flow_deployments.SQL["missing_since"].encode()
_PAGE = 50  # Prefect deletes no more in one request


def platform_steps(settings: Settings) -> Steps:
    """The steps of the whole platform."""
    return Steps(
        databases_ready=lambda: prepare_database(settings),
        prefect_ready=lambda: delete_overdue_runs(settings.prefect),
        deploy_needed=is_embedded(settings, "prefect") and (not _has_data(settings) or deploy_is_needed(settings)),
        deploy_wanted_again=lambda since: deployments_are_missing(settings, since),
    )


def _has_data(settings: Settings) -> bool:
    """Whether Prefect's database is still the one that was deployed into."""
    return (embedded_postgres(settings).folder / "PG_VERSION").exists()


def deployments_are_missing(settings: Settings, since: float) -> bool:
    """Whether the relay has looked for deployments after `since` (seconds since the epoch) and missed some.

    Returns soon: the supervisor asks, which watches everything else meanwhile. No while Postgres does not respond.
    """
    options = "-c statement_timeout=2000"
    try:
        with psycopg.connect(
            settings.postgres.url.get_secret_value(), connect_timeout=2, options=options
        ) as connection:
            found = connection.execute(MISSING_SINCE, {"since": datetime.fromtimestamp(since, UTC)}).fetchone()
    except psycopg.Error:
        return False
    return found is not None and bool(found[0])


def prepare_database(settings: Settings) -> None:
    """The newest schema, the owner, the starter model, and an index to search in."""
    migrate(settings.postgres.url.get_secret_value())
    ensure_owner(settings)
    ensure_starter(settings)
    ensure_search_index(settings)


def delete_overdue_runs(settings: PrefectSettings) -> int:
    """Delete the runs that a schedule made and that fell due while nobody ran; returns how many.

    All of them would start at once otherwise. Runs that somebody asked for (the relay, a person) are kept.
    """
    now = datetime.now(UTC).isoformat()
    due: dict[str, Any] = {
        "state": {"name": {"any_": ["Scheduled", "Late"]}},
        "next_scheduled_start_time": {"before_": now},
    }
    deleted = 0
    with prefect_http(settings) as client:
        # All of them before the first is deleted: pages are counted from the beginning.
        ids = [run["id"] for run in _flow_runs(client, due) if run["auto_scheduled"]]
        for first in range(0, len(ids), _PAGE):
            chosen = {"id": {"any_": ids[first : first + _PAGE]}}
            response = client.post("flow_runs/bulk_delete", json={"flow_runs": chosen, "limit": _PAGE})
            deleted += len(response.raise_for_status().json()["deleted"])
    return deleted


def _flow_runs(client: httpx.Client, chosen: dict[str, Any]) -> list[dict[str, Any]]:
    """Every flow run that the filter chooses."""
    found: list[dict[str, Any]] = []
    while True:
        body = {"flow_runs": chosen, "limit": 200, "offset": len(found)}
        page = client.post("flow_runs/filter", json=body).raise_for_status().json()
        found += page
        if len(page) < 200:
            return found
