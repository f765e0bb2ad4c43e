"""What fault tests do to a platform: submit through the public API, arm points, wait, look at what is left."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx

from deployments.base_models.registration import add_base_model
from flows.jobs.tracking import JOB_TAG, tracking_client
from flows.starter.networks import write_tiny_model
from flows.starter.renderer import render_photos
from flows.starter.world import SceneSubject, held_out_subjects
from flows.upkeep.reconcile import check_invariants
from storage.postgres.jobs import jobs
from storage.records.jobs.jobs import Job
from storage.stores import open_stores
from tests.deployments.platform import Platform

PATIENCE_SECONDS = 900.0
ENDED = {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True)
class Points:
    """Named points in the flows, each a file: there, it is passed; gone, it acts once."""

    folder: Path

    def file(self, point: str) -> Path:
        """The file of a point."""
        return self.folder / point.replace(":", "-")

    def arm(self, *points: str) -> None:
        """Make points act the next time they are reached."""
        for point in points:
            self.file(point).unlink(missing_ok=True)

    def disarm(self, point: str) -> None:
        """Let processes pass a point, also one that is held there now."""
        self.file(point).write_text("go")

    def was_reached(self, point: str) -> bool:
        """Whether an armed point has acted."""
        return self.file(point).exists()


def add_tiny_base(platform: Platform, folder: Path) -> None:
    """Write a tiny random model into `folder` and register it as base model tiny.

    As `darkroom base add` does, but in this process, which has torch already.
    """
    write_tiny_model(folder / "tiny", seed=1)
    with open_stores(platform.settings) as stores:
        add_base_model(stores, folder / "tiny", "tiny")


class Bench:
    """A platform and a client of it."""

    def __init__(self, platform: Platform, points: Points) -> None:
        self.platform, self.points = platform, points
        headers = {"Authorization": f"Bearer {platform.key}"}
        self.client = httpx.Client(base_url=f"{platform.api_url}/api/v1", headers=headers, timeout=30)
        self._data_set: str | None = None
        self.straight_job: str | None = None

    def data_set(self) -> str:
        """Photos of one held-out subject, uploaded once."""
        if self._data_set is None:
            self._data_set = self.upload(held_out_subjects()[0], seed=5)
        return self._data_set

    def upload(self, subject: SceneSubject, seed: int) -> str:
        """Upload photos of a held-out subject; returns the data set's id."""
        files: list[tuple[str, tuple[str, bytes, str]]] = []
        for number, (_, photo) in enumerate(render_photos(subject, count=4, seed=seed)):
            content = io.BytesIO()
            photo.save(content, "PNG")
            files.append(("files", (f"{number}.png", content.getvalue(), "image/png")))
        response = self.client.post("/data-sets", files=files)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def starter_defaults(self) -> dict[str, Any]:
        """A request on the starter model with everything left to its own defaults, but a fixed seed."""
        return {"baseModel": "starter", "steps": None, "checkpointEvery": None, "sampleEvery": None, "seed": 1}

    def model_version(self, job_id: str) -> dict[str, Any]:
        """What a succeeded job published."""
        response = self.client.get(f"/model-versions/{self.job(job_id)['modelVersionId']}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def request(self, **fields: object) -> dict[str, object]:
        """A small training request on the tiny base model."""
        return {
            "dataSetId": self.data_set(),
            "classWord": held_out_subjects()[0].class_word,
            "baseModel": "tiny",
            "steps": 8,
            "checkpointEvery": 2,
            "sampleEvery": 4,
            "seed": 11,
        } | fields

    def submit(self, *, key: str | None = None, **fields: object) -> str:
        """Submit a training job; returns its id."""
        headers = {"Idempotency-Key": key or uuid4().hex}
        response = self.client.post("/training-jobs", json=self.request(**fields), headers=headers)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """A job as the API shows it; patient while the API is unavailable."""
        for _ in range(200):
            try:
                response = self.client.get(f"/training-jobs/{job_id}")
            except httpx.TransportError:
                time.sleep(0.3)
                continue
            if response.status_code == 200:
                return dict(response.json())
            assert response.status_code == 503, response.text
            time.sleep(0.3)
        raise AssertionError("the API stayed away")

    def wait_for(self, what: str, true: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"waited too long for {what}\n{self.platform.output[-6000:]}"
            time.sleep(0.2)

    def wait_for_end(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended."""
        self.wait_for(f"the end of {job_id}", lambda: self.job(job_id)["state"] in ENDED)
        return self.job(job_id)

    def hold(self, point: str) -> None:
        """Wait until a flow's process is held at an armed point."""
        self.wait_for(point, lambda: self.points.was_reached(point))

    def weights(self, job_id: str) -> dict[str, str]:
        """The SHA-256 of every file that a succeeded job published, by path."""
        job = self.wait_for_end(job_id)
        assert job["state"] == "succeeded", job
        files = {file["path"]: file["sha256"] for file in self.model_version(job_id)["storedFiles"]}
        assert any(path.endswith(".safetensors") for path in files)
        return files

    def tracking_runs(self, job_id: str) -> list[Any]:
        """MLflow's runs of a job."""
        client = tracking_client(self.platform.settings)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(experiments, f"tags.`{JOB_TAG}` = '{job_id}'"))

    def row(self, job_id: str) -> Job:
        """The job's row, with what the API does not show."""
        with open_stores(self.platform.settings) as stores:
            return stores.database.run(jobs.get(UUID(job_id)))

    def faults(self) -> list[str]:
        """Everything that is wrong between the stores now; `darkroom check` asks the same."""
        with open_stores(self.platform.settings) as stores:
            return check_invariants(stores)
