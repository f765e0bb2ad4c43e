"""generate-images draws every workflow that is due: each picture once, whatever its backend does."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from deployments.local.environment import settings_environment
from flows.generation import images_steps, step_failures
from flows.generation.drawn_pictures import DrawnPicture
from flows.generation.images import generate_images
from flows.jobs.tracking import JOB_TAG, tracking_client
from flows.runs.artifacts import ArtifactBoard
from storage.blobs.pictures.read import read_picture
from storage.errors import BackendRefused, BackendUnavailable, OutOfMemory
from storage.postgres.accounts import accounts, quotas
from storage.postgres.connection import Query
from storage.postgres.generation import workflows
from storage.postgres.jobs import job_files, jobs
from storage.records.generation import circuits
from storage.records.generation.drawings import Drawing, Operation, PictureFormat
from storage.records.generation.step_fields import StepOutput
from storage.records.generation.workflow_rows import StepState
from storage.records.jobs.jobs import Job, JobFileRole, JobState, Progress
from storage.settings import Settings
from storage.stores import Stores
from tests.flows.generation.bench import (
    ToyBackend,
    a_step,
    a_workflow,
    charge_of,
    pictures,
    plain_picture,
    row_of,
    steps_of,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("environment")

HIRES = (
    a_step("base", 5, 6, format=PictureFormat.JPEG),
    a_step("large", 9, operation=Operation.IMG2IMG, image=StepOutput(step="base", image=1)),
)


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Runs end at once when nothing is due, and failed tries are repeated at once."""
    settings.generation.linger_seconds = 0.0
    monkeypatch.setattr(step_failures, "FIRST_PAUSE_SECONDS", 0.01)
    return settings


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ToyBackend:
    """What draws for the flow."""
    toy = ToyBackend()
    monkeypatch.setattr(images_steps, "open_backends", lambda _stores: {"local": toy})
    return toy


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps as plain functions, without Prefect, and workflows without runs in MLflow."""
    step = images_steps.draw_step.fn
    monkeypatch.setattr(images_steps, "draw_step", SimpleNamespace(with_options=lambda **_: step))
    monkeypatch.setattr(images_steps, "WorkflowTracker", lambda _: nullcontext(SimpleNamespace(add=lambda: None)))


@pytest.fixture
def mlflow(tracked: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A real MLflow for the flow's own process."""
    for name, value in settings_environment(tracked).items():
        monkeypatch.setenv(name, value)
    return tracked


def draw_due(stores: Stores) -> int:
    """What the flow does, without the second that a flow run takes; returns how many pictures."""
    # A board whose sender is not begun shows nothing.
    return sum(one.pictures for one in images_steps.draw_due(stores, ArtifactBoard()))


def counted(stores: Stores) -> list[dict[str, Any]]:
    """The generations that were counted."""
    query = "select entity_id, metric::text, amount from activity"
    return [dict(row) for row in stores.database.run(Query(query, {}, list))]


@pytest.mark.usefixtures("prefect")
def test_a_workflow_is_drawn_stored_charged_counted_and_tracked(
    stores: Stores, backend: ToyBackend, mlflow: Settings
) -> None:
    job = a_workflow(stores.database, *HIRES)

    assert generate_images() == 3

    row, steps = row_of(stores.database, job), steps_of(stores.database, job)
    assert (row.state, row.flow_run_id is not None) == (JobState.SUCCEEDED, True)
    assert [(step.state, step.tries, step.backend, step.seconds) for step in steps] == [
        (StepState.SUCCEEDED, 1, "local", 1.0),
        (StepState.SUCCEEDED, 1, "local", 0.5),
    ]
    assert charge_of(stores.database, job).charged == 6
    assert counted(stores) == [{"entity_id": 1, "metric": "generation", "amount": 1}]
    made = pictures(stores.database, job)
    assert [(one.name, one.media_type) for one in made] == [
        ("base-000.jpg", "image/jpeg"),
        ("base-001.jpg", "image/jpeg"),
        ("large-000.png", "image/png"),
    ]
    assert backend.drawings[1].source == made[1].sha256, "the stored bytes are what the next step goes on from"
    assert_described(stores, made[2], made[1].sha256)
    [grid] = [one for one in stores.database.run(job_files.files(job.id)) if one.role is JobFileRole.GRID]
    assert (grid.name, grid.details) == ("base-grid.png", {"step": "base"})
    assert row.progress == Progress(phase="large", step=2, total=2)
    assert_tracked_once(stores, mlflow, row)


def assert_described(stores: Stores, file: Any, source: str) -> None:
    """A picture and its row say how it was drawn."""
    facts = read_picture(stores.blobs.read(file.sha256))
    assert facts.request == {
        "operation": "img2img",
        "backend": "local",
        "model": 1,
        "prompt": "a mug 9",
        "scheduler": "ddim",
        "spacing": "normal",
        "steps": 3,
        "guidanceScale": 3.0,
        "seed": 9,
        "exact": True,
        "strength": 0.75,
        "width": 64,
        "height": 64,
        "image": source,
    }
    assert (facts.drawn.prompt, facts.drawn.seed, facts.drawn.backend) == ("a mug 9", 9, "local")
    assert facts.graph["sampler"]["inputs"]["noise_seed"] == 9
    details = {name: value for name, value in file.details.items() if name not in ("blurhash", "phash")}
    assert details == {
        "step": "large",
        "number": 0,
        "seed": 9,
        "prompt": "a mug 9",
        "width": 64,
        "height": 64,
        "shape": 1,
        "backend": "local",
        "seconds": 0.5,
    }
    assert len(str(file.details["phash"])) == 16


def assert_tracked_once(stores: Stores, mlflow: Settings, job: Job) -> None:
    """MLflow has one run of the job, with its pictures, also after another flow run."""
    generate_images()
    client = tracking_client(mlflow)
    experiment = client.get_experiment_by_name("generation")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id], f"tags.`{JOB_TAG}` = '{job.id}'")
    assert run.info.status == "FINISHED"
    assert job.started_at is not None
    assert job.ended_at is not None
    times = [int(moment.timestamp() * 1000) for moment in (job.started_at, job.ended_at)]
    assert [run.info.start_time, run.info.end_time] == times
    assert run.data.tags["darkroom.model_versions"] == "1"
    assert (run.data.params["base.seed"], run.data.params["large.operation"]) == ("5", "img2img")
    assert (run.data.metrics["pictures"], run.data.metrics["price"]) == (3, 6)
    assert {"seconds", "seconds_per_picture", "queue_seconds"} < run.data.metrics.keys()
    shown = {one.path for one in client.list_artifacts(run.info.run_id, "images")}
    assert shown == {f"images/{name}" for name in ("base-000.jpg", "base-001.jpg", "large-000.png", "base-grid.png")}


def failing(*errors: Exception | None) -> Callable[[Drawing, int], Image.Image]:
    """Pictures, of which the first tries raise these."""
    left = list(errors)

    def draw(drawing: Drawing, number: int) -> Image.Image:
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        return plain_picture(drawing, number)

    return draw


@pytest.mark.usefixtures("plainly")
def test_what_is_unavailable_is_waited_for_and_only_what_is_missing_is_asked_for_again(
    stores: Stores, backend: ToyBackend
) -> None:
    away = BackendUnavailable("it hung up")
    backend.picture = failing(None, away, away, None, away)
    job = a_workflow(stores.database, a_step("base", 1, 2, 3))

    assert draw_due(stores) == 3

    assert [wanted for _, wanted in backend.given] == [(0, 1, 2), (1, 2), (1, 2), (2,)]
    assert len({key for key, _ in backend.given}) == 1
    [step] = steps_of(stores.database, job)
    assert (step.state, step.tries) == (StepState.SUCCEEDED, 4)
    row = row_of(stores.database, job)
    assert (row.attempt, row.silent_attempts) == (4, 0)
    assert charge_of(stores.database, job).charged == 6


@pytest.mark.usefixtures("plainly")
def test_one_whose_backend_does_not_respond_keeps_its_pictures_and_takes_no_place(
    stores: Stores, backend: ToyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.settings.generation.at_once = 1
    silent = ToyBackend(failing(None, BackendUnavailable("it hung up")))
    monkeypatch.setattr(images_steps, "open_backends", lambda _stores: {"local": backend, "other": silent})
    monkeypatch.setattr(step_failures, "FIRST_PAUSE_SECONDS", 1.0)
    waits = a_workflow(stores.database, a_step("base", 1, 2, backend="other"))
    goes = a_workflow(stores.database, a_step("base", 3))
    waiting: list[tuple[str, int, int]] = []

    def look(drawing: Drawing, number: int) -> Image.Image:
        state = row_of(stores.database, waits).state.value
        waiting.append(
            (
                state,
                len(pictures(stores.database, waits)),
                stores.database.run(workflows.failed_tries(waits.id)).failures,
            )
        )
        return plain_picture(drawing, number)

    backend.picture = look
    assert draw_due(stores) == 3
    assert waiting == [("submitted", 1, 1)]
    assert [wanted for _, wanted in silent.given] == [(0, 1), (1,)]
    assert row_of(stores.database, goes).state is row_of(stores.database, waits).state is JobState.SUCCEEDED
    assert stores.database.run(workflows.failed_tries(waits.id)).failures == 0, (
        "a picture more, and what failed before counts no more"
    )


class FirstAtOnce(ToyBackend):
    """Draws first pictures, which it counts, without waiting for its gate."""

    firsts = 0

    def draw(self, drawing: Drawing, *given: Any, **asked: Any) -> Iterator[Any]:
        if 0 in asked["wanted"]:
            self.firsts += 1
            yield DrawnPicture(number=0, image=plain_picture(drawing, 0), shape=1, seconds=0.5)
        asked["wanted"] = [number for number in asked["wanted"] if number]
        yield from super().draw(drawing, *given, **asked)


@pytest.mark.usefixtures("plainly")
def test_one_that_gives_way_keeps_its_pictures_and_ends_as_no_crash(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = FirstAtOnce()
    backend.gate.clear()
    monkeypatch.setattr(images_steps, "open_backends", lambda _stores: {"local": backend})
    stores.settings.generation.at_once = 2
    other = stores.database.run(accounts.ensure_account("other")).id
    mine = [a_workflow(stores.database, a_step("base", 1, 2)) for _ in range(2)]
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(images_steps.draw_due, stores, ArtifactBoard())
        wait_until(lambda: all(pictures(stores.database, job) for job in mine))
        theirs = a_workflow(stores.database, owner=other)
        wait_until(lambda: row_of(stores.database, theirs).state is JobState.RUNNING)
        assert row_of(stores.database, mine[1]).state is JobState.SUBMITTED
        backend.gate.set()
        assert sorted(one.state for one in run.result(30)) == ["completed"] * 3 + ["postponed"]
    assert backend.firsts == 3, "what it had drawn stays"
    assert all(row_of(stores.database, job).state is JobState.SUCCEEDED for job in (*mine, theirs))


def silent(drawing: Drawing) -> dict[str, str]:
    """A backend that does not say what it can do."""
    raise BackendUnavailable("it hung up")


@pytest.mark.usefixtures("plainly")
def test_the_minutes_of_a_silent_backend_count_over_all_attempts(
    stores: Stores, backend: ToyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is given to it: a drawing that begins starts the minutes again.
    monkeypatch.setattr(backend, "missing_for", silent)
    stores.settings.generation.unavailable_minutes = 0.1 / 60
    monkeypatch.setattr(step_failures, "FIRST_PAUSE_SECONDS", 0.2)
    job = a_workflow(stores.database)
    draw_due(stores)
    row = row_of(stores.database, job)
    assert (row.state, row.failure_code, row.attempt) == (JobState.FAILED, "backends_unavailable", 2)


@pytest.mark.usefixtures("plainly")
def test_an_account_that_is_full_stops_at_the_picture_that_does_not_fit(stores: Stores, backend: ToyBackend) -> None:
    noise = [Image.effect_noise((64, 64), 90).convert("RGB") for _ in range(3)]
    backend.picture = lambda _drawing, number: noise[number]
    job = a_workflow(stores.database, a_step("base", 1, 2, 3))
    # Its model is the account's own.
    held = stores.database.run(quotas.usage(job.account_id)).total
    stores.settings.quotas.account_bytes = held + 30_000
    draw_due(stores)
    row, kept = row_of(stores.database, job), pictures(stores.database, job)
    assert (row.state, row.failure_code) == (JobState.FAILED, "account_full")
    assert "This account is full" in (row.failure_reason or "")
    assert [one.name for one in kept] == ["base-000.png", "base-001.png"]
    assert charge_of(stores.database, job).charged == 4


def larger(drawing: Drawing, number: int) -> Image.Image:
    return Image.new("RGB", (128, 64))


def cut_short(drawing: Drawing, number: int) -> Image.Image:
    buffer = io.BytesIO()
    plain_picture(drawing, number).save(buffer, "PNG")
    return Image.open(io.BytesIO(buffer.getvalue()[:-40]))


class TwiceTheSame(ToyBackend):
    """Draws the first picture again and again."""

    def draw(self, drawing: Drawing, *given: Any, **asked: Any) -> Iterator[Any]:
        asked["wanted"] = (0, 0)
        return super().draw(drawing, *given, **asked)


class TooFew(ToyBackend):
    """Draws one picture and says that this was all."""

    def draw(self, drawing: Drawing, *given: Any, **asked: Any) -> Iterator[Any]:
        asked["wanted"] = (0,)
        return super().draw(drawing, *given, **asked)


@pytest.mark.usefixtures("plainly")
@pytest.mark.parametrize(
    ("toy", "code", "sentence", "kept"),
    [
        (ToyBackend(larger), "backend_broken", "returned 128 x 64 pixels", 0),
        (ToyBackend(cut_short), "backend_broken", "is broken", 0),
        (TwiceTheSame(), "backend_broken", "picture 0, which nobody waits for", 1),
        (TooFew(), "backend_broken", "without pictures [1]", 1),
        (ToyBackend(failing(None, OutOfMemory("no room"))), "out_of_memory", "no room", 1),
        (
            ToyBackend(failing(BackendRefused({"model": "it is not there"}))),
            "step_refused",
            "model: local: it is not there",
            0,
        ),
        (ToyBackend(failing(*[BackendUnavailable("gone")] * 99)), "backends_unavailable", "failed each time: gone", 0),
        (ToyBackend(failing(ZeroDivisionError())), "job_failed", "ZeroDivisionError", 0),
    ],
    ids=["size", "broken", "twice", "few", "memory", "refused", "away", "fault"],
)
def test_a_step_that_cannot_be_drawn_fails_its_workflow_by_name_and_keeps_what_there_is(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, toy: ToyBackend, code: str, sentence: str, kept: int
) -> None:
    monkeypatch.setattr(images_steps, "open_backends", lambda _stores: {"local": toy})
    monkeypatch.setattr(step_failures, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(circuits, "OPEN_SECONDS", 0.01)
    job = a_workflow(stores.database, a_step("base", 1, 2), a_step("later"))

    draw_due(stores)

    row = row_of(stores.database, job)
    assert (row.state, row.failure_code) == (JobState.FAILED, code)
    assert sentence in (row.failure_reason or "")
    assert [step.state for step in steps_of(stores.database, job)] == [StepState.FAILED, StepState.CANCELLED]
    assert len(pictures(stores.database, job)) == kept
    assert charge_of(stores.database, job).charged == 2 * kept
    assert counted(stores) == []


@pytest.mark.usefixtures("plainly")
def test_a_cancelled_workflow_keeps_its_finished_pictures_and_shows_how_far_it_is(
    stores: Stores, backend: ToyBackend, valkey_url: str
) -> None:
    job = a_workflow(stores.database, a_step("base", 1, 2))

    def draw(drawing: Drawing, number: int) -> Image.Image:
        backend.gate.clear()  # the second one is not begun
        return plain_picture(drawing, number)

    backend.picture = draw
    stopping = threading.Thread(target=lambda: cancel_after(stores, job))
    stopping.start()
    assert draw_due(stores) == 0
    stopping.join()

    row = row_of(stores.database, job)
    assert row.state is JobState.CANCELLED
    assert row.progress is not None
    assert (row.progress.phase, row.progress.step, row.progress.total) == ("base", 3, 6)
    assert [one.name for one in pictures(stores.database, job)] == ["base-000.png"]
    assert charge_of(stores.database, job).charged == 2


def cancel_after(stores: Stores, job: Any) -> None:
    """Cancel once a picture is kept and its progress recorded."""
    wait_until(lambda: pictures(stores.database, job))
    wait_until(lambda: (now := row_of(stores.database, job).progress) is not None and now.step == 3)
    stores.database.run(jobs.cancel(job.id, job.account_id))
