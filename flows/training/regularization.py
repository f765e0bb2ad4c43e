"""@flow sample-regularization-images: fill a set of class images, which later jobs share and may extend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from prefect import flow, get_run_logger
from pydantic import Field

from flows.runs.lazy_imports import imported_when_used
from storage.postgres.jobs import base_models
from storage.settings import load_settings
from storage.stores import open_stores

if TYPE_CHECKING:
    from flows.training import regularization_steps as steps
else:
    steps = imported_when_used("flows.training.regularization_steps")


@flow(name="sample-regularization-images")
def sample_regularization_images(
    class_word: Annotated[str, Field(min_length=1, max_length=64)],
    base_model: Annotated[str, Field(min_length=1, max_length=64)] = "starter",
    count: Annotated[int, Field(ge=1, le=2000)] = 100,
) -> str:
    """Draw the regularization images of a class ahead of time; returns the key of the set.

    Args:
        class_word: The noun of the class, for example mug.
        base_model: Name of a registered base model.
        count: How many images.
    """
    settings = load_settings()
    with open_stores(settings) as stores:
        base = stores.database.run(base_models.by_name(base_model))
        recipe = steps.class_recipe(base, class_word, count, settings)
        folder = steps.fetch_base_folder(stores, base.folder_hash)
        images = steps.fill_set(stores, recipe, folder)
    get_run_logger().info("set %s holds %d images of '%s'", recipe.key(), len(images), class_word)
    return recipe.key()
