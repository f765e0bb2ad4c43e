"""Workflows without a catalogue, and backends that behave as a test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from PIL import Image

from flows.generation.backends.protocol import BackendFacts
from flows.generation.callbacks import DrawingCallbacks
from flows.generation.drawn_pictures import DrawnPicture
from storage.postgres.connection import Database, Query, Script
from storage.postgres.generation import workflows
from storage.postgres.generation.workflows import NewWorkflow
from storage.postgres.jobs import job_files, jobs
from storage.records.generation.drawings import Drawing, DrawnImage, DrawnModel
from storage.records.generation.prices import Priority
from storage.records.generation.resolved_workflows import ResolvedStep, ResolvedWorkflow, stored
from storage.records.generation.workflow_rows import Workflow, WorkflowStep
from storage.records.jobs.jobs import TERMINAL, Job, JobFile, JobFileRole, JobKind
from tests.storage.makers import NO_LIMITS, a_trained_version, an_account

SECONDS = 30.0
MODEL = DrawnModel(version_id=1, family="sd1", files={"unet": f"{1:064d}"}, name="mugs")


def a_step(name: str = "base", *seeds: int, **changes: Any) -> ResolvedStep:
    """A step of 64 pixels a side, whose pictures cost 2 credits each. Fields of its drawing may be others."""
    fields = {one: changes.pop(one) for one in ("image", "mask", "backend") if one in changes}
    plain = Drawing(
        model=MODEL,
        images=tuple(DrawnImage(prompt=f"a mug {seed}", seed=seed) for seed in seeds or (1,)),
        width=64,
        height=64,
        steps=3,
        guidance_scale=3.0,
        # As a request is resolved: all of it, where there is no source.
        strength=0.75 if "image" in fields else 1.0,
    )
    drawing = msgspec.structs.replace(plain, **changes)
    return ResolvedStep(name=name, drawing=drawing, picture_price=2, picture_units=0.1, **fields)


def _own_version(database: Database, account: UUID) -> int:
    """A version that the account sees: who claims a workflow asks again whether it does."""
    own = (
        "select version.id from model_versions version join models model on model.id = version.model_id"
        " where model.account_id = %(account)s order by version.id"
    )
    found = database.run(Query(own, {"account": account}, lambda rows: [int(row["id"]) for row in rows]))
    return found[0] if found else a_trained_version(database, account, f"mugs of {account}").id


def _drawn_with(step: ResolvedStep, version_id: int) -> ResolvedStep:
    if not step.drawing.model.version_id:
        return step
    model = msgspec.structs.replace(step.drawing.model, version_id=version_id)
    return msgspec.structs.replace(step, drawing=msgspec.structs.replace(step.drawing, model=model))


def a_workflow(
    database: Database, *steps: ResolvedStep, priority: Priority = Priority.NORMAL, owner: UUID | None = None
) -> Job:
    """A submitted workflow of the account."""
    account = an_account(database) if owner is None else owner
    seen = [_drawn_with(step, _own_version(database, account)) for step in steps or (a_step(),)]
    resolved = ResolvedWorkflow(asked={}, steps=tuple(seen), priority=priority)
    new = jobs.NewJob(
        account_id=account, kind=JobKind.GENERATION, request=stored(resolved), recipe_hash="r", request_hash="h"
    )

    def submit() -> Script[Job]:
        job, _ = yield from jobs.submit(new, idempotency_key=None, limit=1000, limits=NO_LIMITS)
        yield from workflows.add(job, resolved, NewWorkflow(request_hash="h"))
        return job

    # In one transaction: a run that draws meanwhile passes over a row that is held.
    return database.run(submit)


def row_of(database: Database, job: Job) -> Job:
    """The job as it is now."""
    return database.run(jobs.get(job.id))


def steps_of(database: Database, job: Job) -> list[WorkflowStep]:
    """Its steps."""
    return database.run(workflows.steps_of_jobs([job.id]))


def charge_of(database: Database, job: Job) -> Workflow:
    """Its workflow, with what was charged."""
    [row] = database.run(workflows.of_jobs([job.id]))
    return row


def pictures(database: Database, job: Job) -> list[JobFile]:
    """Its pictures, by name."""
    files = database.run(job_files.files(job.id))
    return sorted((one for one in files if one.role is JobFileRole.IMAGE), key=lambda one: one.name)


def wait_until(true: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Wait for something to be so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def ended(database: Database, *submitted: Job) -> bool:
    """Whether they all have ended."""
    return all(row_of(database, job).state in TERMINAL for job in submitted)


Behaviour = Callable[[Drawing, int], Image.Image]


def plain_picture(drawing: Drawing, number: int) -> Image.Image:
    """The colour of its seed, a little different in each place."""
    picture = Image.radial_gradient("L").resize((drawing.width, drawing.height)).convert("RGB")
    picture.putpixel((0, 0), (drawing.images[number].seed % 256, number, 0))
    return picture


@dataclass
class ToyBackend:
    """Draws by `picture`, which may raise. `given`: what it was asked for, by key."""

    picture: Behaviour = plain_picture
    gate: threading.Event = field(default_factory=threading.Event)
    given: list[tuple[str, tuple[int, ...]]] = field(default_factory=list[tuple[str, tuple[int, ...]]])
    drawings: list[Drawing] = field(default_factory=list[Drawing])
    repeats_freely: bool = True

    def __post_init__(self) -> None:
        self.gate.set()

    def facts(self) -> BackendFacts:
        """It is there."""
        return BackendFacts(version="1", capabilities={})

    def missing_for(self, drawing: Drawing) -> dict[str, str]:
        """It can do all."""
        return {}

    def draw(
        self, drawing: Drawing, callbacks: DrawingCallbacks, *, key: str, wanted: Sequence[int], urgency: int
    ) -> Iterator[DrawnPicture]:
        """One after another, with a step before each."""
        self.given.append((key, tuple(wanted)))
        self.drawings.append(drawing)
        for number in wanted:
            while not self.gate.wait(0.02):
                callbacks.check()
            callbacks.check()
            callbacks.step(number, drawing.steps - 1, drawing.steps)
            yield DrawnPicture(number=number, image=self.picture(drawing, number), shape=1, seconds=0.5)

    def close(self) -> None:
        """Nothing."""
