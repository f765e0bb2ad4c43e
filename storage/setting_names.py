"""Names of settings in the environment: which there are, and what became of one that is not there (any more)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

PREFIX = "DARKROOM_"
MARKS = frozenset({"DARKROOM_PLATFORM_FOLDER", "DARKROOM_PLATFORM_PART"})
"""What `darkroom up` marks the processes of a platform with; no settings."""
OF_SERVERS = frozenset({"DARKROOM_DB_PASSWORD", "DARKROOM_VALKEY_PASSWORD"})
"""What compose.yaml makes addresses of, and gives the servers themselves; no settings either."""
RENAMED = {"DARKROOM_JOBS__MAX_SILENT_HAND_OUTS": "DARKROOM_JOBS__MAX_SILENT_ATTEMPTS"}
"""Settings that have another name now."""
SERVICE_LINK = "is a link to a service of Kubernetes, no setting (write enableServiceLinks: false into the pod's spec)"
"""The advice about what Kubernetes gives every container of a namespace with a service that is named darkroom-..."""


def unknown_names(variables: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """The variables of our prefix that are no setting, each with what to do about it.

    known: names of all settings, in upper case. Names are compared without regard to case, as settings are read.
    """
    # pydantic-settings looks only for the names that it knows: it would pass over all others without a word.
    ours = {name.upper() for name in variables if name.upper().startswith(PREFIX)}
    unknown = sorted(ours - set(known) - MARKS - OF_SERVERS)
    links = _service_links(unknown)
    return {name: SERVICE_LINK if name in links else _advice(name, known) for name in unknown}


def _service_links(unknown: Collection[str]) -> set[str]:
    # A service NAME has NAME_SERVICE_HOST among its variables. Of the others, NAME_PORT looks like a misspelt setting.
    services = [name.removesuffix("_SERVICE_HOST") for name in unknown if name.endswith("_SERVICE_HOST")]
    begins = tuple(f"{service}_{kind}" for service in services for kind in ("SERVICE_", "PORT"))
    return {name for name in unknown if name.startswith(begins)}


def _advice(name: str, known: Collection[str]) -> str:
    if name in RENAMED:
        return f"is called {RENAMED[name]} now"
    ends = [other.removeprefix(PREFIX) for other in known]
    close = get_close_matches(name.removeprefix(PREFIX), ends, n=1, cutoff=0.75)
    return f"is no setting (did you mean {PREFIX}{close[0]}?)" if close else "is no setting (remove it)"
