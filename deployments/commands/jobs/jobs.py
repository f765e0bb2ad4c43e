"""darkroom jobs: list, show, follow, cancel, checkpoints, delete-files, retry, rerun-stage."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import typer
from rich.console import Console

from deployments.client.api import Api, open_api
from deployments.client.responses import CheckpointResponse, JobResponse, Listing, Submitted, job_root
from deployments.commands.jobs.job_progress import display_for, find_job, follow_job
from deployments.commands.jobs.results import job_files, print_grid, report_training, save_images
from deployments.commands.tables import echo_table
from storage.records.accounts.quotas import in_units
from storage.records.jobs.jobs import RepeatedStage
from storage.settings import load_settings

app = typer.Typer(help="What was asked for, and how far it is.", no_args_is_help=True, add_completion=False)
JobId = Annotated[UUID, typer.Argument(metavar="JOB", help="A job's id.")]
PATIENCE_SECONDS = 30.0


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option("-n", min=1, max=100, help="Jobs to show.")] = 20,
    state: Annotated[str | None, typer.Option(help="Only these: submitted, running, succeeded, failed, ...")] = None,
) -> None:
    """List your jobs, newest first."""
    query: dict[str, Any] = {"limit": limit} | ({"state": state} if state else {})
    with open_api(load_settings()) as api:
        found: list[JobResponse] = []
        for kind in ("training", "generation"):
            # `limit` of each: which kind the newest are of is known only when both are here.
            found += api.get(job_root(kind), Listing[JobResponse], params=query).items
    found.sort(key=lambda job: job.submitted_at, reverse=True)
    if not found:
        typer.echo("no jobs yet. Submit one with: darkroom train FOLDER_OF_PHOTOS CLASS_WORD")
        return
    rows = [
        (job.id, job.kind, job.state, _local(job.submitted_at, "%m-%d %H:%M"), _made(job) or progress_words(job))
        for job in found[:limit]
    ]
    echo_table(("job", "kind", "state", "submitted", ""), rows)


@app.command()
def show(job_id: JobId) -> None:
    """Show everything about one job."""
    with open_api(load_settings()) as api:
        job = find_job(api, job_id)
        files = job_files(api, job)
    rows: list[tuple[str, object]] = [
        ("job", job.id),
        ("kind", job.kind),
        ("state", job.state),
        ("progress", progress_words(job)),
        ("in the queue", f"{job.queue_position} before it" if job.queue_position else ""),
        ("time left", f"about {job.estimated_seconds:.0f} s" if job.estimated_seconds and not job.ended_at else ""),
        ("submitted", _local(job.submitted_at)),
        ("started", _local(job.started_at)),
        ("ended", _local(job.ended_at)),
        ("failure", f"{job.failure.reason} ({job.failure.code})" if job.failure else ""),
        ("retry of", job.retry_of or ""),
        ("model version", job.model_version_id or ""),
        ("flow run", job.flow_run_url or ""),
        ("tracking run", job.tracking_run_url or ""),
        *_request_rows(job.request),
        *(("made", f"{file.name} ({file.role}, {file.size:,} bytes)") for file in files),
    ]
    for name, value in rows:
        if value != "":
            typer.echo(f"{name:<26}{value}")


@app.command()
def follow(job_id: JobId, out: Annotated[Path, typer.Option(help="Folder for pictures.")] = Path()) -> None:
    """Follow a job to its end, from wherever it is."""
    with open_api(load_settings()) as api:
        report(api, follow_job(api, find_job(api, job_id), display_for(Console())), out)


@app.command()
def cancel(job_ids: Annotated[list[UUID], typer.Argument(metavar="JOB...", help="Jobs to stop.")]) -> None:
    """Stop jobs: a waiting one at once, a running one at its next step. What they made is kept."""
    with open_api(load_settings()) as api:
        for job_id in job_ids:
            job = find_job(api, job_id)
            after = api.post(f"{job.path}/cancel", JobResponse)
            typer.echo(f"{job_id} is {after.state}")


@app.command()
def checkpoints(job_id: JobId) -> None:
    """List a training's checkpoints: the steps that can be published with `darkroom jobs retry JOB --step STEP`."""
    with open_api(load_settings()) as api:
        job = find_job(api, job_id)
        if job.kind != "training":
            raise typer.BadParameter(f"{job_id} draws images: it has no checkpoints")
        found = api.get(f"{job.path}/checkpoints", Listing[CheckpointResponse]).items
    if not found:
        typer.echo("no checkpoints. Let some stay with: darkroom train FOLDER CLASS_WORD --keep-every STEPS")
        return
    rows = [
        (row.step, in_units(row.size), _local(row.created_at), _local(row.kept_until) or "the job ends")
        for row in found
    ]
    echo_table(("step", "size", "made", "kept until"), rows)


@app.command("delete-files")
def delete_files(
    job_ids: Annotated[list[UUID], typer.Argument(metavar="JOB...", help="Jobs that have ended.")],
) -> None:
    """Delete what jobs made, and their checkpoints: they count no more. What was published of them stays."""
    with open_api(load_settings()) as api:
        for job_id in job_ids:
            api.delete(f"{find_job(api, job_id).path}/files")
            typer.echo(f"{job_id} has no files any more")


@app.command()
def retry(
    job_id: JobId,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as it is submitted.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for pictures.")] = Path(),
    step: Annotated[
        int | None, typer.Option(min=1, help="Publish the checkpoint of this step, which --keep-every let stay.")
    ] = None,
) -> None:
    """Submit a failed or cancelled job again; it goes on from the last checkpoint."""
    with open_api(load_settings()) as api:
        old = find_job(api, job_id)
        key = {"Idempotency-Key": str(uuid4())}
        path = f"{old.path}/retry" if step is None else f"{old.path}/retry?step={step}"
        again = api.post(path, Submitted, headers=key, patience_seconds=PATIENCE_SECONDS)
        typer.echo(f"submitted job {again.id}")
        if not detach:
            job = api.get(f"{job_root(again.kind)}/{again.id}", JobResponse)
            report(api, follow_job(api, job, display_for(Console())), out)


@app.command("rerun-stage")
def rerun_stage(
    job_id: JobId,
    stage: Annotated[RepeatedStage, typer.Argument(metavar="STAGE", help="fit, evaluate or export.")],
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as it is submitted.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for pictures.")] = Path(),
) -> None:
    """Do one stage of a training that has ended again, as a job of its own, and publish; others are found done."""
    with open_api(load_settings()) as api:
        old = find_job(api, job_id)
        key = {"Idempotency-Key": str(uuid4())}
        path = f"{old.path}/retry?stage={stage.value}"
        again = api.post(path, Submitted, headers=key, patience_seconds=PATIENCE_SECONDS)
        typer.echo(f"submitted job {again.id}")
        if not detach:
            job = api.get(f"{job_root(again.kind)}/{again.id}", JobResponse)
            report(api, follow_job(api, job, display_for(Console())), out)


def report(api: Api, job: JobResponse, folder: Path) -> None:
    """Report what a succeeded job of either kind made, and bring its pictures to `folder`."""
    if job.kind == "training":
        print_grid(report_training(api, job, folder))
        return
    for path in save_images(api, job, folder):
        typer.echo(path)


def progress_words(job: JobResponse) -> str:
    """How far a job is, in few words."""
    tick = job.progress
    if tick is None or job.ended_at is not None:
        return ""
    return f"{tick.phase} {tick.step}/{tick.total}" if tick.total else tick.phase


def _request_rows(request: dict[str, Any]) -> list[tuple[str, object]]:
    recipe = request.get("recipe", request)
    plain = {name: value for name, value in {**request, **recipe}.items() if isinstance(value, str | int | float)}
    return [(name, value) for name, value in plain.items() if not name.endswith("Hash") and value != ""]


def _made(job: JobResponse) -> str:
    return f"version {job.model_version_id}" if job.model_version_id and job.kind == "training" else ""


def _local(moment: datetime | None, shape: str = "%Y-%m-%d %H:%M:%S") -> str:
    return "" if moment is None else moment.astimezone().strftime(shape)
