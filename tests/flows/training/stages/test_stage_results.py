"""A stage that is found done names its bytes, so that no sweep takes them before they are published."""

from __future__ import annotations

import pytest

from flows.jobs.lifecycle import running_job
from flows.training.evaluation import Evaluation
from flows.training.stages.stage_results import Evaluated, Exported, KeptStages
from flows.upkeep.blob_sweep import sweep_blobs
from storage.blobs.stored import Blob
from storage.errors import JobLost
from storage.postgres.connection import Query
from storage.postgres.jobs import job_stages
from storage.postgres.upkeep import orphans
from storage.records.catalog.catalog import FileRole, NewFile, NewImage
from storage.records.jobs.jobs import Stage, StageBlob
from storage.stores import Stores
from tests.flows.training.test_job_checkpoints import blob_of
from tests.storage.makers import a_job

WAIT_OVER = "update orphans set since = since - interval '5 days', seen_at = now()"
INPUTS = {"of": "the test"}
EVALUATION = Evaluation(measured_by="nobody", scenes=(), images=1, photos=2)


def exported(blob: Blob) -> Exported:
    file = NewFile(path="a.safetensors", role=FileRole.WEIGHTS, sha256=blob.sha256, size=blob.size)
    return Exported(files=(file,))


def test_what_is_found_done_after_its_job_published_is_kept_from_the_sweep(stores: Stores) -> None:
    blob, database = stores.blobs.put(b"weights"), stores.database
    with running_job(stores, a_job(database).id, 1) as job:
        kept = KeptStages(job)
        kept.keep(Stage.EXPORT, INPUTS, exported(blob), seconds=1.0, peak_bytes=1)
        database.run(job_stages.release_blobs(job.id))  # it has published
        database.run(orphans.note([blob.sha256], 1e6))  # and the version was deleted
        database.run(Query(WAIT_OVER, {}, len))
        assert kept.find(Stage.EXPORT, INPUTS, Exported) is not None
        stores.settings.blobs.orphan_grace_hours = 0
        sweep_blobs(stores)
        assert stores.blobs.exists(blob.sha256)
        assert database.run(job_stages.release_blobs(job.id)) == [blob.sha256]
    assert job.outcome.is_completed(), job.outcome


def test_bytes_that_are_gone_are_not_named(stores: Stores) -> None:
    blob, database = stores.blobs.put(b"weights"), stores.database
    with running_job(stores, a_job(database).id, 1) as job:
        kept = KeptStages(job)
        kept.keep(Stage.EXPORT, INPUTS, exported(blob), seconds=1.0, peak_bytes=1)
        database.run(job_stages.release_blobs(job.id))
        stores.blobs.delete(blob.sha256)
        assert kept.find(Stage.EXPORT, INPUTS, Exported) is None
        assert database.run(job_stages.release_blobs(job.id)) == []
    assert job.outcome.is_completed(), job.outcome


@pytest.mark.parametrize("damaged", [0, 1])
def test_a_damaged_image_is_made_again(stores: Stores, damaged: int) -> None:
    blobs = [stores.blobs.put(content) for content in (b"grid", b"sample")]
    sample = NewImage(
        sha256=blobs[1].sha256, size=blobs[1].size, media_type="image/png", width=64, height=64, blurhash="L0"
    )
    evaluated = Evaluated(evaluation=EVALUATION, grid=blobs[0].sha256, samples=(sample,))
    with running_job(stores, a_job(stores.database).id, 1) as job:
        kept = KeptStages(job)
        kept.keep(Stage.EVALUATE, INPUTS, evaluated, seconds=1.0, peak_bytes=1)
        assert kept.find(Stage.EVALUATE, INPUTS, Evaluated) is not None
        blob_of(stores, blobs[damaged].sha256).write_bytes(b"damaged")
        assert kept.find(Stage.EVALUATE, INPUTS, Evaluated) is None
        assert [stores.blobs.exists(blob.sha256) for blob in blobs] == [damaged != 0, damaged != 1]
    assert job.outcome.is_completed(), job.outcome


def test_an_older_attempt_names_nothing(stores: Stores) -> None:
    named = [StageBlob(sha256="ab" * 32, size=1)]
    with running_job(stores, a_job(stores.database).id, 1) as job, pytest.raises(JobLost, match="no longer attempt 0"):
        stores.database.run(job_stages.name_blobs(job.id, 0, Stage.EXPORT, named))
    assert job.outcome.is_completed(), job.outcome
