"""Files that MLflow keeps beside a run or a logged model, deleted for good.

MLflow's client has no call that deletes artifacts of a given place, so this reaches into a module that MLflow does not
document. Upstream: mlflow/mlflow#22725, open, asks for a route that erases one run with its files.
"""

from __future__ import annotations

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository


def delete_files(place: str, server_url: str) -> None:
    """Delete everything at an artifact location, through MLflow's server. Raises MlflowException and its kin."""
    get_artifact_repository(place, server_url).delete_artifacts()
