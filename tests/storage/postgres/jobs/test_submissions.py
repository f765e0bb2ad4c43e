"""Submitting: the job and its event together, once for a key, within the limits of its account."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from storage.errors import (
    IdempotencyKeyReused,
    InvalidRequest,
    NotFound,
    TooManyRequests,
)
from storage.postgres.connection import Database
from storage.postgres.events import outbox
from storage.postgres.jobs import jobs, submissions
from storage.records.events.events import JobStarted, JobSubmitted
from storage.records.jobs.choices import TrainingOptimizer
from storage.records.jobs.jobs import JobKind
from storage.records.jobs.training import TrainingRequest
from tests.storage.makers import NO_LIMITS, a_data_set, a_job, an_account, settings_for


def test_submitting_commits_the_job_and_its_event_together(database: Database) -> None:
    job = a_job(database)
    events = [row.event() for row in database.run(outbox.of_subject(f"job:{job.id}"))]
    assert events == [JobSubmitted(job_id=job.id, job_kind="training", attempt=1)]
    database.run(jobs.claim(job.id, 1, uuid4()))
    last = database.run(outbox.of_subject(f"job:{job.id}"))[-1].event()
    assert last == JobStarted(job_id=job.id, attempt=1)


def test_epochs_are_steps_in_the_recipe(database: Database) -> None:
    recipe: Any = a_job(database, steps=800, keep_every_epochs=100).request["recipe"]  # of two photos
    assert (recipe["keep_every"], recipe["checkpoint_every"]) == (200, 100)


def test_one_key_from_many_threads_makes_one_job(database: Database) -> None:
    owner = an_account(database)
    data_set = a_data_set(database, owner)
    request, settings = TrainingRequest(data_set_id=data_set, class_word="mug"), settings_for("postgresql://unused")

    def submit(seed: int) -> tuple[UUID, bool]:
        job, new = database.run(
            submissions.submit_training(request, owner, settings, seed=seed, idempotency_key="once")
        )
        return job.id, new

    with ThreadPoolExecutor(32) as pool:
        responses = list(pool.map(submit, range(64)))
    assert len({job_id for job_id, _ in responses}) == 1
    assert sum(new for _, new in responses) == 1
    assert len(database.run(jobs.list_for_account(owner))) == 1


def test_a_key_with_another_request_is_refused_and_leaves_nothing(database: Database) -> None:
    first = a_job(database, key="mine")
    with pytest.raises(IdempotencyKeyReused, match="mine"):
        a_job(database, first.account_id, key="mine", steps=9)
    assert len(database.run(jobs.list_for_account(first.account_id))) == 1


def test_keys_belong_to_their_account(database: Database) -> None:
    first = a_job(database, an_account(database, "one"), key="same")
    second = a_job(database, an_account(database, "two"), key="same")
    assert first.id != second.id
    with pytest.raises(NotFound):
        database.run(jobs.get_for_account(first.id, second.account_id))


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"class_word": "spaceship"}, "classWord"),
        ({"base_model": "nope"}, "baseModel"),
        ({"identifier": "a/b"}, "identifier"),
    ],
)
def test_a_request_that_does_not_fit_names_the_field_and_leaves_nothing(
    database: Database, fields: dict[str, Any], name: str
) -> None:
    owner = an_account(database)
    request: dict[str, Any] = {"data_set_id": a_data_set(database, owner), "class_word": "mug"} | fields
    script = submissions.submit_training(
        TrainingRequest(**request), owner, settings_for("postgresql://unused"), seed=1, idempotency_key="k"
    )
    with pytest.raises(InvalidRequest) as caught:
        database.run(script)
    assert list(caught.value.fields) == [name]
    assert database.run(jobs.list_for_account(owner)) == []
    assert database.run(outbox.backlog()).waiting == 0


def test_an_account_has_a_limit_of_unfinished_jobs(database: Database) -> None:
    job = a_job(database)
    new = jobs.NewJob(
        account_id=job.account_id, kind=job.kind, request={}, recipe_hash="r", request_hash="h", data_set_id=None
    )
    with pytest.raises(TooManyRequests):
        database.run(jobs.submit(new, idempotency_key=None, limit=1, limits=NO_LIMITS))


def test_the_limit_holds_for_submissions_at_once(database: Database) -> None:
    account, template = an_account(database), a_job(database)
    new = jobs.NewJob(
        account_id=account, kind=template.kind, request=template.request, recipe_hash="r", request_hash="h"
    )

    def submit(_: int) -> bool:
        try:
            database.run(jobs.submit(new, idempotency_key=None, limit=20, limits=NO_LIMITS))
        except TooManyRequests:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        admitted = sum(pool.map(submit, range(100)))

    assert admitted == 19  # and the one that was there
    assert len(database.run(jobs.list_for_account(account))) == 20


def test_a_field_that_requests_of_before_lack_changes_no_hash_while_it_is_empty() -> None:
    training = TrainingRequest(data_set_id=UUID(int=1), class_word="mug", learning_rate=1e-5)
    # What the release before methods and optimizers stored for it.
    assert submissions.hash_request(JobKind.TRAINING, training).startswith("ae63ef82613b7906")
    other = msgspec.structs.replace(training, optimizer=TrainingOptimizer.ADAMW)
    assert submissions.hash_request(JobKind.TRAINING, other) != submissions.hash_request(JobKind.TRAINING, training)
