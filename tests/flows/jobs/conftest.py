"""Jobs whose runs are tracked by a real MLflow."""

from __future__ import annotations

import pytest

from storage.settings import MlflowSettings, Settings


@pytest.fixture
def tracked(settings: Settings, mlflow_settings: MlflowSettings) -> Settings:
    settings.mlflow = mlflow_settings
    return settings
