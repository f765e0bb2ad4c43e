"""Versions to draw with, and somebody who draws: rows and bytes as a flow writes them, without a model."""

from __future__ import annotations

import io
from dataclasses import dataclass
from uuid import UUID

import httpx
from PIL import Image

from storage.blobs.blurhashes import blurhash_of
from storage.blobs.store import BlobStore
from storage.postgres.generation import workflows
from storage.postgres.generation.drawn_models import ADAPTER_FILE
from storage.postgres.jobs import job_files, jobs, publication
from storage.records.catalog.catalog import FileHashes, FileRole, NewFile, TrainedVersion
from storage.records.catalog.vocabulary import Availability, ModelType
from storage.records.generation.drawings import PictureFormat
from storage.records.generation.resolved_workflows import ResolvedStep, read_workflow
from storage.records.jobs.jobs import Job, JobFileRole, Progress
from tests.platform_api.door import Door, photo, upload

GENERATIONS = "/api/v1/generations"
MEDIA_TYPES = {PictureFormat.PNG: "image/png", PictureFormat.JPEG: "image/jpeg", PictureFormat.WEBP: "image/webp"}
SUFFIXES = {PictureFormat.PNG: "png", PictureFormat.JPEG: "jpg", PictureFormat.WEBP: "webp"}


def drawable(door: Door, client: httpx.Client, *, adapter: bool = False, availability: str = "Private") -> int:
    """A version that was trained here, a whole model or an adapter; its number."""
    submitted = client.post("/api/v1/training-jobs", json={"dataSetId": upload(client, 2)["id"], "classWord": "mug"})
    job = door.database.run(jobs.claim(UUID(submitted.json()["id"]), 1, None))
    blob = BlobStore(door.settings.blobs).put(job.id.bytes)
    digest = blob.sha256
    hashes = FileHashes(auto_v2=digest[:10].upper(), auto_v3=digest[16:28].upper())
    facts = {"sha256": digest, "size": blob.size}
    path = ADAPTER_FILE if adapter else "model_index.json"
    new = TrainedVersion(
        model_name=f"{'adapter' if adapter else 'mug'} {str(job.id)[:8]}",
        base_model="starter",
        trained_words=("sks mug",),
        recipe=job.request,
        evaluation=None,
        availability=Availability(availability),
        type=ModelType.LORA if adapter else ModelType.CHECKPOINT,
        files=(
            NewFile(path="model.safetensors", role=FileRole.WEIGHTS, hashes=hashes, **facts),
            NewFile(path=path, role=FileRole.FOLDER, **facts),
        ),
    )
    return door.database.run(publication.publish(job.id, 1, new)).id


@dataclass
class Artist:
    """Draws submitted generations of a door."""

    door: Door

    def claim(self, job_id: str | UUID) -> Job:
        """The job, running."""
        return self.door.database.run(jobs.claim(UUID(str(job_id)), 1, None))

    def begin(self, job: Job, position: int = 0, backend: str = "local") -> None:
        """A step is given to a backend."""
        self.door.database.run(workflows.begin_step(job.id, job.attempt, position, backend))

    def put(self, job: Job, step: ResolvedStep, number: int, position: int = 0, seconds: float = 2.0) -> bytes:
        """A picture of a step, stored; returns its bytes."""
        form = step.drawing.format
        image = Image.open(io.BytesIO(photo(100 * position + number, (step.drawing.width, step.drawing.height))))
        stream = io.BytesIO()
        image.convert("RGB").save(stream, form.value.upper())
        blob = BlobStore(self.door.settings.blobs).put(stream.getvalue())
        drawn = step.drawing.images[number]
        details: dict[str, object] = {
            "step": step.name,
            "number": number,
            "seed": drawn.seed,
            "prompt": drawn.prompt,
            "width": image.width,
            "height": image.height,
            "shape": 1,
            "backend": "local",
            "blurhash": blurhash_of(image),
            "phash": "ff00ff00ff00ff00",
            "seconds": seconds,
        }
        name = f"{step.name}-{number:03d}.{SUFFIXES[form]}"
        self._put_file(job, name, JobFileRole.IMAGE, blob.sha256, blob.size, MEDIA_TYPES[form], details)
        self.door.database.run(workflows.drew(job.id, job.attempt, position, seconds))
        return stream.getvalue()

    def grid(self, job: Job, step: ResolvedStep) -> None:
        """The grid of a step, stored."""
        blob = BlobStore(self.door.settings.blobs).put(photo(7, (128, 64)))
        self._put_file(job, f"{step.name}-grid.png", JobFileRole.GRID, blob.sha256, blob.size, "image/png", {})

    def tick(self, job: Job, phase: str, step: int, total: int) -> None:
        """How far the job is, in its row."""
        self.door.database.run(jobs.heartbeat(job.id, job.attempt, Progress(phase=phase, step=step, total=total)))

    def end(self, job: Job, position: int = 0) -> None:
        """A step has all of its pictures."""
        self.door.database.run(workflows.end_step(job.id, job.attempt, position))

    def draw(self, job_id: str | UUID, seconds: float = 2.0) -> list[bytes]:
        """A whole workflow, drawn; the bytes of its pictures."""
        return self.finish(self.claim(job_id), seconds)

    def finish(self, job: Job, seconds: float = 2.0) -> list[bytes]:
        """A claimed one, drawn to its end."""
        pictures = list[bytes]()
        for position, step in enumerate(read_workflow(job.request).steps):
            self.begin(job, position)
            pictures += [self.put(job, step, number, position, seconds) for number in range(step.pictures)]
            if step.pictures > 1:
                self.grid(job, step)
            self.end(job, position)
        self.door.database.run(jobs.succeed(job.id, job.attempt, None))
        return pictures

    def _put_file(
        self, job: Job, name: str, role: JobFileRole, sha256: str, size: int, kind: str, details: dict[str, object]
    ) -> None:
        self.door.database.run(
            job_files.put_file(
                job.id, job.attempt, name=name, role=role, sha256=sha256, size=size, media_type=kind, details=details
            )
        )
