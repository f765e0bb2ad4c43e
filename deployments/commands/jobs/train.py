"""darkroom train: a folder of photos in, a catalogued model out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote
from uuid import uuid4

import typer
from rich.console import Console

from deployments.client.api import Api, ApiRefusal, open_api
from deployments.client.photos import find_photos, upload_photos
from deployments.client.responses import Base, JobResponse, Submitted, job_root
from deployments.commands.jobs.job_progress import display_for, follow_job
from deployments.commands.jobs.results import print_grid, report_training
from deployments.commands.jobs.training_options import OPTION_FIELDS, with_training_options
from storage.errors import DarkroomError
from storage.settings import load_settings

SUBMIT_PATIENCE_SECONDS = 30.0


class UnknownClass(DarkroomError):
    """The base model was never shown such things."""

    code = "unknown_class"


@with_training_options
def train(
    photos: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS",
            help="Folder with 3 to 6 photos of one subject (captions in .txt files, metadata.jsonl or kohya's layout), "
            "a zip of them, or a kohya TOML.",
        ),
    ],
    class_word: Annotated[
        str, typer.Argument(metavar="CLASS_WORD", help="What the subject is, in one noun: mug, car, dog.")
    ],
    base: Annotated[str, typer.Option(help="Base model to start from; `darkroom base list` names them.")] = "starter",
    *,
    public: Annotated[bool, typer.Option("--public", help="Show the result to everybody; default: to you.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the picture grid.")] = Path(),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without asking.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as the job is submitted.")] = False,
    **training: Any,
) -> None:
    """Fine-tune a base model on photos of a subject, and follow it to the catalogued model."""
    settings = load_settings()
    found = find_photos(photos, settings.uploads.max_images)
    for reason in found.left_out:
        typer.echo(f"left out: {reason}")
    if training["identifier"] is None and found.tokens.endswith(f" {class_word}"):
        # kohya's folder names both: `10_sks mug`.
        training["identifier"] = found.tokens.removesuffix(f" {class_word}")
    wanted = {
        "baseModel": base,
        "classWord": class_word,
        **{field.json_name: training[field.name] for field in OPTION_FIELDS},
        "availability": "Public" if public else None,
    }
    with open_api(settings) as api:
        model = known_base(api, base, class_word)
        typer.echo(cost_in_time(model, training["steps"]))
        if not yes and sys.stdin.isatty() and not typer.confirm("Start?", default=True):
            raise typer.Exit(0)
        data_set = upload_photos(api, photos.resolve().stem, found.photos)
        typer.echo(f"uploaded {data_set.image_count} photos as data set {data_set.id}")
        job = submit_training(api, {**wanted, "dataSetId": str(data_set.id)})
        typer.echo(f"submitted job {job.id}")
        for warning in job.request.get("warnings", ()):
            typer.echo(f"warning: {warning}", err=True)
        if detach:
            typer.echo(f"Follow it with: darkroom jobs follow {job.id}")
            return
        ended = follow_job(api, job, display_for(Console()))
        print_grid(report_training(api, ended, out))


def known_base(api: Api, name: str, class_word: str) -> Base:
    """The base model `name`, if it knows things of that class. Raises ApiRefusal, UnknownClass."""
    base = api.get(f"/api/v1/base-models/{quote(name, safe='')}", Base)
    if base.class_words and class_word not in base.class_words:
        raise UnknownClass(
            f"base model '{name}' does not know '{class_word}'. It knows: {', '.join(base.class_words)}.\n"
            "For anything else register a real base, for example a Stable Diffusion 1.5 folder:\n"
            "  darkroom base add FOLDER --name sd15, then add --base sd15"
        )
    return base


def cost_in_time(base: Base, steps: int | None) -> str:
    """What a job will take on this machine, in words."""
    count = steps or base.training.steps
    if base.seconds_per_step is None:
        return f"{count} steps on '{base.name}'; no measurement of its pace yet: the first job makes one."
    return f"{count} steps on '{base.name}': about {in_words(base.seconds_per_step * count)}, as earlier jobs went."


def in_words(seconds: float) -> str:
    """A duration for a person: 45 s, 3 min, 2 h 10 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def submit_training(api: Api, wanted: dict[str, Any]) -> JobResponse:
    """Submit once, however often the connection breaks. When it is refused the photos are deleted again."""
    body = {name: value for name, value in wanted.items() if value is not None}
    key = {"Idempotency-Key": str(uuid4())}
    try:
        submitted = api.post(
            job_root("training"), Submitted, json=body, headers=key, patience_seconds=SUBMIT_PATIENCE_SECONDS
        )
    except ApiRefusal:
        # Whatever the response to this is: the refusal is what counts.
        api.http.delete(f"/api/v1/data-sets/{body['dataSetId']}")
        raise
    return api.get(f"{job_root('training')}/{submitted.id}", JobResponse)
