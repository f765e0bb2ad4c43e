"""The main job with the method `lora`, end to end on real stores."""

from __future__ import annotations

import io
from pathlib import Path
from uuid import UUID

import pytest
import torch
from PIL import Image

from flows.generation.images import generate_images
from flows.jobs.tracking import tracking_client
from flows.training.adapters.files import DIFFUSERS_FILE, KOHYA_FILE
from flows.training.adapters.layers import AdapterForm, adapter_metadata
from flows.training.dreambooth import train_dreambooth
from flows.training.tensor_files import read_metadata, write_tensors
from storage.postgres.catalog import catalog
from storage.postgres.generation.workflow_submissions import submit_workflow
from storage.postgres.jobs import job_files, jobs, publication
from storage.records.catalog.catalog import FileRole, NewFile, TrainedVersion
from storage.records.catalog.vocabulary import ModelType
from storage.records.generation.step_requests import WorkflowRequest
from storage.records.jobs.jobs import JobFileRole, JobState
from storage.settings import Settings
from storage.stores import Stores
from tests.flows.training import test_dreambooth
from tests.flows.training.adapters.adapters import drawn, pipeline_of
from tests.flows.training.checkpointing.written import WrittenBytes
from tests.flows.training.test_dreambooth import ADAPTER, an_engine, assert_drawn, assert_evaluated, end_of, submit

environment, settings = test_dreambooth.environment, test_dreambooth.settings


@pytest.mark.usefixtures("environment", "prefect")
def test_photos_become_a_catalogued_adapter_and_its_base_draws_with_it(
    stores: Stores, tiny_model: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(stores, tiny_model, **ADAPTER)
    written = WrittenBytes(stores, monkeypatch)
    assert train_dreambooth(job.id, 1, return_state=True).is_completed()
    ended = end_of(stores, job.id)
    assert ended.state is JobState.SUCCEEDED, ended.failure_reason
    version = stores.database.run(catalog.version_of_job(job.id))
    assert version is not None
    model = stores.database.run(catalog.model_by_id(version.model_id))
    assert (model.type, model.checkpoint_type) == (ModelType.LORA, None)
    assert model.name == f"{version.trained_words[0]} LoRA"
    assert version.registered_as is not None
    assert_evaluated(version.evaluation or {})
    written.assert_within_the_bound(job, tiny_model)

    files = stores.database.run(catalog.files(version.id))
    assert [(file.path, file.role) for file in files] == [
        (KOHYA_FILE, FileRole.WEIGHTS),
        (DIFFUSERS_FILE, FileRole.FOLDER),
    ]
    assert (files[0].fp, files[0].hashes.auto_v2) == ("fp32", files[0].sha256[:10].upper())
    plain = drawn(pipeline_of(tiny_model))
    for file in files:
        stores.blobs.fetch(file.sha256, tmp_path / file.path)
        assert read_metadata(tmp_path / file.path)["modelspec.architecture"] == "stable-diffusion-v1/lora"
        pipeline = pipeline_of(tiny_model)
        pipeline.load_lora_weights(str(tmp_path), weight_name=file.path)
        assert abs(drawn(pipeline) - plain).max() > 0.01

    assert ended.tracking_run_id is not None
    tags = tracking_client(settings).get_run(ended.tracking_run_id).data.tags
    assert int(tags["darkroom.frozen_tensors"]) > 100
    assert len(tags["darkroom.frozen_sha256"]) == 64
    assert tags["darkroom.frozen_not_loaded"] == "none", "the last step draws a sample, with all parts"
    assert_drawn(stores, version.id, ended.account_id)
    assert_samples_differ(stores, job.id)


def assert_samples_differ(stores: Stores, job_id: UUID) -> None:
    """Samples are drawn with the adapter: those of the last step are others than those of step 4."""
    made = [file for file in stores.database.run(job_files.files(job_id)) if file.role is JobFileRole.SAMPLE]
    first, last = (
        [Image.open(io.BytesIO(stores.blobs.read(file.sha256))).tobytes() for file in made if file.step == step]
        for step in (4, 6)
    )
    assert first != last


@pytest.mark.usefixtures("environment", "prefect")
def test_an_adapter_of_another_family_draws_nothing_and_says_so(
    stores: Stores, tiny_model: Path, tmp_path: Path
) -> None:
    job = submit(stores, tiny_model, **ADAPTER)
    stores.database.run(jobs.claim(job.id, 1, None))
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    tensors = {f"{layer}.lora_A.weight": torch.ones(4, 2048), f"{layer}.lora_B.weight": torch.ones(16, 4)}
    facts = {"lora_adapter_metadata": adapter_metadata(tensors, AdapterForm(rank=4, alpha=8.0))}
    write_tensors(tmp_path / DIFFUSERS_FILE, tensors, facts)
    blob = stores.blobs.put_file(tmp_path / DIFFUSERS_FILE)
    version = TrainedVersion(
        model_name="of another family",
        base_model="tiny",
        trained_words=("sks mug",),
        recipe=end_of(stores, job.id).request,
        evaluation=None,
        files=(NewFile(path=DIFFUSERS_FILE, role=FileRole.FOLDER, sha256=blob.sha256, size=blob.size),),
    )
    published = stores.database.run(publication.publish(job.id, 1, version))
    request = WorkflowRequest(model=published.id, prompt="a photo of a mug")
    drawing, _ = stores.database.run(submit_workflow(request, job.account_id, stores.settings, seed=1))

    with an_engine(stores):
        assert generate_images() == 0

    row = end_of(stores, drawing.id)
    assert (row.state, row.failure_code) == (JobState.FAILED, "unusable_weights"), row.failure_reason
    said = f"adapter.safetensors was trained on another family or base: {layer} is"
    assert (row.failure_reason or "").startswith(said)
    assert (row.failure_reason or "").endswith("Draw with the base it names.")
    assert [file for file in stores.database.run(job_files.files(drawing.id)) if file.role is JobFileRole.IMAGE] == []
