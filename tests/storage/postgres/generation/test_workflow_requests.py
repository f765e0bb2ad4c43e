"""A request becomes a workflow: models, adapters and sources are looked up, and each fault is named by its place."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest

from storage.errors import Gone, InvalidRequest
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Database, Query
from storage.postgres.generation import source_pictures
from storage.postgres.generation.workflow_requests import price_list, resolve_workflow
from storage.postgres.jobs import base_models, jobs
from storage.postgres.policy import policy
from storage.records.catalog.catalog import ModelVersion
from storage.records.generation.prices import PriceList
from storage.records.generation.resolved_workflows import ResolvedWorkflow
from storage.records.generation.step_requests import WorkflowRequest
from storage.settings import GenerationSettings
from tests.storage.makers import (
    a_card,
    a_drawn_picture,
    a_model,
    a_trained_version,
    a_version,
    a_workflow,
    an_account,
    the_version,
)

SENT = "ab" * 32


@pytest.fixture
def owner(database: Database) -> UUID:
    """Somebody with a model."""
    account = an_account(database)
    a_trained_version(database, account)
    return account


def resolved(database: Database, account_id: UUID, **body: Any) -> ResolvedWorkflow:
    """A request in JSON, resolved."""
    request = msgspec.convert(body, WorkflowRequest)
    return database.run(lambda: resolve_workflow(request, account_id, PriceList(credits=100.0), 7))


def faults(database: Database, account_id: UUID, **body: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        resolved(database, account_id, **body)
    return refused.value.fields


def an_adapter(database: Database, owner: UUID, name: str = "style", **fields: Any) -> ModelVersion:
    return a_trained_version(database, owner, name, adapter=True, **fields)


def test_a_step_is_resolved_with_what_it_leaves_out(database: Database, owner: UUID) -> None:
    version = the_version(database, owner)
    workflow = resolved(database, owner, model=version.id, prompt="a mug", count=2)
    [step] = workflow.steps
    drawing = step.drawing
    assert (drawing.width, drawing.height, drawing.steps, drawing.guidance_scale) == (64, 64, 2, 3.0)
    assert [image.seed for image in drawing.images] == [7, 8]
    assert drawing.model.files.keys() == {"unet/diffusion_pytorch_model.safetensors"}
    assert (drawing.model.name, drawing.model.version_id) == ("mug v1", version.id)
    assert drawing.model.air == f"urn:air:sd1:checkpoint:civitai:{version.model_id}@{version.id}"
    # 64 x 64 pixels in two calls are 1/800 of a unit, 12.5 cents of 100 credits.
    assert (step.picture_price, step.picture_units, workflow.price) == (1, 0.00125, 2)
    by_air = resolved(database, owner, model=drawing.model.air, prompt="a mug", count=2)
    assert by_air.fingerprint() == workflow.fingerprint()


def test_an_adapter_draws_with_its_base_and_beside_others(database: Database, owner: UUID) -> None:
    parts = [msgspec.convert({"path": "unet/x", "sha256": "ef" * 32, "size": 9}, base_models.BaseModelFile)]
    database.run(base_models.register("starter", "b" * 64, a_card(), parts, replace=True))
    style, other = an_adapter(database, owner), an_adapter(database, owner, "other")
    adapters = [{"model": other.id, "strength": 0.5}]
    [step] = resolved(database, owner, model=style.id, prompt="a mug", adapters=adapters).steps
    assert (step.drawing.model.version_id, step.drawing.model.name) == (0, "starter")
    assert (step.drawing.model.files, step.drawing.model.size_bytes) == ({"unet/x": "ef" * 32}, 9)
    assert [(one.version_id, one.strength) for one in step.drawing.adapters] == [(style.id, 1.0), (other.id, 0.5)]


def test_a_step_goes_on_from_what_was_sent_what_was_drawn_and_another_step(database: Database, owner: UUID) -> None:
    job = database.run(jobs.claim(a_workflow(database, owner).id, 1, None))
    drawn = a_drawn_picture(database, job)
    database.run(source_pictures.add(owner, SENT, 10, 96, 128))
    base = {"model": the_version(database, owner).id, "prompt": "a mug", "operation": "img2img"}
    steps = [
        {**base, "name": "sent", "image": SENT},
        {**base, "name": "drawn", "image": drawn.sha256},
        {**base, "name": "made", "image": {"$ref": "sent"}},
        {"operation": "upscale", "image": {"$ref": "made"}, "width": 192, "height": 256},
    ]
    sent, other, made, large = resolved(database, owner, workflow=steps).steps
    assert [(one.drawing.width, one.drawing.height) for one in (sent, other, made)] == [(96, 128), (64, 64), (96, 128)]
    assert [one.drawing.source for one in (sent, other, made, large)] == [SENT, drawn.sha256, "", ""]
    assert made.image is not None
    assert (made.image.step, made.image.image, large.name) == ("sent", 0, "3")


def test_a_model_must_be_seen_and_one_that_is_drawn_with(database: Database, owner: UUID) -> None:
    stranger = an_account(database, "stranger")
    hidden = a_trained_version(database, stranger, "theirs")
    uploaded = a_version(database, a_model(database, owner, "uploaded"))
    for model, reason in (
        (9999, "No model version 9999."),
        (hidden.id, f"No model version {hidden.id}."),
        (uploaded.id, "was uploaded; pictures are drawn from versions that were trained here"),
        ("urn:air:sd1:checkpoint:civitai:2", "is no AIR with a version"),
    ):
        found = faults(database, owner, model=model, prompt="a mug")
        assert found.keys() == {"model"}
        assert reason in found["model"]
    assert resolved(database, stranger, model=hidden.id, prompt="a mug").pictures == 1


def test_an_air_names_the_model_of_its_version_too(database: Database, owner: UUID) -> None:
    version, style = the_version(database, owner), an_adapter(database, owner)
    air, lora = f"urn:air:sd1:checkpoint:civitai:101055@{version.id}", f"urn:air:sd1:lora:civitai:101055@{style.id}"
    own = f"is no resource of this platform: its version {version.id} is urn:air:sd1:checkpoint:civitai:"
    # Also once it was looked up by its number.
    steps = [{"model": version.id, "prompt": "a mug"}, {"model": air, "prompt": "a mug"}]
    found = faults(database, owner, workflow=[*steps, {**steps[0], "adapters": [{"model": lora}]}])
    assert found.keys() == {"workflow[1].model", "workflow[2].adapters[0].model"}
    assert found["workflow[1].model"] == f"{own}{version.model_id}@{version.id}"
    assert faults(database, owner, model=lora, prompt="a mug").keys() == {"model"}
    named = f"urn:air:sd1:lora:civitai:{style.model_id}@{style.id}"
    assert resolved(database, owner, model=named, prompt="a mug").pictures == 1


def test_a_model_that_was_taken_down_is_gone(database: Database, owner: UUID) -> None:
    version = the_version(database, owner)
    database.run(models.take_down(database.run(catalog.model_by_id(version.model_id)), "claim 12"))
    with pytest.raises(Gone, match="claim 12"):
        resolved(database, owner, model=version.id, prompt="a mug")


@pytest.mark.parametrize("as_adapter", [False, True])
def test_what_it_has_drawn_is_gone_with_it(database: Database, owner: UUID, as_adapter: bool) -> None:
    version, taken = the_version(database, owner), an_adapter(database, owner)
    step = {"model": version.id, "adapters": [{"model": taken.id}]} if as_adapter else {"model": taken.id}
    plain = {"model": version.id, "prompt": "a mug"}
    job = a_workflow(database, owner, workflow=[plain, {"prompt": "a mug", **step}])
    other = a_workflow(database, owner, **plain)
    files = [a_drawn_picture(database, database.run(jobs.claim(one.id, 1, None))) for one in (job, other)]
    assert [database.run(policy.job_file(file.job_id, file.sha256))[1] for file in files] == files
    database.run(models.take_down(database.run(catalog.model_by_id(taken.model_id)), "claim 12"))
    with pytest.raises(Gone, match="claim 12"):
        database.run(policy.job_file(job.id, files[0].sha256))
    assert database.run(policy.job_file(other.id, files[1].sha256))[1] == files[1]
    assert database.run(source_pictures.find(owner, [file.sha256 for file in files])).keys() == {files[1].sha256}


def test_what_a_picture_was_drawn_with_is_known_without_its_request(database: Database, owner: UUID) -> None:
    job = a_workflow(database, owner)
    file = a_drawn_picture(database, database.run(jobs.claim(job.id, 1, None)))
    nothing: dict[str, object] = {}
    database.run(jobs.rewrite(job.id, nothing, "r"))
    taken = database.run(catalog.model_by_id(the_version(database, owner).model_id))
    database.run(models.take_down(taken, "claim 12"))
    with pytest.raises(Gone, match="claim 12"):
        database.run(policy.job_file(job.id, file.sha256))


def test_a_version_without_files_is_not_drawn_with(database: Database, owner: UUID) -> None:
    version = the_version(database, owner)
    gone = "update version_files set gone_at = now() where version_id = %(id)s and role = 'folder'"
    database.run(Query(gone, {"id": version.id}, len))
    assert "no files left" in faults(database, owner, model=version.id, prompt="a mug")["model"]


def test_adapters_must_be_adapters_of_the_models_family(database: Database, owner: UUID) -> None:
    whole, style = the_version(database, owner), an_adapter(database, owner)
    card = msgspec.structs.replace(a_card(), family="sdxl")
    database.run(base_models.register("large", "c" * 64, card, []))
    large = an_adapter(database, owner, "large style", base_model="large")
    drawn = {"model": whole.id, "prompt": "a mug"}
    for adapters, field, reason in (
        ([{"model": style.id}, {"model": whole.id}], "adapters[1].model", "is a whole model and no adapter"),
        ([{"model": style.id}, {"model": large.id}], "adapters[1].model", "of the family sdxl, and the model of sd1"),
        ([{"model": style.id}, {"model": style.id}], "adapters[1].model", "is there twice"),
        ([{"model": 9999}], "adapters[0].model", "No model version 9999."),
    ):
        found = faults(database, owner, **drawn, adapters=adapters)
        assert found.keys() == {field}
        assert reason in found[field]
    found = faults(database, owner, model=style.id, prompt="a mug", adapters=[{"model": style.id}])
    assert "is there twice, or is the model itself" in found["adapters[0].model"]


def test_sources_are_the_accounts_own(database: Database, owner: UUID) -> None:
    stranger = an_account(database, "stranger")
    database.run(source_pictures.add(stranger, SENT, 10, 64, 64))
    base = {"model": the_version(database, owner).id, "prompt": "a mug", "operation": "inpaint"}
    found = faults(database, owner, **base, image=SENT, mask="cd" * 32)
    assert "send it to POST /api/v1/generations/sources first" in found["image"]
    database.run(source_pictures.add(owner, SENT, 10, 64, 64))
    database.run(source_pictures.add(owner, "cd" * 32, 10, 64, 72))
    assert "64 x 72 pixels and the image 64 x 64" in faults(database, owner, **base, image=SENT, mask="cd" * 32)["mask"]


def test_faults_of_all_steps_are_named_but_of_those_that_go_on_from_one(database: Database, owner: UUID) -> None:
    good = {"model": the_version(database, owner).id, "prompt": "a mug"}
    steps = [
        {**good, "name": "bad", "width": 2056},
        {**good, "operation": "img2img", "image": {"$ref": "bad"}, "mask": None, "model": 9999},
        {**good, "name": "good"},
        {**good, "adapters": [{"model": 9998}]},
        {"operation": "upscale", "image": {"$ref": "good"}, "width": 4096, "height": 4104},
    ]
    del steps[1]["mask"]
    found = faults(database, owner, workflow=steps[:4])
    assert found.keys() == {"workflow[0].width", "workflow[3].adapters[0].model"}
    # A $ref has the size of what it will be, from which the next one takes its own.
    wide = [{**good, "name": "base", "width": 1024}, {**good, "operation": "img2img", "image": {"$ref": "base"}}]
    assert [one.drawing.width for one in resolved(database, owner, workflow=wide).steps] == [1024, 1024]
    masked = [*wide, {**good, "name": "m"}]
    masked.append({**good, "operation": "inpaint", "image": {"$ref": "base"}, "mask": {"$ref": "m"}})
    assert faults(database, owner, workflow=masked).keys() == {"workflow[3].mask"}


def test_what_would_be_too_much_to_keep_is_refused(database: Database, owner: UUID) -> None:
    step = {"model": the_version(database, owner).id, "prompt": "mug " * 900, "count": 64}
    assert resolved(database, owner, **step).pictures == 64
    assert (
        "the prompts of all pictures are more than"
        in faults(database, owner, workflow=[step, step])["workflow[1].prompt"]
    )
    longer = {**step, "prompt": '"' * 3000}
    assert "64 pictures and their prompts are" in faults(database, owner, **longer)["prompt"]


def test_a_request_that_is_too_long_is_refused_before_anything_is_looked_up() -> None:
    step = {"model": 3, "prompt": "__a__", "wildcards": {"a": ["x" * 2000] * 20}}
    request = msgspec.convert({"workflow": [step] * 16}, WorkflowRequest)
    with pytest.raises(InvalidRequest, match=r"workflow: the request is 64\d,\d{3} bytes; the limit is 262,144"):
        next(resolve_workflow(request, UUID(int=0), PriceList(), 7))


def test_each_version_is_looked_up_once(database: Database, owner: UUID) -> None:
    step = {"model": the_version(database, owner).id, "prompt": "a mug"}

    def queries(count: int) -> int:
        request = msgspec.convert({"workflow": [step] * count}, WorkflowRequest)
        asked: list[str] = []

        def counted() -> Any:
            script = resolve_workflow(request, owner, PriceList(), 7)
            value = None
            while True:
                try:
                    query = script.send(value)
                except StopIteration:
                    return
                asked.append(query.statement)
                value = yield query

        database.run(counted)
        return len(asked)

    assert queries(1) == queries(16)


def test_the_price_list_is_that_of_the_settings() -> None:
    settings = GenerationSettings(credits=3.0, low_priority=0.5, high_priority=2.0)
    assert price_list(settings) == PriceList(credits=3.0, low=0.5, high=2.0)
