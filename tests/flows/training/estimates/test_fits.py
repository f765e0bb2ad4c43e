"""A training that cannot fit is refused before it begins, with what to change; one that may not fit is warned of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flows.training.checkpointing.room import DiskRoom, disk_room
from flows.training.estimates.fits import DoesNotFit, check_fits, memory_of, precision_warnings
from storage.records.jobs.costs.activations import UnetShape, kept_bytes
from storage.records.jobs.training import TrainingRecipe
from storage.settings import BlobSettings, QuotaSettings, Settings
from tests.flows.training.tiny import recipe
from tests.storage.model_files import CONFIGS, write_model

CPU = torch.device("cpu")


def room(folder: Path, wanted: TrainingRecipe | None = None, floor: int = 0) -> DiskRoom:
    settings = Settings(
        data_folder=folder,
        blobs=BlobSettings(url=f"file://{folder}/blobs"),
        quotas=QuotaSettings(free_space_bytes=floor),
    )
    return disk_room(settings, wanted or recipe(), folder / "work")


def test_the_memory_of_this_machine_is_known() -> None:
    available, whole = memory_of(CPU)
    assert 0 < available <= whole


def test_what_fits_is_passed_in_silence(tmp_path: Path) -> None:
    assert check_fits(write_model(tmp_path / "model"), recipe(), CPU, room(tmp_path)) == []


def test_what_cannot_fit_is_refused_with_what_to_change(tmp_path: Path) -> None:
    huge = recipe(resolution=8 * 16384)
    with pytest.raises(DoesNotFit) as refused:
        check_fits(write_model(tmp_path / "model"), huge, CPU, room(tmp_path))
    message = str(refused.value)
    assert message.startswith("Training needs about ")
    assert "of memory (±15 %), and this machine has" in message
    for change in ("splitBackward: true", "gradientCheckpointing: true", "precision: bf16"):
        assert change in message


def test_what_only_just_fits_is_warned_of(tmp_path: Path) -> None:
    """More than is available now, less than the machine has: others may leave it."""
    folder = write_model(tmp_path / "model")
    available, whole = memory_of(CPU)
    wanted = (available + whole) // 2
    # Activations grow with the square of the side: the side at which the steps need that much.
    side = int((wanted / _activations_of_one_pixel()) ** 0.5) // 8 * 8
    if whole < 1.2 * available:
        pytest.skip("nothing else uses this machine's memory")
    [warning] = check_fits(folder, recipe(resolution=side), CPU, room(tmp_path))
    assert "To reduce it: splitBackward: true" in warning


def _activations_of_one_pixel() -> float:
    return kept_bytes(UnetShape.of_config(CONFIGS["unet"]), checkpointed=False, mixed=False) * 2 / 64


def test_too_little_disk_is_warned_of(tmp_path: Path) -> None:
    [warning] = check_fits(write_model(tmp_path / "model"), recipe(), CPU, room(tmp_path, floor=10**18))
    assert warning.startswith("The job may need ")
    assert "are to stay free" in warning


@pytest.mark.parametrize(
    ("precision", "capability", "warned"),
    [("bf16", (7, 5), 1), ("bf16", (8, 0), 0), ("bf16", (9, 0), 0), ("bf16", None, 0), ("fp16", (7, 5), 0)],
)
def test_bf16_on_a_card_without_it_is_warned_of(
    precision: str, capability: tuple[int, int] | None, warned: int
) -> None:
    warnings = precision_warnings(precision, capability)
    assert len(warnings) == warned
    assert all("7.5" in one and "precision: fp16" in one for one in warnings)


def test_a_warning_of_the_cards_precision_is_among_those_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr("flows.training.estimates.fits.memory_of", lambda _: (10**12, 10**12))
    folder = write_model(tmp_path / "model")
    [warning] = check_fits(folder, recipe(precision="bf16"), torch.device("cuda"), room(tmp_path))
    assert "precision: fp16" in warning


def test_a_folder_without_weights_is_left_to_who_loads_it(tmp_path: Path) -> None:
    assert check_fits(tmp_path, recipe(), CPU, room(tmp_path)) == []
