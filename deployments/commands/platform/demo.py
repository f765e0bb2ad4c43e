"""darkroom demo: the whole thing on this machine, with photos that the starter model has never seen."""

from __future__ import annotations

import secrets
import time
from http import HTTPStatus
from pathlib import Path

import httpx
import typer
from rich.console import Console

from deployments.client.api import Api, open_api
from deployments.client.photos import Photo, upload_photos
from deployments.client.responses import Version
from deployments.client.training_settings import TrainingInput
from deployments.commands.jobs.job_progress import display_for, follow_job
from deployments.commands.jobs.results import report_training
from deployments.commands.jobs.train import known_base, planned, submit_training
from deployments.commands.jobs.training_estimate import in_words, time_lines
from deployments.local.platform import start_detached
from deployments.local.seed import STARTER
from deployments.local.state import PartState, holder, read_record
from flows.starter.renderer import render_photos
from flows.starter.world import SceneSubject, held_out_subjects
from storage.errors import DarkroomError
from storage.settings import Settings, load_settings

PHOTOS = 5
UP = (PartState.HEALTHY, PartState.DONE)


class DemoIncomplete(DarkroomError):
    """The job succeeded but left no picture to show."""

    code = "demo_incomplete"


def demo() -> None:
    """Show the whole thing: photos in, a fine-tuned model and a picture grid out."""
    began, settings = time.monotonic(), load_settings()
    start_platform(settings)
    seed = secrets.randbelow(2**31)
    subjects = held_out_subjects()
    subject = subjects[seed % len(subjects)]
    folder = settings.data_folder / "demo" / time.strftime("%Y%m%d-%H%M%S")
    files = draw_photos(subject, folder / "photos", seed)
    typer.echo(f"drew {len(files)} photos of {in_english(subject)}, which the starter model has never seen")
    with open_api(settings) as api:
        grid = run_job(api, subject, files, seed, folder, settings.owner_key_file)
    typer.echo(f"\ndone in {in_words(time.monotonic() - began)}; the platform is left running. Stop it with: make down")
    typer.echo(f"  Prefect   {settings.prefect.ui_url}")
    typer.echo(f"  MLflow    {settings.mlflow.ui_url}")
    typer.echo(f"  API docs  {settings.api.public_url}/docs")
    typer.echo("The photos; the base model; the fine-tuned model in new scenes:")
    typer.echo(grid)


def start_platform(settings: Settings) -> None:
    """Have the embedded platform up with the starter model, and say what it waits for. Raises PlatformError."""
    began, console = time.monotonic(), Console()
    if holder(settings.data_folder) is None:
        typer.echo(f"starting the platform; its data is in {settings.data_folder}")
    shown: set[str] = set()
    with console.status("starting", spinner="line") as status:

        def show() -> None:
            waited_for = waiting_parts(settings.data_folder)
            if waited_for and waited_for not in shown and not console.is_terminal:
                typer.echo(f"waiting for {waited_for}")
            shown.add(waited_for)
            status.update(f"waiting for {waited_for or 'the first part'}")

        start_detached(settings, while_waiting=show)
    typer.echo(f"the platform is up ({time.monotonic() - began:.0f} s)")


def waiting_parts(folder: Path) -> str:
    """The parts of the platform that are not up yet, in words; empty before the first is started."""
    record = read_record(folder)
    if record is None or record.supervisor.process() is None:
        return ""
    return ", ".join(name for name, part in record.parts.items() if part.state not in UP)


def draw_photos(subject: SceneSubject, folder: Path, seed: int) -> list[Path]:
    """Photos of the subject in scenes by seed, as files named for their scene."""
    folder.mkdir(parents=True)
    files: list[Path] = []
    for scene, image in render_photos(subject, count=PHOTOS, seed=seed):
        file = folder / f"{scene.replace(' ', '-')}.png"
        image.save(file)
        files.append(file)
    return files


def run_job(api: Api, subject: SceneSubject, files: list[Path], seed: int, folder: Path, key_file: Path) -> Path:
    """The job through the public API, from the upload to the picture grid. Raises DemoIncomplete."""
    known_base(api, STARTER, subject.class_word)
    data_set = upload_photos(api, in_english(subject), [Photo(file, file.name) for file in files])
    wanted = {"dataSetId": str(data_set.id), "baseModel": STARTER, "classWord": subject.class_word, "seed": seed}
    job = submit_training(api, wanted, uploaded=True)
    typer.echo(f"submitted job {job.id}")
    for text in time_lines(planned(api, TrainingInput(), wanted)):
        typer.echo(text)
    ended = follow_job(api, job, display_for(Console()))
    grid = report_training(api, ended, folder)
    if grid is None or ended.model_version_id is None:
        raise DemoIncomplete(f"job {ended.id} made no picture grid. See its files: darkroom jobs show {ended.id}")
    show_privacy(api, ended.model_version_id, key_file)
    return grid


def show_privacy(api: Api, version_id: int, key_file: Path) -> None:
    """What the owner's key shows of a version, and the status without a key. Raises DemoIncomplete if that shows it."""
    path = f"/api/v1/model-versions/{version_id}"
    model_id = api.get(path, Version).model_id
    root = str(api.http.base_url).rstrip("/")
    status = httpx.get(f"{root}{path}", trust_env=False, timeout=30).status_code
    if status != HTTPStatus.NOT_FOUND:
        raise DemoIncomplete(f"model version {version_id} is private, but without a key the API returns {status}")
    typer.echo("a fine-tune is private: the owner's key shows it, anybody else reads that there is no such model")
    typer.echo(f'  curl -H "Authorization: Bearer $(cat {key_file})" {root}/api/v1/models/{model_id}     # 200')
    typer.echo(f"  curl {root}/api/v1/models/{model_id}     # 404, until: darkroom publish {model_id}")


def in_english(subject: SceneSubject) -> str:
    """The subject in words: a yellow zigzag mug with blue."""
    look = subject.look
    marks = f" with {look.mark_colour}" if look.mark_colour else ""
    return f"a {look.pattern} {look.colour} {subject.class_word}{marks}"
