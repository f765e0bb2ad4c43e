"""One training job at work: its recipe, its folder, its tracking run, and what the steps hand to each other."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

import msgspec
import torch
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME
from prefect.runtime import flow_run

from flows.diffusion.devices import prepare_torch
from flows.diffusion.families.lookup import family_named
from flows.diffusion.families.protocol import Components
from flows.diffusion.memory import peak_bytes, start_peak
from flows.diffusion.sampled_sets import png
from flows.jobs.kept_metrics import LAST_PART, METRICS_FILE, part_name, read_metrics
from flows.jobs.lifecycle import RunningJob
from flows.jobs.metrics_document import Point
from flows.jobs.tracking import RUN_STATUS
from flows.jobs.tracking_facts import job_params, job_tags
from flows.runs.artifacts import ArtifactBoard, image_link
from flows.training.callbacks import StepReport, Watch
from flows.training.checkpointing.room import disk_room
from flows.training.data import check_scheme
from flows.training.evaluation import Evaluation, numbers_of
from flows.training.job_checkpoints import JobCheckpoints
from flows.training.methods.frozen import FrozenTensors
from flows.training.methods.lookup import method_named
from flows.training.metrics.embedders import check_embedders
from flows.training.metrics.grid import without_photos
from flows.training.metrics.validation import ValidationGrid
from flows.training.optimizers.lookup import optimizer_named
from flows.training.photos.encodings import deferred_parts
from flows.training.tracking.job_tracking import JobTracking
from flows.training.tracking.protocol import TrackedJob
from flows.training.tracking.sample_images import draw_samples, sample_name, sample_prompts
from flows.training.tracking.step_pace import StepPace
from storage.errors import CancellationRequested, JobLost, StatementTimeout, StoreFailure, StoreUnavailable
from storage.postgres.jobs import job_files, jobs
from storage.records.jobs.jobs import JobFile, JobFileRole, JobState
from storage.records.jobs.requirements import training_request

log = logging.getLogger("darkroom.training")


class TrainingWork:
    """A plain object, so that Prefect passes it to tasks as it is and never looks inside."""

    def __init__(self, job: RunningJob, tracking: JobTracking, board: ArtifactBoard, folder: Path) -> None:
        self.job, self.tracking, self.board, self.folder, self.stores = job, tracking, board, folder, job.stores
        self.peaks: dict[str, int] = {}
        self.pace = StepPace()
        # All at once: what is unknown to this release or missing on this machine must not be found after hours.
        self.request = training_request(job.row.request)
        self.recipe = self.request.recipe
        check_scheme(self.recipe)
        self.family = family_named(self.recipe.family)
        method_named(self.recipe.method)
        optimizer_named(self.recipe.optimizer)
        check_embedders(self.stores.settings.jobs.embedders_folder)
        self.device: torch.device = prepare_torch(self.recipe.threads)
        self.room = disk_room(self.stores.settings, self.recipe, folder, lambda: self.checkpoints.stored())
        kept, every = self.recipe.keep_checkpoints, self.recipe.keep_every
        self.checkpoints = JobCheckpoints(job, folder, self.keep_metrics_part, kept, every)

    def load_components(self, folder: Path) -> Components:
        """A model folder's parts on this process's device; those that may not be needed are read when they are."""
        return self.family.load(folder, deferred_parts(self.family, self.recipe), self.recipe.held_in).to(self.device)

    def boundary(self, phase: str, done: int, total: int) -> None:
        """Between two pieces of a phase's work: report, and stop if asked to."""
        self.job.report(phase, done, total)
        self.job.check()
        self.job.reach(phase)

    @contextmanager
    def measured(self, phase: str) -> Generator[None]:
        """Note the peak of memory that the block needs, in `peaks` (bytes), in the flow run's log and in MLflow."""
        start_peak(self.device)
        try:
            yield
        finally:
            self.peaks[phase] = peak_bytes(self.device)
        gigabytes = self.peaks[phase] / 1e9
        log.info("job %s: peak memory of %s: %.2f GB on %s", self.job.id, phase, gigabytes, self.device)
        self.tracking.log(self.recipe.last_step, {f"memory_peak_gb.{phase}": gigabytes})

    def watch(self, components: Components, grid: ValidationGrid | None = None) -> Watch:
        """What the fit reports to."""

        def check(step: int) -> None:
            self.job.check()
            self.job.reach(f"fit:{step}")

        return Watch(
            on_step=self._stepped,
            check=check,
            on_sample=lambda step: self._sample(components, step),
            sampled=self._sampled,
            stopping=self.job.past_cancellation,
            measured=self._measured_in_fit,
            on_begin=lambda _: self.room.check_fit(components.folder),
            room=self.room.check_checkpoint,
            on_checkpoint=lambda pause: self.tracking.log(pause.step, pause.metrics),
            on_resumed=self.checkpoints.release_resumed,
            on_frozen=self._frozen,
            on_validation=lambda step: self._validated(components, grid, step),
        )

    def resume_metrics(self, step: int) -> None:
        """Take over what earlier attempts measured up to the checkpoint that this one starts from; of a job that
        retries another one, what that one measured."""
        points, row = self._metrics_of(self.job.id), self.job.row
        kept = bool(points)
        while step and not points and row.retry_of is not None:
            row = self.job.run(lambda retried=row.retry_of: jobs.get(retried))
            points = self._metrics_of(row.id)
        self.tracking.resume(points, up_to_step=step, kept=kept)
        self.tracking.tags({f"darkroom.attempt.{self.job.attempt}": f"from step {step}", **_flow_run_tags(self.job)})

    def _metrics_of(self, job_id: UUID) -> list[Point]:
        files = self.job.run(lambda: job_files.files(job_id))
        return self.job.with_retries(lambda: read_metrics(self.stores.blobs, files))

    def keep_metrics_part(self, step: int) -> None:
        """Store what was measured since the part before, so that MLflow's run can be filled again."""
        self.put_file(part_name(step), JobFileRole.METRICS, self.tracking.next_part(), "application/jsonl", step)

    def keep_last_metrics(self) -> None:
        """Store what was measured behind the last checkpoint of a training that fails, if its stores let it."""
        with suppress(StoreFailure, JobLost), self.job.past_cancellation():
            self.put_file(LAST_PART, JobFileRole.METRICS, self.tracking.next_part(), "application/jsonl")

    def keep_metrics(self) -> None:
        """Store every metric as one file of the job in place of its parts."""
        self.put_file(METRICS_FILE, JobFileRole.METRICS, self.tracking.document(), "application/jsonl")
        job = self.job
        job.run(lambda: job_files.forget_others(job.id, job.attempt, JobFileRole.METRICS, METRICS_FILE))

    def put_file(
        self,
        name: str,
        role: JobFileRole,
        content: bytes,
        media_type: str,
        step: int | None = None,
        details: dict[str, object] | None = None,
    ) -> JobFile:
        """Bytes, then the row of a file that the job made."""
        blob = self.job.with_retries(lambda: self.stores.blobs.put(content))
        return self.job.run(
            lambda: job_files.put_file(
                self.job.id,
                self.job.attempt,
                name=name,
                role=role,
                sha256=blob.sha256,
                size=blob.size,
                media_type=media_type,
                step=step,
                details=details,
            )
        )

    def show_evaluation(self, evaluation: Evaluation, picture: bytes) -> str:
        """The metrics and the grid, a PNG, as files of the job, in MLflow (without the photos, which may be deleted)
        and on the flow run's page; returns the grid's SHA-256."""
        metrics = msgspec.to_builtins(evaluation)
        document = json.dumps(metrics, indent=2, sort_keys=True).encode()
        self.put_file("evaluation.json", JobFileRole.EVALUATION, document, "application/json")
        file = self.put_file("grid.png", JobFileRole.GRID, picture, "image/png")
        self.tracking.file("grid.png", without_photos(picture))
        self.tracking.file("evaluation.json", document)
        metrics |= metrics.pop("standard")
        self.tracking.log(self.recipe.last_step, numbers_of(evaluation))
        link = image_link(self.stores.settings, file.job_id, file.sha256)
        self.board.image("grid", link, "Photos; base model; fine-tuned model in new scenes")
        self.board.table("figures", [{"metric": name, "value": value} for name, value in metrics.items()], "Evaluation")
        return file.sha256

    @contextmanager
    def _measured_in_fit(self, phase: str) -> Generator[None]:
        # Its own phase, since what helps a step to need less memory does not help a checkpoint to be read.
        self.job.report(phase, 0, self.recipe.last_step)
        with self.measured(phase):
            yield

    def _stepped(self, report: StepReport) -> None:
        self.pace.stepped(report.seconds)
        self.job.report("fit", report.step, report.steps, report.loss)
        self.tracking.log(
            report.step,
            {
                "loss": report.loss,
                "instance_loss": report.instance_loss,
                "prior_loss": report.prior_loss,
                "learning_rate": report.learning_rate,
                "gradient_norm": report.gradient_norm,
                "images_per_second": report.images_per_second,
                "step_seconds": report.seconds,
                "memory_peak_gb": peak_bytes(self.device) / 1e9,
                **{f"learning_rate.{name}": rate for name, rate in report.learning_rates.items()},
            },
        )
        self.board.progress(report.step / report.steps, f"fit: step {report.step} of {report.steps}")

    def _frozen(self, frozen: FrozenTensors) -> None:
        tags = {"darkroom.frozen_tensors": str(len(frozen.hashes)), "darkroom.frozen_sha256": frozen.sha256}
        self.tracking.tags(tags | {"darkroom.frozen_not_loaded": ", ".join(frozen.unread) or "none"})

    def _validated(self, components: Components, grid: ValidationGrid | None, step: int) -> None:
        # A resumed training starts from a step that may have been measured.
        if grid is not None and not self.tracking.has(f"validation_loss.{grid.sets[0].name}", step):
            self.tracking.log(step, grid.losses(components))

    def _sample(self, components: Components, step: int) -> None:
        images = draw_samples(self.family, components, self.recipe)
        for number, (prompt, image) in enumerate(zip(sample_prompts(self.recipe), images, strict=True)):
            name, content = sample_name(step, number), png(image)
            file = self.put_file(name, JobFileRole.SAMPLE, content, "image/png", step, {"prompt": prompt, "seed": 0})
            # Of one prompt under one key: MLflow then shows how it changed on a slider of steps.
            self.tracking.image(f"sample-{number}", step, content)
            if number == 0:
                link = image_link(self.stores.settings, file.job_id, file.sha256)
                self.board.image("sample", link, f"Step {step}: {prompt}")

    def _sampled(self, step: int) -> bool:
        last = sample_name(step, len(sample_prompts(self.recipe)) - 1)
        return any(file.name == last for file in self.job.run(lambda: job_files.files(self.job.id)))


@contextmanager
def training_work(job: RunningJob, board: ArtifactBoard) -> Generator[TrainingWork]:
    """A job's folder and tracking run, both put in order by how the block ends."""
    settings = job.stores.settings
    tracking = JobTracking(settings, _tracked(job))
    # Of this attempt alone: the process of an older one may not know yet that it has lost the job, and would write to
    # files that are stored as blobs by now, or take the folder away in its end.
    of_job = settings.data_folder / "work" / str(job.id)
    shutil.rmtree(of_job, ignore_errors=True)  # what killed processes left
    folder = of_job / str(job.attempt)
    folder.mkdir(parents=True)
    work: TrainingWork | None = None
    try:
        work = TrainingWork(job, tracking, board, folder)
        yield work
    except (JobLost, StoreUnavailable, StatementTimeout):  # another attempt goes on with the run
        raise
    except CancellationRequested:
        tracking.end(RUN_STATUS[JobState.CANCELLED])
        raise
    except Exception:
        if work is not None:
            work.keep_last_metrics()
        tracking.end(RUN_STATUS[JobState.FAILED])
        raise
    else:
        tracking.end(RUN_STATUS[JobState.SUCCEEDED])
    finally:
        # Also for a TerminationSignal, which is no Exception: the run stays open for the next attempt.
        tracking.close()
        shutil.rmtree(folder, ignore_errors=True)
        # Unless another attempt has its own in it.
        with suppress(OSError):
            of_job.rmdir()


def _tracked(job: RunningJob) -> TrackedJob:
    tags = {**job_tags(job.row), **_flow_run_tags(job)}
    return TrackedJob(job.id, tags[MLFLOW_RUN_NAME], job_params(job.row), tags)


def _flow_run_tags(job: RunningJob) -> dict[str, str]:
    if not flow_run.id:
        return {}
    page = f"{job.stores.settings.prefect.ui_url}/runs/flow-run/{flow_run.id}"
    return {"prefect.flow_run_id": str(flow_run.id), "prefect.flow_run_url": page}
