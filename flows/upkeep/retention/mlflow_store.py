"""MLflow's tracking store on its database: the one way to erase a run for good without erasing anything else.

`mlflow gc` also erases every deleted experiment and logged model, whatever runs it is given, and the REST interface
only marks runs as deleted. So this reaches past both, into a private method of MLflow 3.17. Importing the store takes
1.4 s of a core, so this file is imported when there is something to erase.

Upstream: mlflow/mlflow#22725, open, asks for a route that erases one run. With it this file can go.
"""

from __future__ import annotations

from mlflow.entities import Run
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from flows.jobs.registry.artifact_files import delete_files


class MlflowStore:
    """Runs of one MLflow database, and their artifacts through its server."""

    def __init__(self, database_url: str, server_url: str) -> None:
        self._store, self._server_url = SqlAlchemyStore(database_url, "mlflow-artifacts:/"), server_url

    def read(self, run_id: str) -> Run:
        """A run as it is now, also a deleted one."""
        return self._store.get_run(run_id)

    def erase(self, run: Run) -> None:
        """Erase a run for good: its artifacts first, then its rows."""
        # Artifacts first: without its rows nobody would know where they are.
        delete_files(str(run.info.artifact_uri), self._server_url)
        self._store._hard_delete_run(run.info.run_id)  # pyright: ignore[reportPrivateUsage] - MLflow has no public way
