"""What happens between two training steps: report, check, checkpoint, stop, validate, sample. Never within one."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch.amp.grad_scaler import GradScaler

from flows.diffusion.devices import wait_for
from flows.diffusion.finite import is_finite
from flows.training.checkpointing.host_copies import HostCopies
from flows.training.checkpointing.writer import CheckpointPause, CheckpointWriter
from flows.training.checkpoints import CheckpointStore, checkpoint_content
from flows.training.methods.frozen import FrozenTensors
from flows.training.methods.protocol import parameters_of
from flows.training.metrics.validation import measured_at
from flows.training.module import DreamBoothModule
from flows.training.optimizers.learning_rates import used_rates
from flows.training.optimizers.protocol import release
from flows.training.precision import LOWEST_SCALE
from storage.errors import CancellationRequested, TrainingDiverged
from storage.records.jobs.training import TrainingRecipe


@dataclass(frozen=True)
class StepReport:
    """One finished step. `step` counts from 1; `seconds` and `images_per_second` leave out checkpoints, samples and
    validation. `learning_rates` has each group's by name; Prodigy's are those that it has found."""

    step: int
    steps: int
    loss: float
    instance_loss: float
    prior_loss: float
    learning_rate: float
    gradient_norm: float
    images_per_second: float
    seconds: float = 0.0
    learning_rates: Mapping[str, float] = field(default_factory=dict[str, float])


def _nothing(_: Any) -> None:
    return None


@dataclass(frozen=True)
class Watch:
    """Callbacks of the caller between steps. Each is called with the training at rest.

    on_step: the report of the step that just ended. check: the number of finished steps; raises CancellationRequested
    to stop with a checkpoint, anything else to stop without one. on_sample: the number of finished steps, every
    `sample_every`; may draw images with the components, but must not touch the global random generator. sampled:
    whether that was done for a number of steps; asked for the one that a resumed training starts from. stopping:
    surrounds the keeping of a cancelled training's last checkpoint, which the caller's store must not refuse. measured:
    surrounds each piece of the fit (`resume`, `fit`), whose memory the caller may measure.
    on_begin: how many weights will train, before the first step; raises DiskFull where they would find no room.
    room: the bytes of a checkpoint before it is written; raises DiskFull where there is no room for it. on_checkpoint:
    how long the training stood still for one. on_resumed: a checkpoint was read, and its file is needed no more.
    on_frozen: at the end, the frozen tensors that were compared with the base's. on_validation: the number of steps
    after which the recipe has the validation loss measured, 0 and the one that a resumed training starts from among
    them; as on_sample it may compute with the components.
    """

    on_step: Callable[[StepReport], None] = _nothing
    check: Callable[[int], None] = _nothing
    on_sample: Callable[[int], None] = _nothing
    sampled: Callable[[int], bool] = lambda _: True
    stopping: Callable[[], AbstractContextManager[None]] = nullcontext
    measured: Callable[[str], AbstractContextManager[Any]] = nullcontext
    on_begin: Callable[[int], None] = _nothing
    room: Callable[[int], None] = _nothing
    on_checkpoint: Callable[[CheckpointPause], None] = _nothing
    on_resumed: Callable[[], None] = lambda: None
    on_frozen: Callable[[FrozenTensors], None] = _nothing
    on_validation: Callable[[int], None] = _nothing


class Termination:
    """SIGTERM, held back while a step runs. Prefect's own handler would raise in the middle of an optimizer step."""

    def __init__(self) -> None:
        self.requested: bool = False
        self._previous = signal.getsignal(signal.SIGTERM)

    def hold(self) -> None:
        """From now on SIGTERM sets a flag."""
        signal.signal(signal.SIGTERM, self._note)

    def release(self) -> None:
        """Put the earlier handler back."""
        signal.signal(signal.SIGTERM, self._previous)

    def raise_now(self) -> None:
        """Put the earlier handler back and hand it the termination that was held."""
        self.release()
        signal.raise_signal(signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


def validate(module: DreamBoothModule, watch: Watch, done: int) -> None:
    """Have the validation loss measured after `done` steps, if the recipe wants it there."""
    if not measured_at(module.recipe, done):
        return
    # Nothing is averaged before the first step, and an optimizer that averages has no state to do it with.
    with module.resting.back(), module.averaged.in_place() if done else nullcontext():
        watch.on_validation(done)


def catch_up(module: DreamBoothModule, watch: Watch, done: int) -> None:
    """Validate and sample after step `done` where the attempt that wrote its checkpoint died before it could."""
    validate(module, watch, done)
    if done and _samples_at(module.recipe, done) and not watch.sampled(done):
        _sample(module, watch, done)


def _samples_at(recipe: TrainingRecipe, done: int) -> bool:
    return done % recipe.sample_every == 0 or done == recipe.last_step


def _sample(module: DreamBoothModule, watch: Watch, done: int) -> None:
    with module.resting.back(), module.averaged.in_place():
        watch.on_sample(done)


class StepBoundary(Callback):
    """Runs after every step, in this order: report, check, checkpoint, terminate, validate, sample.

    A checkpoint is taken every `checkpoint_every` steps, after the last one, and when a held SIGTERM or a
    cancellation ends the training. An exception that interrupted a step never leads to one. It may be written while the
    next steps run; the last one is waited for, and what kept one from being written ends the training.
    """

    def __init__(
        self,
        checkpoints: CheckpointStore,
        recipe_hash: str,
        watch: Watch,
        termination: Termination,
        work_folder: Path,
        copies: HostCopies,
        resumed_step: int = 0,
    ) -> None:
        self._owner, self._recipe_hash = checkpoints.owner, recipe_hash
        self._watch = watch
        self._termination = termination
        self._writer = CheckpointWriter(
            checkpoints, work_folder, copies, stopping=watch.stopping, room=watch.room, kept_step=resumed_step
        )
        self._taken_step = resumed_step
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning has set its own SIGTERM handler by now; replace it. Its teardown puts the first one back."""
        self._termination.hold()
        assert isinstance(pl_module, DreamBoothModule)
        catch_up(pl_module, self._watch, self._writer.kept_step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the step's clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step boundary."""
        assert isinstance(pl_module, DreamBoothModule)
        done, recipe = int(batch) + 1, pl_module.recipe
        pl_module.averaged.update(done)
        # A GPU is still at work when its calls have returned.
        wait_for(pl_module.components.device)
        seconds = time.perf_counter() - self._started
        report = _report(pl_module, done, seconds)
        self._refuse_no_number(report, pl_module.scaler)
        # As large as what trains: nothing between the steps needs them, and what is drawn there needs their room.
        pl_module.optimizer.zero_grad()
        self._watch.on_step(report)
        self._writer.check()
        try:
            self._watch.check(done)
        except CancellationRequested:
            self._keep(pl_module, done)
            self._writer.wait()
            raise
        last = done == recipe.last_step
        if self._termination.requested or done % recipe.checkpoint_every == 0 or last:
            self._keep(pl_module, done)
        self._terminate()
        validate(pl_module, self._watch, done)
        if _samples_at(recipe, done):
            _sample(pl_module, self._watch, done)
        if last:
            self._writer.wait()
            self._terminate()

    def close(self) -> None:
        """Wait for a checkpoint that is still being written. Called however the training has ended."""
        self._writer.close()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the weights to export in the parameters, then free all that only steps and checkpoints needed."""
        assert isinstance(pl_module, DreamBoothModule)
        pl_module.averaged.settle()
        self.close()
        release(pl_module.optimizer, pl_module.training_groups)

    def _terminate(self) -> None:
        if self._termination.requested:
            # After the checkpoint: the next attempt goes on from this very step.
            self._writer.wait()
            self._termination.raise_now()

    def _refuse_no_number(self, report: StepReport, scaler: GradScaler | None) -> None:
        # A scaled loss may overflow: its step was left out, and the next one has a smaller scale.
        overflowed = scaler is not None and scaler.get_scale() >= LOWEST_SCALE
        for name in ("loss",) if overflowed else ("loss", "gradient_norm"):
            value = getattr(report, name)
            if not math.isfinite(value):
                raise self._diverged(report.step, f"the {name.replace('_', ' ')} is {value}")

    def _diverged(self, step: int, what: str) -> TrainingDiverged:
        self._writer.close()  # whether the one that is being written stays is known only then
        at = self._writer.kept_step
        kept = f"its checkpoint of step {at} stays" if at else "it has no checkpoint yet"
        return TrainingDiverged(
            f"Step {step}: {what}. Nothing of this step was kept; {kept}. Ask for a lower learning rate, also of the "
            "text encoder and the token, or precision fp32; MLflow shows the loss of the steps before."
        )

    def _keep(self, module: DreamBoothModule, step: int) -> None:
        # The last step may be due for several reasons, and is written once.
        if step == self._taken_step:
            return
        for name, parameter in parameters_of(module.training_groups).items():
            if not is_finite(parameter):
                raise self._diverged(step, f"{name} holds what is no finite number")
        content = checkpoint_content(
            step=step, fingerprint=self._recipe_hash, owner=self._owner, state=module.training_state
        )
        self._watch.on_checkpoint(self._writer.write(step, content))
        self._taken_step = step


def _report(module: DreamBoothModule, done: int, seconds: float) -> StepReport:
    loss = module.last_loss
    assert loss is not None
    recipe = module.recipe
    rows = recipe.batch_size * recipe.accumulation * (1 if module.images.regularization is None else 2)
    return StepReport(
        step=done,
        steps=recipe.last_step,
        loss=float(loss.total.detach()),
        instance_loss=float(loss.instance),
        prior_loss=float(loss.prior),
        learning_rate=module.optimizer.param_groups[0]["lr"],
        gradient_norm=module.gradient_norm,
        images_per_second=rows / seconds,
        seconds=seconds,
        learning_rates=used_rates(module.optimizer, module.training_groups),
    )
