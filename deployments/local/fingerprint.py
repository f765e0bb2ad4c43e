"""Whether Prefect's deployments have changed since they were last deployed, found without importing a flow."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from deployments.local.environment import PROJECT
from deployments.local.errors import PlatformError
from storage.settings import Settings

PREFECT_FILE = PROJECT / "prefect.yaml"
OURS = (
    "deployments/local/automations.py",
    "deployments/local/deploy.py",
    "storage/records/jobs/choices.py",
    "storage/records/jobs/optimization.py",
    "storage/records/jobs/trained_parts.py",
    "storage/records/jobs/training.py",
    "storage/records/jobs/training_basics.py",
    "storage/records/jobs/training_fields.py",
    "storage/records/jobs/training_samples.py",
)
"""What else goes into a deployment; the records are the names and the fields that forms offer."""


def fingerprint(prefect_file: Path = PREFECT_FILE) -> str:
    """SHA-256 over what a deployment is made of: the file, the flows' modules, pools, automations, the version."""
    # With the version, so that an upgrade of Prefect deploys again.
    digest = hashlib.sha256(f"prefect {version('prefect')}".encode())
    modules = sorted({stanza["entrypoint"].rsplit(".", 1)[0] for stanza in stanzas(prefect_file)})
    files = [_source(module) for module in modules]
    ours = [PROJECT / name for name in OURS]
    for file in (prefect_file, *ours, *files):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def fingerprint_file(settings: Settings) -> Path:
    """Where the fingerprint of what was deployed last is kept."""
    return settings.data_folder / "run" / "deployed.sha256"


def deploy_is_needed(settings: Settings, prefect_file: Path = PREFECT_FILE) -> bool:
    """Whether something has changed since the last deploy into this data folder."""
    file = fingerprint_file(settings)
    return not file.exists() or file.read_text() != fingerprint(prefect_file)


def stanzas(prefect_file: Path) -> list[Mapping[str, Any]]:
    """The deployments that the file describes."""
    return yaml.safe_load(prefect_file.read_text())["deployments"]


def _source(module: str) -> Path:
    """The file of a module, found without importing it (its packages are empty)."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise PlatformError(f"prefect.yaml names the module {module}, which does not exist.")
    return Path(found.origin)
