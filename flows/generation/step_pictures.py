"""The pictures of a step as they are kept: bytes first, then the row and what is charged for it, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import msgspec
from PIL import Image

from flows.generation.drawn_pictures import DrawnPicture
from flows.generation.picture_requests import graph_of_picture, request_of_picture
from flows.generation.step_failures import full
from flows.jobs.lifecycle import RunningJob
from storage.blobs.blurhashes import blurhash_of
from storage.blobs.pictures.grids import MARGIN, MAX_SIDE, grid_of
from storage.blobs.pictures.perceptual_hashes import perceptual_hash
from storage.blobs.pictures.stored import stored_picture
from storage.blobs.pictures.written import write_picture
from storage.errors import BackendBroken, BlobMissing, InvalidRequest, QuotaExceeded
from storage.postgres.accounts import quotas
from storage.postgres.catalog import catalog
from storage.postgres.connection import Script
from storage.postgres.generation import source_pictures, workflows
from storage.postgres.jobs import job_files, jobs
from storage.records.catalog.variants import primary_file
from storage.records.generation.drawings import Drawing, PictureFormat
from storage.records.generation.parameters import KnownAfterwards, write_parameters
from storage.records.generation.resolved_workflows import ResolvedStep
from storage.records.generation.scheduler_names import a1111_names
from storage.records.generation.step_fields import StepOutput
from storage.records.jobs.jobs import JobFile, JobFileRole

SUFFIXES = {PictureFormat.PNG: "png", PictureFormat.JPEG: "jpg", PictureFormat.WEBP: "webp"}
MEDIA_TYPES = {form: f"image/{form.value}" for form in PictureFormat}


@dataclass(frozen=True, kw_only=True)
class StepToDraw:
    """A step whose sources are there. model_hash and adapter_hashes: what other tools know its files by."""

    position: int
    name: str
    drawing: Drawing
    source_size: tuple[int, int] = (0, 0)
    model_hash: str = ""
    adapter_hashes: dict[str, str] = field(default_factory=dict[str, str])


def pictures_of(files: Sequence[JobFile], step: str) -> dict[int, JobFile]:
    """The pictures of a step that are kept, by their numbers in it."""
    return {
        int(str(file.details["number"])): file
        for file in files
        if file.role is JobFileRole.IMAGE and file.details.get("step") == step
    }


def step_to_draw(job: RunningJob, position: int, step: ResolvedStep, files: Sequence[JobFile]) -> StepToDraw:
    """A step with the pictures of earlier ones that it goes on from. Raises BlobMissing when one of them is gone."""
    drawing = step.drawing
    if step.image is not None:
        drawing = msgspec.structs.replace(drawing, source=_output(step.image, files).sha256)
    if step.mask is not None:
        drawing = msgspec.structs.replace(drawing, mask=_output(step.mask, files).sha256)
    wanted = [one for one in (drawing.source, drawing.mask) if one]
    sizes = job.run(lambda: source_pictures.find(job.row.account_id, wanted)) if wanted else {}
    source = sizes.get(drawing.source)
    model_hash, adapter_hashes = job.run(lambda: _hashes(drawing))
    return StepToDraw(
        position=position,
        name=step.name,
        drawing=drawing,
        source_size=(source.width, source.height) if source else (drawing.width, drawing.height),
        model_hash=model_hash,
        adapter_hashes=adapter_hashes,
    )


def keep_picture(job: RunningJob, step: StepToDraw, backend: str, picture: DrawnPicture) -> JobFile:
    """Store a picture that was drawn and charge for it, once. Raises BackendBroken for one that is none of the step's,
    AccountFull, JobLost, StoreUnavailable."""
    check_picture(step, picture)
    drawing, image = step.drawing, step.drawing.images[picture.number]
    place = f"{step.name}:{picture.number}"
    job.reach(f"drawn:{place}")
    # A picture that is finished is kept, whoever wants to stop.
    with job.past_cancellation():
        content = written(step, backend, picture)
        blob = job.with_retries(lambda: job.stores.blobs.put(content))
        job.reach(f"stored:{place}")
        details: dict[str, object] = {
            "step": step.name,
            "number": picture.number,
            "seed": image.seed,
            "prompt": image.prompt,
            "width": drawing.width,
            "height": drawing.height,
            "shape": picture.shape,
            "backend": backend,
            "blurhash": blurhash_of(picture.image),
            "phash": perceptual_hash(picture.image),
            "seconds": round(picture.seconds, 3),
        }

        name = f"{step.name}-{picture.number:03d}.{SUFFIXES[drawing.format]}"

        def record() -> Script[JobFile]:
            # The job before what its account holds, as everybody takes them who changes both.
            yield from jobs.lock(job.id)
            yield from quotas.hold(job.row.account_id, job.stores.settings.quotas.limits, adding=blob.size)
            # It is carried out once more where nobody heard that it was: its seconds count once.
            earlier = pictures_of((yield from job_files.files(job.id)), step.name).get(picture.number)
            counted = float(str(earlier.details.get("seconds") or 0.0)) if earlier else 0.0
            file = yield from job_files.put_file(
                job.id,
                job.attempt,
                name=name,
                role=JobFileRole.IMAGE,
                sha256=blob.sha256,
                size=blob.size,
                media_type=MEDIA_TYPES[drawing.format],
                details=details,
            )
            yield from workflows.drew(job.id, job.attempt, step.position, picture.seconds - counted)
            return file

        try:
            file = job.run(record)
        except QuotaExceeded as error:
            raise full(step.name, error) from error
    job.reach(f"kept:{place}")
    return file


def check_picture(step: StepToDraw, picture: DrawnPicture) -> None:
    """Raises BackendBroken for a picture that was not asked for, is of another size or cannot be decoded."""
    if not 0 <= picture.number < len(step.drawing.images):
        raise BackendBroken(f"Step '{step.name}': its backend returned a picture {picture.number}, which it has not.")
    asked = (step.drawing.width, step.drawing.height)
    if picture.image.size != asked:
        sizes = "{} x {} pixels, not the {} x {}".format(*picture.image.size, *asked)
        raise BackendBroken(f"Step '{step.name}': its backend returned a picture of {sizes} that were asked for.")
    try:
        picture.image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise BackendBroken(f"Step '{step.name}': its backend returned a picture that is broken.") from error


def written(step: StepToDraw, backend: str, picture: DrawnPicture) -> bytes:
    """The file of a picture, which says how it was drawn."""
    drawing, number = step.drawing, picture.number
    sampler, schedule_type = a1111_names(drawing.scheduler)
    known = KnownAfterwards(
        sampler=sampler,
        schedule_type=schedule_type,
        batch_shape=picture.shape,
        backend=backend,
        version=version("darkroom"),
        model_hash=step.model_hash,
        adapter_hashes=step.adapter_hashes,
    )
    parameters = write_parameters(drawing, drawing.images[number], known)
    graph = graph_of_picture(drawing, number, step.source_size)
    request = request_of_picture(drawing, number, shape=picture.shape, backend=backend)
    try:
        return write_picture(picture.image, drawing.format, parameters, graph, request)
    # A JPEG has no room for the longest prompts. The picture is drawn, and the row has its prompt.
    except InvalidRequest:
        return write_picture(picture.image, drawing.format, "", graph, request)


def keep_grid(job: RunningJob, step: StepToDraw, pictures: Mapping[int, JobFile]) -> None:
    """The pictures of a step in one, where it has several. Raises JobLost, StoreUnavailable."""
    name = f"{step.name}-grid.png"
    if len(pictures) < 2:
        return
    across = next(side for side in range(1, len(pictures) + 1) if side * side >= len(pictures))
    room = (MAX_SIDE - MARGIN) // across - MARGIN
    cells: list[Image.Image] = []
    for _, file in sorted(pictures.items()):
        image = job.with_retries(lambda file=file: stored_picture(job.stores.blobs, file.sha256))
        # Sixty-four of 4,096 pixels a side would take 3 GB.
        image.thumbnail((room, room), Image.Resampling.LANCZOS)
        cells.append(image)
        job.check()
    content = write_picture(grid_of(cells), PictureFormat.PNG, "", None, {})
    blob = job.with_retries(lambda: job.stores.blobs.put(content))
    job.run(
        lambda: job_files.put_file(
            job.id,
            job.attempt,
            name=name,
            role=JobFileRole.GRID,
            sha256=blob.sha256,
            size=blob.size,
            media_type="image/png",
            details={"step": step.name},
        )
    )


def _output(output: StepOutput, files: Sequence[JobFile]) -> JobFile:
    found = pictures_of(files, output.step).get(output.image)
    if found is None:
        raise BlobMissing(f"Picture {output.image} of step '{output.step}' is gone. Draw the workflow again.")
    return found


def _hashes(drawing: Drawing) -> Script[tuple[str, dict[str, str]]]:
    """AutoV2 of the model's file and AutoV3 of the adapters', where they are versions that are still there."""
    model_hash, adapter_hashes = "", dict[str, str]()
    if drawing.model.version_id:
        file = primary_file((yield from catalog.files(drawing.model.version_id)))
        model_hash = (file.hashes.auto_v2 if file else None) or ""
    for adapter in drawing.adapters:
        file = primary_file((yield from catalog.files(adapter.version_id)))
        if file is not None and file.hashes.auto_v3:
            adapter_hashes[adapter.sha256] = file.hashes.auto_v3
    return model_hash, adapter_hashes
