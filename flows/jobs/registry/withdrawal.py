"""Versions that were deleted or taken down, out of MLflow: the registry's entry, and the bytes that it had of them."""

from __future__ import annotations

from uuid import UUID

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flows.jobs.registry.artifact_files import delete_files
from flows.jobs.tracking import EXPERIMENT, JOB_TAG, experiment_named

ALIAS = "current"
"""The registry's name for a model's newest version: MLflow keeps the word latest to itself."""


def withdraw(client: MlflowClient, registered_as: str, job_id: UUID, server_url: str) -> None:
    """Delete a version's files in MLflow, an adapter's weights among them, then its logged model and its entry.

    Repeating it changes nothing, also after a death within it. Raises MlflowException and its kin.
    """
    wanted = f"tags.`{JOB_TAG}` = '{job_id}'"
    for logged in client.search_logged_models([experiment_named(client, EXPERIMENT)], wanted):
        # First: MLflow only marks a logged model as deleted, and what it has of it stays.
        delete_files(logged.artifact_location, server_url)
        client.delete_logged_model(logged.model_id)
    name = registered_as.rsplit("/", 1)[0]
    # Those of this job alone: another installation may have an equal name in a registry that they share.
    for version in client.search_model_versions(f"name = '{name}' and {wanted}"):
        client.delete_model_version(name, version.version)
    _tidy(client, name)


def _tidy(client: MlflowClient, name: str) -> None:
    """Let the alias be the newest version that is left; a model without any goes, with its name and description."""
    left = client.search_model_versions(f"name = '{name}'")
    if left:
        client.set_registered_model_alias(name, ALIAS, max(left, key=lambda one: int(one.version)).version)
        return
    try:
        client.delete_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
