"""Fitting: from a recipe and its images to trained components, resumed from the newest checkpoint if there is one."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Self

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from flows.diffusion.families.protocol import Components, Family
from flows.diffusion.memory import bytes_of_parameters, freed_memory_kept, return_freed
from flows.training.callbacks import StepBoundary, Termination, Watch, catch_up
from flows.training.checkpointing.host_copies import HostCopies
from flows.training.checkpoints import CheckpointStore, read_checkpoint
from flows.training.methods.frozen import FrozenWatch
from flows.training.methods.lookup import method_named
from flows.training.methods.protocol import Training, parameters_of
from flows.training.module import DreamBoothModule
from flows.training.optimizers.protocol import release
from flows.training.photos.encodings import EncodingCache
from flows.training.photos.latents import TrainingImages
from flows.training.precision import checkpoint_activations, precision_plugins
from storage.records.jobs.training import TrainingRecipe

logger = logging.getLogger(__name__)


def fit(
    recipe: TrainingRecipe,
    family: Family,
    components: Components,
    images: TrainingImages,
    *,
    recipe_hash: str,
    newest: Path | None,
    checkpoints: CheckpointStore,
    work_folder: Path,
    watch: Watch | None = None,
    encodings: EncodingCache | None = None,
) -> frozenset[str]:
    """Train `components` in place for the recipe's steps; returns the names of the components that changed.

    `recipe_hash` is the job's stored one, which its checkpoints name: a later release may write the same recipe with
    more fields. `newest` is the checkpoint to go on from, if any. `work_folder` holds a checkpoint while it is written.
    Prompts that `encodings` has are not encoded again.
    A SIGTERM that arrives during a step takes effect at its end. Raises InvalidCheckpoint if `newest` is not of this
    recipe, FrozenWeightsChanged if a weight that does not train is not the base's afterwards, and whatever `watch`
    raises.
    """
    device, watch = components.device, watch or Watch()
    training = method_named(recipe.method).begin(family, components, recipe)
    with _Ending(components, training) as ending:
        frozen = FrozenWatch(components, training.groups)
        module = DreamBoothModule(recipe, family, components, training, images, encodings)
        ending.optimizer = module.optimizer
        checkpoint_activations(components, recipe.gradient_checkpointing)
        # A method may change how its parameters lie in memory. A fused optimizer pairs weights with moments by their
        # place there, so the moments of a checkpoint must find the layout of the steps.
        training.begin_step(0)
        start = 0
        if newest is not None:
            with watch.measured("resume"):
                start = read_checkpoint(newest, fingerprint=recipe_hash, state=module.training_state)
            watch.on_resumed()
            logger.info("resuming at step %d of %d", start, recipe.last_step)
        if start < recipe.last_step:
            watch.on_begin(sum(one.numel() for one in parameters_of(training.groups).values()))
            copies = HostCopies(device, sum(bytes_of_parameters(module) for module in components.modules.values()))
            boundary = StepBoundary(checkpoints, recipe_hash, watch, Termination(), work_folder, copies, start)
            with watch.measured("fit"), freed_memory_kept(device):
                try:
                    _run(module, start, boundary)
                finally:
                    boundary.close()
        else:
            catch_up(module, watch, start)
        module.averaged.settle()
        # Before `finish`, which writes the identifier's rows into a table whose other rows are frozen.
        compared = frozen.compare()
        watch.on_frozen(compared)
        logger.info("%s, as held in %s", compared.summary, recipe.frozen_precision)
    return_freed(device)
    return ending.changed


class _Ending:
    """What a fit does at its end, also after an error: a hook that stays on the embedding table would change what is
    drawn next with these components.

    `optimizer` is set once there is one. After an error, what fails here too is logged: the first one says what to do.
    """

    def __init__(self, components: Components, training: Training) -> None:
        self._components, self._training, self._device = components, training, components.device
        self.optimizer: Optimizer | None = None
        self.changed: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # Memory first: beside gradients and moments, parts that rest may find no room. They come back before a method's
        # last touch, which is on the device where it began.
        first = error
        for step in (self._release, self._move_back, self._finish):
            try:
                step()
            except Exception as later:
                if first is None:
                    first = later
                else:
                    logger.exception("a fit that ended with %s: its end failed", type(first).__name__)
        if error is None and first is not None:
            raise first

    def _release(self) -> None:
        if self.optimizer is not None:
            release(self.optimizer, self._training.groups)

    def _move_back(self) -> None:
        self._components.to(self._device)

    def _finish(self) -> None:
        self.changed = self._training.finish()
        checkpoint_activations(self._components, False)


def check_released(components: Components) -> None:
    """Refuse to go on while gradients of a fit are kept: nothing later needs them, and they take as much as weights.
    Raises AssertionError: no input causes it."""
    kept = [
        f"{name}.{key}"
        for name, module in components.modules.items()
        for key, parameter in module.named_parameters()
        if parameter.grad is not None
    ]
    assert not kept, f"The fit left {len(kept)} gradients, the first of {kept[0]}."


class StayingInPlace(SingleDeviceStrategy):
    """One device, on which all stays when the training ends.

    Lightning's own moves weights, gradients and the optimizer's state to the host's memory, which may not have as much.
    """

    def teardown(self) -> None:
        """End the precision and the device."""
        self.precision_plugin.teardown()
        if self.accelerator is not None:
            self.accelerator.teardown()


def _run(module: DreamBoothModule, start: int, boundary: StepBoundary) -> None:
    # It announces devices and tips at INFO, once for each job.
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    trainer = Trainer(
        accelerator="gpu" if module.components.device.type == "cuda" else "cpu",
        devices=1,
        strategy=StayingInPlace(module.components.device),
        plugins=list(precision_plugins(module.recipe.precision, module.components.device, module.scaler)),
        # An epoch is all the steps that are left.
        max_epochs=1,
        callbacks=[boundary],
        logger=False,
        # Its checkpoints are pickles; `StepBoundary` writes ours.
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        barebones=False,
        deterministic=None,  # set by prepare_torch
    )
    # A batch is a step's number; the images are already in memory, so loader workers would only cost.
    numbers = DataLoader(range(start, module.recipe.last_step), batch_size=None, shuffle=False)  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # A method may train one part of a model; the others stay in the mode in which they were loaded.
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
        # torch deprecates what Lightning 2.6 uses to walk a batch.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        with torch.enable_grad():
            trainer.fit(module, numbers)
