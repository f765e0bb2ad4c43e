"""What MLflow's pages say of a registered model and of its versions, as Markdown."""

from __future__ import annotations

from storage.records.catalog.catalog import Model, ModelVersion
from storage.records.jobs.training import TrainingJobRequest

LOAD = """```python
import mlflow

model = mlflow.pyfunc.load_model("models:/{name}/NUMBER")
[png] = model.predict({{"prompt": ["{prompt}"]}}, params={{"seed": 3}})
```"""
LOAD_ADAPTER = "`mlflow.diffusers.load_model` returns the adapter alone; its `load_pipeline` takes `base_model=FOLDER`."


def describe_model(model: Model, name: str, request: TrainingJobRequest, api: str) -> str:
    """What the registered model `name` is, where the catalogue has it, and how to draw with it."""
    parts = [
        f"A fine-tune of Darkroom's catalogue: {model.type} [{model.id}]({api}/api/v1/models/{model.id}). The alias "
        "`current` is the version that was published last.",
        LOAD.format(name=name, prompt=request.recipe.instance_prompt),
    ]
    return "\n\n".join([*parts, LOAD_ADAPTER] if request.recipe.trains_adapter else parts)


def describe_version(version: ModelVersion, request: TrainingJobRequest, api: str) -> str:
    """What a version was made from and how it was measured."""
    recipe = request.recipe
    facts: dict[str, object] = {
        "words": ", ".join(version.trained_words),
        "base model": request.base_model,
        "method": recipe.method,
        "steps": recipe.steps,
        "seed": recipe.seed,
        "recipe": recipe.fingerprint(),
        "catalogue": f"[version {version.id}]({api}/api/v1/model-versions/{version.id})",
    }
    measured = {
        name.replace("_", " "): f"{value:.4g}"
        for name, value in (version.evaluation or {}).items()
        if isinstance(value, float)
    }
    # MLflow shows the first line of it in lists.
    summary = f"{recipe.method} fine-tune of {request.base_model}, {recipe.steps} steps"
    if (fidelity := (version.evaluation or {}).get("subject_fidelity")) is not None:
        summary += f", subject fidelity {fidelity:.3f}"
    rows = [f"| {name} | {value} |" for name, value in {**facts, **measured}.items()]
    return "\n".join([f"{summary}.", "", "| | |", "|---|---|", *rows])
