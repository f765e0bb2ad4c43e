"""The summary on a training's page in Prefect: what each stage took, which step was taken and why, what to do next."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from uuid import UUID

import msgspec
from prefect import get_run_logger

from flows.jobs.failures import named_failure
from flows.jobs.metrics_document import Point, read_document
from flows.runs.artifacts import image_link
from flows.training.stages.stage_runs import TrainingStages
from flows.training.work import TrainingWork
from storage.errors import CancellationRequested, JobLost, StatementTimeout, StoreFailure, StoreUnavailable
from storage.postgres.connection import Script
from storage.postgres.jobs import job_files, job_stages, jobs
from storage.records.jobs.jobs import Checkpoint, Job, JobFile, JobFileRole, Stage, StageRow
from storage.records.jobs.training import TrainingJobRequest

SUMMARY, STAGES = "summary", "stages"
LOSS_STEPS = 20
"""A step's loss is the mean over so many up to it: each one alone is mostly the noise that it drew."""
_MARKS = re.compile(r"[\[\]()<>|`*_!\\\r\n]+")


@dataclass(frozen=True)
class StageLine:
    """One stage. `seconds` and `peak_bytes` are None where nobody measured them."""

    stage: Stage
    seconds: float | None
    peak_bytes: int | None
    made_by: str

    def as_row(self) -> dict[str, object]:
        """As a row of a table, with units in its names."""
        return {
            "stage": self.stage.value,
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "peak memory (GB)": round(self.peak_bytes / 1e9, 2) if self.peak_bytes else None,
            "made by": self.made_by,
        }


@dataclass(frozen=True)
class TrainingSummary:
    """What the page says. `links` and `images`: address by text."""

    title: str
    outcome: str
    stages: Sequence[StageLine]
    choice: str = ""
    candidates: Sequence[Mapping[str, object]] = ()
    links: Mapping[str, str] = field(default_factory=dict[str, str])
    images: Mapping[str, str] = field(default_factory=dict[str, str])

    def markdown(self) -> str:
        """The whole page."""
        parts = [f"# {plain(self.title)}", self.outcome]
        if self.links:
            parts.append("\n".join(f"- [{plain(text)}]({address})" for text, address in self.links.items()))
        parts += ["## Stages", table(line.as_row() for line in self.stages)]
        if self.choice:
            parts += ["## The step that was taken", self.choice]
        if self.candidates:
            parts.append(table(self.candidates))
        if self.images:
            parts.append("## Pictures")
            parts += [f"![{plain(text)}]({address})\n\n{plain(text)}" for text, address in self.images.items()]
        return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class _JobNow:
    """What the stores say of a job."""

    row: Job
    retried: Job | None
    checkpoints: Sequence[Checkpoint]
    files: Sequence[JobFile]
    stages: Sequence[StageRow]


@contextmanager
def summarised(work: TrainingWork) -> Generator[TrainingStages]:
    """The stages of an attempt; the flow run's page gets a summary by how the block ends.

    An attempt that is followed by another one by itself leaves none.
    """
    run = TrainingStages(work)
    work.job.last_words.append(lambda error: _show(run, error))
    try:
        yield run
    except (JobLost, StoreUnavailable, StatementTimeout):
        raise
    except Exception as error:
        _show(run, error)
        raise
    else:
        _show(run, None)


def _show(run: TrainingStages, error: Exception | None) -> None:
    try:
        # Not by the job, which may have ended by now.
        now = run.work.stores.database.run(lambda: _now(run.work.job.id))
    except StoreFailure as failure:
        get_run_logger().warning("no summary: %s", type(failure).__name__)
        return
    summary = summary_of(run, now, error)
    run.work.board.markdown(SUMMARY, summary.markdown(), "What was made, what it took, and what to do next")
    run.work.board.table(STAGES, [line.as_row() for line in summary.stages], "Stages")


def _now(job_id: UUID) -> Script[_JobNow]:
    row = yield from jobs.get(job_id)
    retried = None if row.retry_of is None else (yield from jobs.get(row.retry_of))
    return _JobNow(
        row,
        retried,
        (yield from job_files.checkpoints(job_id)),
        (yield from job_files.files(job_id)),
        (yield from job_stages.of_job(job_id)),
    )


def summary_of(run: TrainingStages, now: _JobNow, error: Exception | None) -> TrainingSummary:
    """The summary of a job by how its work ended."""
    work = run.work
    steps = work.recipe.last_step
    return TrainingSummary(
        title=work.request.model_name,
        outcome=_published(run) if error is None else failed_text(work.job.id, run.current, error, now.checkpoints),
        stages=stage_lines(run, now.stages),
        choice=choice_text(work, now) if error is None else "",
        candidates=candidates(read_document(work.tracking.document()), now.checkpoints, steps),
        links=run.links,
        images=_images(work, now.files),
    )


def _published(run: TrainingStages) -> str:
    version = run.version_id
    api = run.work.stores.settings.api.public_url
    return f"Published as [model version {version}]({api}/api/v1/model-versions/{version}) of job `{run.work.job.id}`."


def failed_text(job_id: UUID, stage: Stage, error: Exception, checkpoints: Sequence[Checkpoint]) -> str:
    """Where a job ended, why, and what to do next."""
    where = f"at step {checkpoints[0].step}, its newest checkpoint" if checkpoints else "at its first step"
    again = (
        f"To go on: `darkroom jobs retry {job_id}`, or Retry on this page. Stages that have ended are not done again; "
        f"the fit goes on {where}."
    )
    if isinstance(error, CancellationRequested):
        return f"**Cancelled** in the stage `{stage}`.\n\n{again}"
    failure = named_failure(error, stage.value)
    return f"**Failed** in the stage `{stage}`: `{failure.code}`\n\n{failure}\n\n{again}"


def stage_lines(run: TrainingStages, rows: Sequence[StageRow]) -> list[StageLine]:
    """Every stage that has ended, or that this attempt was at, in their order."""
    kept = {row.stage: row for row in rows}
    lines: list[StageLine] = []
    for stage in Stage:
        if stage in run.seconds:
            lines.append(StageLine(stage, run.seconds[stage], run.peak_bytes(stage) or None, "this attempt"))
        elif stage in kept:
            row = kept[stage]
            whose = "" if row.made_by == row.job_id else f" of job {row.made_by}"
            lines.append(StageLine(stage, row.seconds, row.peak_bytes or None, f"attempt {row.attempt}{whose}"))
        elif stage is run.current:
            lines.append(StageLine(stage, None, run.peak_bytes(stage) or None, "did not end"))
    return lines


def choice_text(work: TrainingWork, now: _JobNow) -> str:
    """Which step's weights were published, and why."""
    steps = work.recipe.last_step
    kept = sorted(row.step for row in now.checkpoints if row.step != steps)
    asked = None
    if now.retried is not None:
        asked = msgspec.convert(now.retried.request, TrainingJobRequest).recipe.steps
    if now.retried is not None and asked != steps:
        text = f"Step {steps} of {asked}: it was asked for, by a retry of job `{now.retried.id}` at that step."
    else:
        text = f"Step {steps} of {steps}: the last. No other was asked for, and steps are not compared by themselves."
    if work.recipe.ema_decay > 0:
        text += f" Its weights are the average of the steps (emaDecay {work.recipe.ema_decay:g})."
    if kept:
        text += f" Others have stayed; to publish one: `darkroom jobs retry {work.job.id} --step {kept[-1]}`."
    return text


def candidates(points: Sequence[Point], checkpoints: Sequence[Checkpoint], steps: int) -> list[dict[str, object]]:
    """The steps that could be taken, with what was measured at each: the mean loss up to it, and what a validation
    measured there."""
    rows: list[dict[str, object]] = []
    for step in sorted({*(row.step for row in checkpoints), steps}):
        losses = {point.step: point.value for point in points if point.name == "loss"}
        if step not in losses:
            continue
        up_to = [value for at, value in losses.items() if step - LOSS_STEPS < at <= step]
        row: dict[str, object] = {"step": step, f"loss (mean of up to {LOSS_STEPS} steps)": round(fmean(up_to), 5)}
        for point in points:
            if point.step == step and point.name.startswith("validation"):
                row[point.name] = round(point.value, 5)
        rows.append(row)
    return rows


def _images(work: TrainingWork, files: Sequence[JobFile]) -> dict[str, str]:
    """The grid and the newest samples."""
    newest = max((file.step or 0 for file in files if file.role is JobFileRole.SAMPLE), default=0)
    shown = [file for file in files if file.role is JobFileRole.GRID]
    shown += [file for file in files if file.role is JobFileRole.SAMPLE and file.step == newest]
    found: dict[str, str] = {}
    for file in shown:
        address = image_link(work.stores.settings, file.job_id, file.sha256)
        if address is not None:
            words = f"Step {file.step}: {file.details.get('prompt', '')}"
            found[words if file.role is JobFileRole.SAMPLE else "Photos; base model; fine-tuned model"] = address
    return found


def plain(text: str) -> str:
    """Words that people have typed, without what Markdown would read in them."""
    return _MARKS.sub(" ", text).strip()


def table(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as a table of Markdown; a column for each name that any row has."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [["" if row.get(name) is None else str(row[name]) for name in names] for row in rows]
    lines = [names, ["---"] * len(names), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
