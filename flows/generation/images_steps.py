"""The steps of generate-images: one workflow, and one step of it as a task of Prefect. The loop is in
running_workflows.py."""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterator
from contextlib import closing, contextmanager
from contextvars import copy_context

import msgspec
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Cancelled, Pending

from flows.generation.backends.lookup import open_backends
from flows.generation.backends.selection import BackendSelection
from flows.generation.drawn_pictures import DrawnPicture
from flows.generation.running_workflows import EndedWorkflow, RunningWorkflows
from flows.generation.step_failures import BackendPatience, GivesWay, Postponed, SourceGone, refused
from flows.generation.step_pictures import StepToDraw, keep_grid, keep_picture, pictures_of, step_to_draw
from flows.generation.step_progress import StepProgress, whole
from flows.generation.workflow_tracker import WorkflowTracker
from flows.jobs.job_group import JobGroup
from flows.jobs.lifecycle import RunningJob
from flows.jobs.stalls import StallLimit, stopped_when_stalled
from flows.runs.artifacts import ArtifactBoard, image_link
from flows.runs.draining_flows import DrainLock
from flows.runs.retries import task_retries
from flows.runs.run_logs import run_logger
from storage.errors import (
    BackendBroken,
    BackendRefused,
    BackendUnavailable,
    BlobCorrupted,
    BlobMissing,
    JobLost,
    StoreUnavailable,
)
from storage.postgres.connection import Script
from storage.postgres.generation import workflows
from storage.postgres.generation.workflow_submissions import adopted
from storage.postgres.jobs import job_files, jobs
from storage.postgres.metrics import activity
from storage.records.generation.drawings import Drawing
from storage.records.generation.resolved_workflows import ResolvedWorkflow
from storage.records.generation.workflow_rows import StepState, WorkflowStep
from storage.records.jobs.jobs import Job, JobState, Progress
from storage.records.metrics.activity import Counted, Metric
from storage.stores import Stores

LOOK_SECONDS = 15.0
"""How often backends are asked what they are and whether they respond."""
TABLE_ROWS = 500
"""The newest workflows of a run that its page shows."""


class WorkflowArtist:
    """What draws the workflows of one flow run: the backends, and the page on which their pictures are shown."""

    def __init__(self, selection: BackendSelection, board: ArtifactBoard) -> None:
        self.selection, self.board = selection, board

    def draw(self, job: RunningJob) -> int:
        """Draw a claimed workflow to its end, or until what could draw it does not respond, or it gives way: then it is
        submitted again, and its place is free. Returns how many pictures were drawn now.

        Raises InvalidRequest for a request that this release cannot read, and what `draw_step` raises.
        """
        job.reach("claimed")
        workflow = job.run(lambda: adopted(job.row, job.stores.settings))
        pictures = 0
        for position, step in enumerate(workflow.steps):
            named = draw_step.with_options(task_run_name=f"{str(job.id)[:8]}/{step.name}")
            drawn, postponed = named(self, job, workflow, position)
            pictures += drawn
            if postponed is not None:
                self._postpone(job, postponed)
                return pictures
        job.reach("workflow-drawn")
        job.progress = whole(workflow.steps[-1])
        try:
            job.run(lambda: succeed(job, workflow))
        except JobLost:
            # Cancelled behind its last picture: it ends as cancelled.
            job.noticed(job.run(lambda: jobs.get(job.id)))
            job.check()
            raise
        return pictures

    def _postpone(self, job: RunningJob, postponed: Postponed) -> None:
        log = run_logger("darkroom.generation")
        log.warning("job %s: again in %.0f s: %s", job.id, postponed.pause, postponed.reason)
        with job.past_cancellation():
            row = job.run(lambda: workflows.postpone(job.id, job.attempt, postponed.pause, postponed.tries))
        ended = row.state is JobState.CANCELLED
        message = f"Job {job.id} was cancelled." if ended else f"Job {job.id} waits: {postponed.reason}"
        job.outcome = Cancelled(message=message) if ended else Pending(name="Postponed", message=message)


def draw_due(stores: Stores, board: ArtifactBoard, lock: DrainLock | None = None) -> list[EndedWorkflow]:
    """Draw every workflow that is due until none has been for a while; returns what became of them.

    lock: of the one run that draws; kept while it does, and released before it tells MLflow of the last ones.

    Raises StoreUnavailable when Postgres is unavailable for too long, and JobStalled when nothing happens at all.
    """
    with WorkflowTracker(stores) as tracker:
        with open_artist(stores, board) as artist, JobGroup(stores) as group:
            running = RunningWorkflows(stores, group, artist.draw, tracker.add, lock)
            minutes = stores.settings.jobs.stall_minutes
            limit = StallLimit(minutes * 60, lambda: Progress(phase="draw"), lambda _error: group.abandon())
            with stopped_when_stalled(limit):
                running.run()
        if lock is not None:
            lock.release()
    if running.done:
        rows = [msgspec.to_builtins(one) for one in running.done[-TABLE_ROWS:]]
        board.table("workflows", rows, "The workflows that this run has drawn")
    return running.done


@contextmanager
def open_artist(stores: Stores, board: ArtifactBoard) -> Generator[WorkflowArtist]:
    """The backends of the settings, asked now and then whether they respond; closed at the end of the block."""
    selection, ended = BackendSelection(stores, open_backends(stores)), threading.Event()

    def look_on() -> None:
        while not ended.wait(LOOK_SECONDS):
            selection.look()

    # Before the first workflow: a backend that does not respond takes its time-out to notice, and holds up no loop.
    looking = threading.Thread(
        target=copy_context().run, args=(lambda: (selection.look(), look_on()),), name="backends", daemon=True
    )
    looking.start()
    try:
        yield WorkflowArtist(selection, board)
    finally:
        ended.set()
        selection.close()


# Prefect would hash the arguments of a task for its cache and pickle its result: these are threads and connections.
# What is unavailable is waited for in the task, where a cancellation is noticed; retries are for what outlasts that.
@task(
    name="draw-step",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=[1, 3, 9],
    retry_jitter_factor=0.3,
    retry_condition_fn=task_retries,
)
def draw_step(
    artist: WorkflowArtist, job: RunningJob, workflow: ResolvedWorkflow, position: int
) -> tuple[int, Postponed | None]:
    """Draw what is missing of a step, and keep each picture as it comes; returns how many, and why the rest has to wait
    if it has.

    Raises StepRefused, SourceGone and BackendsUnavailable, BackendBroken, what stops the job, StoreUnavailable.
    """
    step = workflow.steps[position]
    row = job.run(lambda: workflows.steps_of_jobs([job.id]))[position]
    if row.state is StepState.SUCCEEDED:
        return 0, None
    files = job.run(lambda: job_files.files(job.id))
    try:
        work = step_to_draw(job, position, step, files)
        drawing = StepDrawing(artist, job, workflow, work, row)
        postponed = drawing.draw(pictures_of(files, step.name).keys())
    except BackendRefused as error:
        raise refused(step.name, error) from error
    except (BlobMissing, BlobCorrupted) as error:
        raise SourceGone(f"Step '{step.name}': {error}") from error
    if postponed is not None:
        return drawing.drew, postponed
    files = job.run(lambda: job_files.files(job.id))
    keep_grid(job, work, pictures_of(files, step.name))
    job.reach(f"step-drawn:{step.name}")
    job.run(lambda: _end(job, position, row))
    job.reach(f"step-ended:{step.name}")
    return drawing.drew, None


class StepDrawing:
    """One step while it is drawn."""

    def __init__(
        self, artist: WorkflowArtist, job: RunningJob, workflow: ResolvedWorkflow, work: StepToDraw, row: WorkflowStep
    ) -> None:
        self._artist, self._job, self._work = artist, job, work
        self._urgency, self._only = workflow.priority.lane, workflow.steps[work.position].backend
        self._backend = row.backend
        minutes = job.stores.settings.generation.unavailable_minutes
        self._patience = BackendPatience(work.name, minutes, job.run(lambda: workflows.failed_tries(job.id)))
        self.drew = 0

    def draw(self, kept: Collection[int]) -> Postponed | None:
        """Draw all pictures but those that are kept. Returns why the rest has to wait, where what can draw them does
        not respond or another account has to be let in. For a store that does not it waits here, and tries again."""
        drawing, done = self._work.drawing, set[int](kept)
        wanted = [number for number in range(len(drawing.images)) if number not in done]
        progress = StepProgress(self._job, self._work.name, drawing, done)
        while wanted:
            try:
                for backend, picture in self._pictures(drawing, progress, wanted):
                    self._keep(backend, picture, wanted)
                    progress.kept(picture.number)
                    self.drew += 1
                if wanted:
                    left = ", ".join(map(str, wanted))
                    raise BackendBroken(f"Step '{self._work.name}': its backend ended without its pictures {left}.")
            # Caught here, since Prefect would show its task as crashed.
            except GivesWay as error:
                return Postponed(str(error), 0.0, self._patience.tries)
            except BackendUnavailable as error:
                return Postponed(str(error), self._patience.pause_after(error), self._patience.tries)
            except StoreUnavailable as error:
                pause = self._patience.pause_after(error)
                run_logger("darkroom.generation").warning(
                    "job %s, step %s: again in %.0f s: %s: %s",
                    *(self._job.id, self._work.name, pause, error.code, error),
                )
                self._job.wait(pause)
        return None

    def _pictures(
        self, drawing: Drawing, progress: StepProgress, wanted: list[int]
    ) -> Iterator[tuple[str, DrawnPicture]]:
        found = self._artist.selection.draw(
            drawing,
            progress.callbacks(),
            key=f"{self._job.id}:{self._work.name}",
            wanted=tuple(wanted),
            urgency=self._urgency,
            only=self._only,
            held_by=self._backend,
            begins=self._begins,
        )
        # Who leaves the loop cancels the rest.
        with closing(found):
            yield from found

    def _begins(self, backend: str) -> None:
        job = self._job
        job.run(lambda: workflows.begin_step(job.id, job.attempt, self._work.position, backend))
        self._backend = backend
        self._patience.begins()
        job.reach(f"step-begun:{self._work.name}")

    def _keep(self, backend: str, picture: DrawnPicture, wanted: list[int]) -> None:
        if picture.number not in wanted:
            raise BackendBroken(
                f"Step '{self._work.name}': its backend returned picture {picture.number}, which was not asked for."
            )
        file = keep_picture(self._job, self._work, backend, picture)
        wanted.remove(picture.number)
        job = self._job
        if self._patience.drew():
            job.run(lambda: workflows.settle(job.id))
        link = image_link(job.stores.settings, job.id, file.sha256)
        self._artist.board.image(f"workflow-{str(job.id)[:8]}", link, f"{job.id} {file.name}")


def succeed(job: RunningJob, workflow: ResolvedWorkflow) -> Script[Job]:
    """End a workflow, and with it count a generation of each version that it drew with. Raises JobLost."""
    # First, because it refuses an attempt that is not the job's any more; then nothing is counted either.
    yield from jobs.heartbeat(job.id, job.attempt, job.progress)
    ended = yield from jobs.succeed(job.id, job.attempt, None)
    for version_id in versions_of(workflow):
        yield from activity.count_one("generations", Counted.VERSION, version_id, Metric.GENERATION)
    return ended


def versions_of(workflow: ResolvedWorkflow) -> list[int]:
    """The versions that a workflow draws with, models and adapters, each once."""
    named = {
        version_id
        for step in workflow.steps
        for version_id in (step.drawing.model.version_id, *(one.version_id for one in step.drawing.adapters))
    }
    # 0: what no version is, such as the base of an adapter.
    return sorted(named - {0})


def _end(job: RunningJob, position: int, row: WorkflowStep) -> Script[None]:
    # One whose pictures were all there was given to no backend.
    if row.state is StepState.WAITING:
        now = (yield from workflows.steps_of_jobs([job.id]))[position]
        if now.state is StepState.WAITING:
            yield from workflows.begin_step(job.id, job.attempt, position, None)
    yield from workflows.end_step(job.id, job.attempt, position)
