"""What came of a job: files brought here, and measurements as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from deployments.client.api import Api
from deployments.client.downloads import fetch_file, safe_target
from deployments.client.responses import JobFileResponse, JobResponse, Listing, ModelResponse, Version
from deployments.commands.tables import echo_table

MEASURES = (
    ("likeness of the subject", "subjectFidelity", "cosine, the nearer to the photos' the better"),
    ("scene as prompted", "promptAccuracy", "share of images, the nearer to the base's the better"),
    ("leak into the class", "classSimilarity", "cosine, the nearer to the base's the better"),
)
"""What a reader wants to know, the evaluation's name for it, and how to read it."""


def report_training(api: Api, job: JobResponse, folder: Path) -> Path | None:
    """Report what a succeeded training job made, and save its picture grid in `folder`; returns the grid's path."""
    if job.model_version_id is None:
        typer.echo(f"job {job.id} made no model version")
        return None
    version = api.get(f"/api/v1/model-versions/{job.model_version_id}", Version)
    model = api.get(f"/api/v1/models/{version.model_id}", ModelResponse)
    typer.echo(f"\n'{model.name}' {version.name} is in the catalogue as model version {version.id}")
    show_evaluation(version)
    trigger = version.trained_words[0] if version.trained_words else model.name
    typer.echo(f'draw with it:  darkroom generate "a photo of a {trigger} on the beach" --model {version.id}')
    typer.echo(f"download it:   darkroom download {version.id}")
    if "Private" in (model.availability, version.availability):
        typer.echo(f"only you see it; show it to everybody with:  darkroom publish {model.id}")
    grids = [file for file in job_files(api, job) if file.role == "grid"]
    if not grids:
        return None
    target = (folder / f"{file_name(model.name)}-{version.name}-{str(job.id)[:8]}.png").resolve()
    fetch_file(api, grids[-1].url, target, sha256=grids[-1].sha256, size=grids[-1].size)
    return target


def print_grid(grid: Path | None) -> None:
    """Where the picture grid is, as the last line."""
    if grid is not None:
        typer.echo(f"picture grid:  {grid}")


def show_evaluation(version: Version) -> None:
    """The evaluation as a table: fine-tuned beside the base's floor and the photos' ceiling."""
    evaluation = version.evaluation or {}
    rows: list[tuple[str, ...]] = []
    for label, name, unit in MEASURES:
        if evaluation.get(name) is not None:
            row = [evaluation.get(f"{name}Base"), evaluation[name], evaluation.get(f"{name}Photos")]
            rows.append((label, *("" if value is None else f"{value:.2f}" for value in row), unit))
    if rows:
        echo_table(("", "base", "fine-tuned", "photos", ""), rows)
    elif evaluation.get("measuredBy"):
        typer.echo(str(evaluation["measuredBy"]))


def job_files(api: Api, job: JobResponse) -> Sequence[JobFileResponse]:
    """Everything the job has made, oldest first."""
    return api.get(f"{job.path}/files", Listing[JobFileResponse]).items


def save_images(api: Api, job: JobResponse, folder: Path, roles: Sequence[str] = ("image",)) -> list[Path]:
    """Bring the files of these roles that a generation made to `folder`; returns their paths."""
    saved: list[Path] = []
    for file in job_files(api, job):
        if file.role in roles:
            target = safe_target(folder, f"{str(job.id)[:8]}-{file.name}").resolve()
            fetch_file(api, file.url, target, sha256=file.sha256, size=file.size)
            saved.append(target)
    return saved


def file_name(text: str) -> str:
    """A catalogue name as a plain file name."""
    return "-".join("".join(sign if sign.isalnum() else " " for sign in text).split()) or "model"
