"""`python -m deployments.prepare`: what real servers need once, and again after an upgrade. Repeatable.

The schema, the bucket or folder of the blobs, the owner's account and key, the starter model, and Prefect's work
pools, deployments and automations. `darkroom up` does the same for the embedded platform as it starts.
"""

from __future__ import annotations

import typer

from deployments.local.deploy import deploy_all
from deployments.local.platform import prepare_data_folder
from deployments.local.steps import prepare_database
from deployments.restore.database_mark import finish
from storage.blobs.store import BlobStore
from storage.settings import load_settings


def main() -> None:
    """Prepare every store that the settings name."""
    settings = load_settings()
    # First: it refuses a data folder that is half restored, before anything is written there.
    finish(settings)
    prepare_data_folder(settings.data_folder)
    BlobStore(settings.blobs).make_root()
    prepare_database(settings)
    typer.echo(f"The schema is the newest, and the owner's key is in {settings.owner_key_file}.")
    deploy_all(settings)
    typer.echo(f"Prefect at {settings.prefect.api_url} has every deployment.")


if __name__ == "__main__":
    main()
