"""MLflow loads a registered version by its own functions, and it draws what the platform draws."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow.diffusers import load_model as load_adapter
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from deployments.base_models.registration import add_base_model
from flows.diffusion.sampled_sets import png
from flows.diffusion.sampler import draw_images
from flows.jobs.tracking import EXPERIMENT, tracking_client
from flows.training.adapters import loading
from flows.upkeep.tracking_repairs import reconcile_tracking
from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, models
from storage.postgres.jobs import jobs, publication, submissions
from storage.records.catalog.catalog import FileRole, Model, NewFile, TrainedVersion
from storage.records.catalog.vocabulary import ModelType
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.records.jobs.training import TrainingRequest
from storage.settings import MlflowSettings, Settings
from storage.stores import Stores
from tests.flows.training.adapters.adapters import lora_recipe, trained_adapter
from tests.flows.training.tiny import FAMILY
from tests.storage.makers import a_data_set

PROMPT = "a photo of a sks mug"
SAMPLER = SamplerSettings(steps=2, guidance_scale=3.0)


@pytest.fixture
def registry(stores: Stores, mlflow_settings: MlflowSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """MLflow's own functions ask the tests' server."""
    stores.settings.mlflow = mlflow_settings
    tracking_client(stores.settings)
    torch.set_num_threads(1)  # their number changes how sums are rounded, and the platform draws with the recipe's
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_settings.url)
    path = list(sys.path)
    yield stores.settings
    sys.path[:] = path  # MLflow puts the folder of each model that it loads in front


def published(stores: Stores, base: Path, members: dict[str, Path], kind: ModelType, **fields: object) -> str:
    """A version of these files, as a training of the base publishes it; what the registry calls it."""
    account = stores.database.run(accounts.ensure_account("owner")).id
    add_base_model(stores, base, "tiny")
    photos = a_data_set(stores.database, account)
    request = TrainingRequest(data_set_id=photos, class_word="mug", base_model="tiny", name="a tiny model", **fields)  # pyright: ignore[reportArgumentType]
    job, _ = stores.database.run(submissions.submit_training(request, account, stores.settings, seed=1))
    stores.database.run(jobs.claim(job.id, 1, None))
    files: list[NewFile] = []
    for path, file in members.items():
        blob = stores.blobs.put_file(file)
        files.append(NewFile(path=path, role=FileRole.FOLDER, sha256=blob.sha256, size=blob.size))
    weights = stores.blobs.put(b"the single file, which nobody reads here")
    files.append(NewFile(path="one.safetensors", role=FileRole.WEIGHTS, sha256=weights.sha256, size=weights.size))
    new = TrainedVersion(
        model_name="a tiny model",
        base_model="Other",
        trained_words=("sks mug",),
        recipe=job.request,
        evaluation={"prompt_accuracy": 0.75, "measured_by": "a test"},
        files=tuple(files),
        type=kind,
    )
    version = stores.database.run(publication.publish(job.id, 1, new))
    findings = reconcile_tracking(stores)
    assert any("was not in MLflow's registry" in finding for finding in findings), findings
    registered = stores.database.run(catalog.version_by_id(version.id)).registered_as
    assert registered is not None
    return registered


def folder_files(folder: Path) -> dict[str, Path]:
    return {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}


def drawn(folder: Path, seed: int, adapter: Path | None = None, sampler: SamplerSettings = SAMPLER) -> bytes:
    """What our sampler draws."""
    components = FAMILY.load(folder)
    if adapter is not None:
        loading.load_adapter(components, adapter)
    [image] = draw_images(FAMILY, components, [PROMPT], [seed], sampler)
    return png(image)


def test_a_whole_model_draws_the_platforms_bytes_from_the_blob_store(
    stores: Stores, registry: Settings, tiny_model: Path
) -> None:
    registered = published(stores, tiny_model, folder_files(tiny_model), ModelType.CHECKPOINT)
    model = mlflow.pyfunc.load_model(f"models:/{registered}")
    images = model.predict({"prompt": [PROMPT, PROMPT]}, params={"seed": 3})
    assert images == [drawn(tiny_model, 3), drawn(tiny_model, 4)]
    assert images[0] != images[1]
    other = SamplerSettings(steps=3, guidance_scale=1.0)
    asked = {"seed": 3, "num_inference_steps": 3, "guidance_scale": 1.0}
    assert model.predict({"prompt": [PROMPT]}, params=asked) == [drawn(tiny_model, 3, sampler=other)]
    assert model.metadata.signature is not None
    assert [one.name for one in model.metadata.get_params_schema() or []] == [
        *("seed", "num_inference_steps", "guidance_scale", "negative_prompt")
    ]

    client = tracking_client(registry)
    name, number = registered.rsplit("/", 1)
    version, entry = client.get_model_version(name, number), client.get_registered_model(name)
    assert "| prompt accuracy | 0.75 |" in (version.description or "")
    assert "mlflow.pyfunc.load_model" in (entry.description or "")
    assert (version.tags["method"], version.tags["trained_words"]) == ("full", "sks mug")
    assert client.get_model_version_by_alias(name, "current").version == number
    assert version.run_id is not None
    outputs = client.get_run(version.run_id).outputs
    assert outputs is not None
    [output] = outputs.model_outputs
    taken = sum(file.file_size or 0 for file in all_files(client, output.model_id))
    assert taken < 40_000 < sum(file.stat().st_size for file in tiny_model.rglob("*.safetensors")), (
        "the weights are in the blob store, and not in MLflow a second time"
    )


def all_files(client: mlflow.MlflowClient, model_id: str, path: str | None = None) -> Iterator[FileInfo]:
    for file in client.list_logged_model_artifacts(model_id, path):
        yield from all_files(client, model_id, file.path) if file.is_dir else [file]


@pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated:FutureWarning")  # as MLflow 3.17 calls diffusers
def test_an_adapter_loads_as_mlflows_own_kind_and_draws_the_platforms_bytes(
    stores: Stores, registry: Settings, tiny_model: Path, tmp_path: Path
) -> None:
    wanted = lora_recipe()
    _, made = trained_adapter(tiny_model, tmp_path / "work", wanted)
    [(path, file)] = made.folder.items()
    registered = published(stores, tiny_model, {path: file}, ModelType.LORA, method="lora", lora_rank=4)
    model = mlflow.pyfunc.load_model(f"models:/{registered}")
    [image] = model.predict({"prompt": [PROMPT]}, params={"seed": 3})
    assert image == drawn(tiny_model, 3, file)
    assert image != drawn(tiny_model, 3)

    adapter = load_adapter(f"models:/{registered}")
    assert adapter.adapter_type == "lora"
    pipeline = adapter.load_pipeline(base_model=str(tiny_model), device="cpu")
    assert pipeline.get_active_adapters() != []
    # Where this machine keeps its copy of the base it loads by itself.
    shutil.copytree(tiny_model, adapter.base_model)
    assert adapter.load_pipeline(device="cpu").get_active_adapters() != []

    # A take-down takes the weights out of MLflow, and a restored one is there again; a deleted one goes for good.
    client, moderated = tracking_client(registry), model_of(stores, registered)
    stores.database.run(models.take_down(moderated, "a test"))
    assert any("no longer in MLflow's registry" in finding for finding in reconcile_tracking(stores))
    assert copies_in_mlflow(client) == []
    with pytest.raises(MlflowException, match="not found"):
        mlflow.pyfunc.load_model(f"models:/{registered}")
    assert reconcile_tracking(stores) == []
    stores.database.run(models.restore(moderated))
    assert any("was not in MLflow's registry" in finding for finding in reconcile_tracking(stores))
    assert copies_in_mlflow(client) != []
    stores.database.run(lambda: models.delete(moderated, "a test"))
    reconcile_tracking(stores)
    assert copies_in_mlflow(client) == []


def model_of(stores: Stores, registered: str) -> Model:
    return stores.database.run(catalog.model_by_id(int(registered.rsplit("/", 1)[0].rsplit("#", 1)[1])))


def copies_in_mlflow(client: mlflow.MlflowClient) -> list[str]:
    """Adapters' weights that MLflow's server still hands out, also those of logged models that it marks as deleted."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    root = get_artifact_repository(str(experiment.artifact_location), os.environ["MLFLOW_TRACKING_URI"])
    folders, found = [""], list[str]()
    while folders:
        for file in root.list_artifacts(folders.pop() or None):
            (folders if file.is_dir else found).append(str(file.path))
    return [path for path in found if path.endswith(".safetensors")]


def test_what_the_blob_store_lacks_or_has_damaged_is_named(
    stores: Stores, registry: Settings, tiny_model: Path, tmp_path: Path
) -> None:
    registered = published(stores, tiny_model, folder_files(tiny_model), ModelType.CHECKPOINT)
    moved = stores.settings.data_folder / "blobs"
    elsewhere = {"blobs": (tmp_path / "elsewhere").as_uri()}
    with pytest.raises(MlflowException, match=r"is not in the blob store .*elsewhere.* model_config="):
        mlflow.pyfunc.load_model(f"models:/{registered}", model_config=elsewhere)
    shutil.move(moved, tmp_path / "elsewhere")
    model = mlflow.pyfunc.load_model(f"models:/{registered.rsplit('/', 1)[0]}@current", model_config=elsewhere)
    assert model.predict({"prompt": [PROMPT]}, params={"seed": 3}) == [drawn(tiny_model, 3)]
    damaged = next(file for file in (tmp_path / "elsewhere").glob("??/*") if file.stat().st_size > 100_000)
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(MlflowException, match="is damaged in the blob store"):
        mlflow.pyfunc.load_model(f"models:/{registered}", model_config=elsewhere)
