"""A job that cannot fit its machine fails by name in its first minute, before its class images are drawn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flows.training.dreambooth import train_dreambooth
from storage.postgres.jobs import job_files
from storage.records.jobs.jobs import JobFileRole, JobState
from storage.stores import Stores
from tests.flows.training.test_dreambooth import end_of, environment, settings, submit

__all__ = ["environment", "settings"]


@pytest.mark.usefixtures("environment")
def test_a_job_that_cannot_fit_fails_with_what_to_change(stores: Stores, tiny_model: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    card = json.loads((base / "darkroom.json").read_text()) if (base / "darkroom.json").exists() else {}
    (base / "darkroom.json").write_text(json.dumps({**card, "resolution": 2**18}))
    job = submit(stores, base)

    assert train_dreambooth(job.id, 1, return_state=True).is_failed()

    row = end_of(stores, job.id)
    assert (row.state, row.failure_code) == (JobState.FAILED, "does_not_fit")
    assert (row.failure_reason or "").startswith("Training needs about ")
    assert "To reduce it: splitBackward: true (saves " in (row.failure_reason or "")
    files = stores.database.run(job_files.files(job.id))
    assert {file.role for file in files} <= {JobFileRole.METRICS}  # nothing was drawn
