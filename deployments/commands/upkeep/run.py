"""darkroom run: a scheduled flow, now."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import typer

from deployments.local.fingerprint import PREFECT_FILE, stanzas
from flows.runs.orchestrator import Orchestrator, open_prefect
from storage.errors import NotFound
from storage.settings import load_settings


def run(
    flow: Annotated[str, typer.Argument(metavar="FLOW", help="Its name in prefect.yaml, such as reconcile.")],
) -> None:
    """Start a scheduled flow now, beside its schedule."""
    names = sorted(stanza["name"] for stanza in stanzas(PREFECT_FILE) if stanza.get("schedules"))
    if flow not in names:
        raise NotFound(f"No flow '{flow}' has a schedule. There are: {', '.join(names)}")
    settings = load_settings()
    with open_prefect(settings.prefect) as prefect:
        key = f"by-hand-{uuid4()}"
        started = Orchestrator(prefect).start(flow, key, key[:16], tags=["by-hand"])
    typer.echo(f"{flow} starts as flow run {started.name}: {settings.prefect.ui_url}/runs/flow-run/{started.id}")
