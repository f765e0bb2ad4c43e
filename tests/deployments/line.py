"""The command line in this process, against a real API, with somebody who plays the worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import msgspec
from typer.testing import CliRunner, Result

from deployments.cli import app
from storage.blobs.store import BlobStore
from storage.postgres.jobs import job_files, jobs, publication
from storage.records.catalog.catalog import FileRole, NewFile, TrainedVersion
from storage.records.jobs.jobs import Job, JobFileRole, JobKind, JobState, Progress
from storage.records.jobs.training import TrainingJobRequest
from storage.redis.progress import ProgressWriter
from tests.platform_api.door import Door, photo
from tests.platform_api.generation.drawing import Artist

PNG = "image/png"


@dataclass
class Worker:
    """Does what a flow does to a job's rows and bytes, without training anything."""

    door: Door
    errors: list[BaseException] = field(default_factory=list)

    def next_job(self, seconds: float = 20.0) -> Job:
        """The next submitted job, claimed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for job in self.door.database.run(jobs.list_for_account(self.door.account_id, state=JobState.SUBMITTED)):
                return self.door.database.run(jobs.claim(job.id, job.attempt, None))
            time.sleep(0.05)
        raise TimeoutError("nothing was submitted")

    def tick(self, job: Job, phase: str, step: int, total: int, loss: float | None = None) -> None:
        """Tell how far the job is, in its row and to whoever listens."""
        progress = Progress(phase=phase, step=step, total=total, loss=loss)
        self.door.database.run(jobs.heartbeat(job.id, job.attempt, progress))
        writer = ProgressWriter(self.door.settings.redis)
        writer.publish(job.id, progress)
        writer.close()

    def put_image(self, job: Job, name: str, role: JobFileRole) -> str:
        """Store a picture as a file of the job; returns its hash."""
        blob = BlobStore(self.door.settings.blobs).put(photo(len(name)))
        self.door.database.run(
            job_files.put_file(
                job.id, job.attempt, name=name, role=role, sha256=blob.sha256, size=blob.size, media_type=PNG
            )
        )
        return blob.sha256

    def publish(self, job: Job, weights: bytes = b"weights" * 100_000) -> int:
        """Publish a model version with a weights file and a folder of one file; returns its number."""
        blobs = BlobStore(self.door.settings.blobs)
        big, small = blobs.put(weights), blobs.put(b"{}")
        request = msgspec.convert(job.request, TrainingJobRequest)
        new = TrainedVersion(
            model_name=request.model_name,
            base_model=request.base_model,
            trained_words=(f"{request.recipe.identifier} {request.recipe.class_word}",),
            recipe=job.request,
            availability=request.availability,
            evaluation={"subject_fidelity": 0.81, "subject_fidelity_base": 0.42, "subject_fidelity_photos": 0.9},
            files=(
                NewFile(path="model.safetensors", role=FileRole.WEIGHTS, sha256=big.sha256, size=big.size),
                NewFile(path="folder/model_index.json", role=FileRole.FOLDER, sha256=small.sha256, size=small.size),
            ),
        )
        return self.door.database.run(publication.publish(job.id, job.attempt, new)).id

    def train(self) -> None:
        """A whole training job."""
        job = self.next_job()
        for step in (0, 4, 8):
            self.tick(job, "fit", step, 8, 0.5 / (step + 1))
            time.sleep(0.3)
        self.put_image(job, "grid.png", JobFileRole.GRID)
        self.publish(job)

    def generate(self) -> None:
        """A whole generation."""
        job = self.next_job()
        assert job.kind is JobKind.GENERATION
        Artist(self.door).finish(job)

    def fail(self) -> None:
        """A job that cannot be done."""
        job = self.next_job()
        self.door.database.run(jobs.fail(job.id, job.attempt, "out_of_memory", "Use a smaller batchSize."))

    def beside(self, work: Callable[[], None]) -> threading.Thread:
        """Do it beside the test; what goes wrong is kept in `errors`."""

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - kept for the test, which asserts that there is none
                self.errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread


@dataclass
class Line:
    """The command line with everything it speaks to."""

    door: Door
    worker: Worker
    folder: Path

    def __call__(self, *arguments: object) -> Result:
        """What `darkroom ARGUMENTS` prints, and its exit status."""
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    def with_worker(self, work: Callable[[], None], *arguments: object) -> Result:
        """The same while the worker does something."""
        thread = self.worker.beside(work)
        result = self(*arguments)
        thread.join(timeout=30)
        assert self.worker.errors == []
        return result

    def photos(self, count: int = 3) -> Path:
        """A folder of photos, and one file that is none."""
        folder = self.folder / "my mug"
        folder.mkdir(exist_ok=True)
        for number in range(count):
            (folder / f"{number}.png").write_bytes(photo(number))
        (folder / "notes.txt").write_text("the blue one")
        return folder

    def jobs(self) -> list[Job]:
        """Every job of the owner, newest first."""
        return self.door.database.run(jobs.list_for_account(self.door.account_id))

    def trained(self) -> int:
        """A published model version's number."""
        result = self.with_worker(self.worker.train, "train", self.photos(), "mug", "--yes", "--out", self.folder)
        assert result.exit_code == 0, result.output
        version = self.jobs()[0].model_version_id
        assert version is not None
        return version

    def submitted(self, *options: str) -> UUID:
        """The id of a job that nobody works on."""
        result = self("train", self.photos(), "mug", "--yes", "--detach", *options)
        assert result.exit_code == 0, result.output
        return self.jobs()[0].id
