"""Between two steps: what is no number ends a training, and a cancelled one keeps what it has reached."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from flows.diffusion.families.protocol import Components
from flows.training.callbacks import StepReport, Watch
from flows.training.checkpoints import checkpoint_step
from flows.training.module import DreamBoothModule
from storage.errors import CancellationRequested, TrainingDiverged
from tests.flows.training.tiny import KeptCheckpoints, recipe, train, train_and_export


def spoil_loss(monkeypatch: pytest.MonkeyPatch, at: int, value: float) -> None:
    """Make the loss of one step (from 0) so."""
    true_loss = DreamBoothModule.training_step

    def loss(module: DreamBoothModule, batch: int, batch_idx: int = 0) -> torch.Tensor:
        total = true_loss(module, batch, batch_idx)
        if batch != at:
            return total
        assert module.last_loss is not None
        module.last_loss = module.last_loss._replace(total=total * value)
        return module.last_loss.total

    monkeypatch.setattr(DreamBoothModule, "training_step", loss)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training_and_spares_its_checkpoints(
    value: float, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss(monkeypatch, 3, value)
    kept, wanted = KeptCheckpoints(tmp_path / "kept"), recipe(steps=6, checkpoint_every=2)
    reports: list[StepReport] = []
    with pytest.raises(TrainingDiverged, match=r"Step 4: the loss is .* its checkpoint of step 2 stays"):
        train_and_export(tiny_model, tmp_path, wanted, kept, Watch(on_step=reports.append))
    assert kept.kept == [2]
    assert [report.step for report in reports] == [1, 2, 3], "a step that failed was reported as a finished one"


def test_weights_that_are_no_numbers_are_kept_in_no_checkpoint(
    tiny_model: Path, components: Components, tmp_path: Path
) -> None:
    kept, wanted = KeptCheckpoints(tmp_path / "kept"), recipe(steps=2, checkpoint_every=1, learning_rate=1.0)
    trained: list[torch.nn.Module] = []

    def spoil(step: int) -> None:
        if step == 2:
            with torch.no_grad():
                next(iter(trained[0].parameters())).fill_(float("nan"))

    def begin(module: DreamBoothModule) -> None:
        trained.append(module.unet)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DreamBoothModule, "on_train_start", begin)
        with pytest.raises(TrainingDiverged, match=r"Step 2: unet\..* holds what is no finite number"):
            train_and_export(tiny_model, tmp_path, wanted, kept, Watch(check=spoil))
    assert kept.kept == [1]


class StoreOfAJob(KeptCheckpoints):
    """Refuses what a job's store refuses once the job is cancelled, outside `stopping`."""

    cancelled = False
    stopping = False

    def keep(self, step: int, file: Path, sha256: str) -> None:
        if self.cancelled and not self.stopping:
            raise CancellationRequested("The job was cancelled by its owner.")
        super().keep(step, file, sha256)


def test_a_cancelled_training_stores_its_last_step_although_the_store_knows_of_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    kept, wanted = StoreOfAJob(tmp_path / "kept"), recipe(steps=9, checkpoint_every=9)

    def check(step: int) -> None:
        if step == 3:
            kept.cancelled = True
            raise CancellationRequested("The job was cancelled by its owner.")

    @contextmanager
    def stopping() -> Generator[None]:
        kept.stopping = True
        yield
        kept.stopping = False

    with pytest.raises(CancellationRequested):
        train_and_export(tiny_model, tmp_path, wanted, kept, Watch(check=check, stopping=stopping))
    newest = kept.latest()
    assert newest is not None
    assert checkpoint_step(newest[1], wanted.fingerprint()) == 3


class Killed(Exception):
    """A process that dies."""


@pytest.mark.parametrize(("died_at", "drawn_by_the_next"), [(1, [1, 2]), (2, [2])])
def test_samples_that_a_dead_attempt_left_out_are_drawn_once(
    died_at: int, drawn_by_the_next: list[int], tiny_model: Path, tmp_path: Path
) -> None:
    """Behind the checkpoint of a step and before its samples: the last step's too, behind which there is no other."""
    wanted, kept = recipe(steps=2, checkpoint_every=1, sample_every=1), KeptCheckpoints(tmp_path / "kept")
    there: list[int] = []

    def draw(step: int) -> None:
        if step == died_at:
            raise Killed
        there.append(step)

    with pytest.raises(Killed):
        train(tiny_model, tmp_path, wanted, kept, Watch(on_sample=draw))
    before = list(there)
    for _ in range(2):
        train(tiny_model, tmp_path, wanted, kept, Watch(on_sample=there.append, sampled=there.__contains__))
    assert there == [*before, *drawn_by_the_next]
