"""Submitting workflows: one for a name of the caller's, within limits, priced; retried, and taken over from before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import msgspec
import pytest

from storage.errors import (
    IdempotencyKeyReused,
    InvalidRequest,
    ModelNotAvailable,
    NotFound,
    QuotaExceeded,
    TooManyRequests,
    WrongState,
)
from storage.postgres.catalog import catalog, versions
from storage.postgres.connection import Database, Query
from storage.postgres.generation import source_pictures, workflow_submissions, workflows
from storage.postgres.jobs import base_models, job_files, jobs
from storage.records.generation.resolved_workflows import ResolvedWorkflow, read_workflow
from storage.records.generation.step_requests import WorkflowRequest
from storage.records.jobs.generation import GenerationRecipe
from storage.records.jobs.jobs import Job, JobFileRole, JobKind
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.settings import QuotaSettings
from tests.storage.makers import (
    NO_LIMITS,
    a_card,
    a_trained_version,
    a_workflow,
    an_account,
    settings_for,
    the_version,
)

SETTINGS = settings_for("postgresql://unused")


@pytest.fixture
def owner(database: Database) -> UUID:
    """Somebody with a model."""
    account = an_account(database)
    a_trained_version(database, account)
    return account


def model_of(job: Job) -> int:
    return read_workflow(job.request).steps[0].drawing.model.version_id


def of_before(database: Database, owner: UUID, **fields: Any) -> Job:
    """A generation that was submitted before there were workflows."""
    version = a_trained_version(database, owner)
    recipe = GenerationRecipe(
        **{
            "model_version_id": version.id,
            "prompt": "a (mug) {of|__the__} [past]",
            "negative_prompt": "",
            "count": 2,
            "seed": 5,
            "sampler": SamplerSettings(steps=2, guidance_scale=3.0),
            **fields,
        }
    )
    new = jobs.NewJob(
        account_id=owner,
        kind=JobKind.GENERATION,
        request=msgspec.to_builtins(recipe),
        recipe_hash="r",
        request_hash="h",
    )
    return database.run(jobs.submit(new, idempotency_key=None, limit=10, limits=NO_LIMITS))[0]


def test_a_workflow_has_its_job_and_its_rows(database: Database, owner: UUID) -> None:
    job = a_workflow(database, owner, prompt="a mug", count=3, tags=("a", "b", "a"), external_id="order-17")
    resolved = read_workflow(job.request)
    [row] = database.run(workflows.of_jobs([job.id]))
    [step] = database.run(workflows.steps_of_jobs([job.id]))
    assert (row.account_id, row.external_id, row.tags) == (owner, "order-17", ["a", "b"])
    assert (row.price, row.units, row.charged) == (resolved.price, resolved.units, None)
    assert (step.name, step.family, step.pictures, step.state) == ("0", "sd1", 3, "waiting")
    assert step.picture_price * step.pictures == row.price > 0
    assert resolved.asked == {
        "model": resolved.steps[0].drawing.model.version_id,
        "prompt": "a mug",
        "count": 3,
        "tags": ["a", "b", "a"],
        "externalId": "order-17",
    }


def test_the_same_external_id_is_the_same_workflow_whatever_became_of_its_model(
    database: Database, owner: UUID
) -> None:
    first = a_workflow(database, owner, external_id="mine")
    model = model_of(first)
    [version] = database.run(catalog.versions_by_id([model]))
    database.run(versions.delete(version, "test"))
    assert a_workflow(database, owner, model=model, external_id="mine").id == first.id
    assert a_workflow(database, an_account(database, "another"), external_id="mine").id != first.id


def test_an_external_id_of_another_request_is_refused(database: Database, owner: UUID) -> None:
    a_workflow(database, owner, external_id="mine")
    with pytest.raises(IdempotencyKeyReused, match="externalId 'mine' is that of another workflow"):
        a_workflow(database, owner, external_id="mine", prompt="another")
    with pytest.raises(InvalidRequest, match="send one of them"):
        a_workflow(database, owner, external_id="mine", key="and this")
    assert len(database.run(workflows.list_for_account(owner))) == 1


def test_of_many_at_once_under_one_external_id_one_is_new(database: Database, owner: UUID) -> None:
    request = WorkflowRequest(model=model_of(a_workflow(database, owner)), prompt="a mug", external_id="once")

    def submit(seed: int) -> tuple[UUID, bool]:
        job, new = database.run(lambda: workflow_submissions.submit_workflow(request, owner, SETTINGS, seed=seed))
        return job.id, new

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(submit, range(16)))
    assert len({job_id for job_id, _ in made}) == 1
    assert sum(new for _, new in made) == 1


def test_a_key_does_as_for_every_job(database: Database, owner: UUID) -> None:
    assert a_workflow(database, owner, key="k").id == a_workflow(database, owner, key="k").id
    with pytest.raises(IdempotencyKeyReused):
        a_workflow(database, owner, key="k", prompt="another")


def test_an_account_has_its_limits(database: Database, owner: UUID) -> None:
    few = SETTINGS.model_copy(update={"jobs": SETTINGS.jobs.model_copy(update={"max_queued_per_account": 1})})
    full = SETTINGS.model_copy(update={"quotas": QuotaSettings(account_bytes=1)})
    with pytest.raises(QuotaExceeded):
        a_workflow(database, owner, settings=full)
    a_workflow(database, owner, settings=few)
    with pytest.raises(TooManyRequests):
        a_workflow(database, owner, settings=few)
    assert len(database.run(workflows.list_for_account(owner))) == 1


def test_a_field_that_is_left_out_changes_no_hash() -> None:
    """So that a later release, whose requests have more fields, finds what this one stored."""
    request = WorkflowRequest(model=3, prompt="a mug", count=2, external_id="mine")
    assert workflow_submissions.hash_of_request(request).startswith("d12e04b2434fe089")
    for other in ({"count": 3}, {"priority": "low"}, {"external_id": "yours"}):
        changed = msgspec.structs.replace(request, **other)
        assert workflow_submissions.hash_of_request(changed) != workflow_submissions.hash_of_request(request)


def test_a_retry_draws_the_same_at_todays_prices(database: Database, owner: UUID) -> None:
    first = a_workflow(database, owner, count=2, tags=("kept",), external_id="mine", priority="high")
    with pytest.raises(WrongState):
        database.run(workflow_submissions.retry_workflow(first.id, owner, SETTINGS))
    database.run(jobs.cancel(first.id, owner))
    dear = SETTINGS.model_copy(update={"generation": SETTINGS.generation.model_copy(update={"credits": 1000.0})})

    def retry() -> tuple[Job, bool]:
        return database.run(workflow_submissions.retry_workflow(first.id, owner, dear, idempotency_key="again"))

    second, new = retry()
    assert (new, retry()) == (True, (second, False))
    old, made = database.run(workflows.of_jobs([first.id])), database.run(workflows.of_jobs([second.id]))
    assert (second.retry_of, second.recipe_hash) == (first.id, first.recipe_hash)
    assert (made[0].tags, made[0].external_id, made[0].lane) == (["kept"], None, old[0].lane)
    assert made[0].price > old[0].price
    assert drawings(read_workflow(second.request)) == drawings(read_workflow(first.request))
    with pytest.raises(NotFound):
        database.run(workflow_submissions.retry_workflow(first.id, an_account(database, "another"), SETTINGS))


def drawings(workflow: ResolvedWorkflow) -> list[object]:
    return [step.drawing for step in workflow.steps]


def test_a_retry_needs_what_it_names(database: Database, owner: UUID) -> None:
    database.run(source_pictures.add(owner, "ab" * 32, 10, 64, 64))
    first = a_workflow(database, owner, operation="img2img", image="ab" * 32)
    database.run(jobs.cancel(first.id, owner))
    database.run(source_pictures.delete(owner, "ab" * 32))
    with pytest.raises(InvalidRequest, match=r"picture abababababab\.\.\. is gone"):
        database.run(workflow_submissions.retry_workflow(first.id, owner, SETTINGS))


def test_a_retry_draws_with_the_files_of_today(database: Database, owner: UUID) -> None:
    model, style = the_version(database, owner), a_trained_version(database, owner, "style", adapter=True)
    adapters = [{"model": style.id, "strength": 0.5}]
    upscale = {"operation": "upscale", "image": {"$ref": "base"}, "width": 128, "height": 128}
    base = {"name": "base", "model": model.id, "prompt": "a mug", "adapters": adapters}
    first = a_workflow(database, owner, workflow=[base, upscale])
    database.run(jobs.cancel(first.id, owner))
    new = "cd" * 32
    database.run(Query("update version_files set sha256 = %(new)s where role = 'folder'", {"new": new}, len))
    second, _ = database.run(workflow_submissions.retry_workflow(first.id, owner, SETTINGS))
    [drawn, larger] = read_workflow(second.request).steps
    [old, _] = read_workflow(first.request).steps
    assert set(drawn.drawing.model.files.values()) == {new}
    assert [(one.sha256, one.strength) for one in drawn.drawing.adapters] == [(new, 0.5)]
    assert drawn.drawing.images == old.drawing.images
    assert larger.drawing.model.version_id == 0


def test_an_adapters_base_is_kept_by_a_retry(database: Database, owner: UUID) -> None:
    parts = [msgspec.convert({"path": "unet/x", "sha256": "ef" * 32, "size": 9}, base_models.BaseModelFile)]
    database.run(base_models.register("starter", "b" * 64, a_card(), parts, replace=True))
    style = a_trained_version(database, owner, "style", adapter=True)
    first = a_workflow(database, owner, model=style.id)
    database.run(jobs.cancel(first.id, owner))
    second, _ = database.run(workflow_submissions.retry_workflow(first.id, owner, SETTINGS))
    assert drawings(read_workflow(second.request)) == drawings(read_workflow(first.request))


@pytest.mark.parametrize("is_of_before", [False, True])
def test_who_may_not_see_a_model_any_more_draws_nothing_with_it(database: Database, is_of_before: bool) -> None:
    owner = an_account(database)
    make = of_before if is_of_before else a_workflow
    a_trained_version(database, owner)
    job = database.run(jobs.claim(make(database, owner).id, 1, None))
    database.run(workflow_submissions.adopted(job, SETTINGS))
    for version in database.run(Query("select id from model_versions", {}, lambda rows: [row["id"] for row in rows])):
        [found] = database.run(catalog.versions_by_id([version]))
        database.run(versions.delete(found, "test"))
    with pytest.raises(ModelNotAvailable, match="not available any more"):
        database.run(workflow_submissions.adopted(job, SETTINGS))


def test_a_generation_of_before_is_taken_over_free_of_charge(database: Database, owner: UUID) -> None:
    job = database.run(jobs.claim(of_before(database, owner).id, 1, None))
    picture: dict[str, Any] = {
        "sha256": "ab" * 32,
        "size": 1,
        "media_type": "image/png",
        "details": {"prompt": "x", "seed": 6},
    }
    database.run(job_files.put_file(job.id, 1, name="image-001.png", role=JobFileRole.IMAGE, **picture))
    workflow = database.run(workflow_submissions.adopted(job, SETTINGS))
    [step] = workflow.steps
    assert [(one.prompt, one.seed) for one in step.drawing.images] == [
        (r"a \(mug\) {of|__the__} \[past\]", 5),
        (r"a \(mug\) {of|__the__} \[past\]", 6),
    ]
    assert (step.drawing.steps, step.drawing.guidance_scale, step.drawing.exact) == (2, 3.0, True)
    assert workflow.price == 0
    [kept] = database.run(job_files.files(job.id))
    assert kept.name == f"{step.name}-001.png"
    side = {"width": step.drawing.width, "height": step.drawing.height}
    assert kept.details == {"prompt": "x", "seed": 6, "step": step.name, "number": 1, **side}
    held = database.run(jobs.get(job.id))
    assert database.run(workflow_submissions.adopted(held, SETTINGS)) == workflow, "its next attempt finds it so"
    assert [row.price for row in database.run(workflows.of_jobs([job.id]))] == [0]


def test_a_generation_of_before_is_retried_as_a_workflow(database: Database, owner: UUID) -> None:
    job = of_before(database, owner)
    database.run(jobs.cancel(job.id, owner))
    second, _ = database.run(workflow_submissions.retry_workflow(job.id, owner, SETTINGS))
    assert database.run(workflows.of_jobs([second.id]))[0].price > 0
    assert database.run(workflows.of_jobs([job.id])) == []


def test_what_nobody_can_read_is_refused(database: Database) -> None:
    owner = an_account(database)
    new = jobs.NewJob(account_id=owner, kind=JobKind.GENERATION, request={}, recipe_hash="r", request_hash="h")
    job, _ = database.run(jobs.submit(new, idempotency_key=None, limit=10, limits=NO_LIMITS))
    with pytest.raises(InvalidRequest, match="none that this release can read"):
        database.run(workflow_submissions.adopted(job, SETTINGS))
