from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest
import torch

from flows.diffusion.families.protocol import Components
from flows.training.callbacks import StepReport, Watch
from flows.training.checkpoints import TrainingState, checkpoint_step, read_checkpoint, write_checkpoint
from flows.training.methods.lookup import method_named
from flows.training.optimizers.lookup import optimizer_named
from storage.errors import CancellationRequested, InvalidCheckpoint
from storage.records.jobs.training import TrainingRecipe
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, recipe, train_and_export
from tests.warm import run_warm

ADAMW = optimizer_named("adamw")
STEPS = 6
QUICK = (1, STEPS)
"""Steps after which `make test` resumes, beside those of the tests below: with the most still to do, and with nothing
left but the export. The soak does after each."""
EVERYTHING = recipe(steps=STEPS, text_encoder_learning_rate=1e-3)


@pytest.fixture(scope="module")
def uninterrupted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, KeptCheckpoints]:
    """The exported file's BLAKE3 of a training that nothing disturbed, and its checkpoints of every step."""
    work = tmp_path_factory.mktemp("uninterrupted")
    checkpoints = KeptCheckpoints(work / "checkpoints")
    export = train_and_export(tiny_model, work, EVERYTHING, checkpoints)
    assert export.hashes.blake3 is not None
    return export.hashes.blake3, checkpoints


def only(step: int, checkpoints: KeptCheckpoints, folder: Path) -> KeptCheckpoints:
    """A store that holds the checkpoint of one step alone."""
    copy = KeptCheckpoints(folder)
    file = checkpoints.folder / f"{step}.safetensors"
    copy.keep(step, file, hashlib.sha256(file.read_bytes()).hexdigest())
    return copy


@pytest.mark.parametrize(
    "step", [step if step in QUICK else pytest.param(step, marks=pytest.mark.soak) for step in range(1, STEPS + 1)]
)
def test_resume_equals_uninterrupted(
    step: int, uninterrupted: tuple[str, KeptCheckpoints], tiny_model: Path, tmp_path: Path
):
    whole, checkpoints = uninterrupted
    export = train_and_export(tiny_model, tmp_path, EVERYTHING, only(step, checkpoints, tmp_path / "kept"))
    assert export.hashes.blake3 == whole


def test_resumed_checkpoints_have_the_bytes_of_uninterrupted_ones(
    uninterrupted: tuple[str, KeptCheckpoints], tiny_model: Path, tmp_path: Path
):
    _, checkpoints = uninterrupted
    resumed = only(4, checkpoints, tmp_path / "kept")
    train_and_export(tiny_model, tmp_path, EVERYTHING, resumed)
    assert resumed.kept == list(range(4, STEPS + 1))
    for step in (5, STEPS):
        name = f"{step}.safetensors"
        assert (resumed.folder / name).read_bytes() == (checkpoints.folder / name).read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
from flows.training.callbacks import Watch
from tests.flows.training.tiny import KeptCheckpoints, train_and_export
from tests.flows.training.test_checkpoints import EVERYTHING

base, work, at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def stop(report):
    if report.step == at:
        os.kill(os.getpid(), signal.SIGKILL)

train_and_export(base, work, EVERYTHING, KeptCheckpoints(work / "kept"), Watch(on_step=stop))
"""


def run_until_killed(base: Path, work: Path, at: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    return run_warm(KILLED, str(base), str(work), str(at), environment=environment)


def test_a_training_killed_in_another_process_goes_on_to_the_same_bytes(
    uninterrupted: tuple[str, KeptCheckpoints], tiny_model: Path, tmp_path: Path
):
    killed = run_until_killed(tiny_model, tmp_path, 5)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert KeptCheckpoints(tmp_path / "kept").latest() == (4, tmp_path / "kept" / "4.safetensors")
    export = train_and_export(tiny_model, tmp_path, EVERYTHING, KeptCheckpoints(tmp_path / "kept"))
    assert export.hashes.blake3 == uninterrupted[0]


class Terminated(Exception):
    """What the earlier handler of SIGTERM raises, as Prefect's does."""


def test_sigterm_takes_effect_at_the_step_boundary_after_a_checkpoint(tiny_model: Path, tmp_path: Path):
    wanted, reached = recipe(checkpoint_every=100), list[int]()

    def stop(report: StepReport) -> None:
        reached.append(report.step)
        if report.step == 5:
            signal.raise_signal(signal.SIGTERM)
            reached.append(0)  # it is held until the step has ended

    def end(number: int, frame: object) -> None:
        raise Terminated

    kept, before = KeptCheckpoints(tmp_path / "kept"), signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(Terminated):
            train_and_export(tiny_model, tmp_path, wanted, kept, Watch(on_step=stop))
    finally:
        signal.signal(signal.SIGTERM, before)

    assert reached == [1, 2, 3, 4, 5, 0]
    assert kept.kept == [5]
    assert checkpoint_step(kept.folder / "5.safetensors", wanted.fingerprint()) == 5


def test_the_earlier_sigterm_handler_is_back_after_training(tiny_model: Path, tmp_path: Path):
    before = signal.getsignal(signal.SIGTERM)
    train_and_export(tiny_model, tmp_path, recipe(steps=1), KeptCheckpoints(tmp_path / "kept"))
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_cancelled_training_keeps_the_step_it_had_reached(tiny_model: Path, tmp_path: Path):
    def cancel(step: int) -> None:
        if step == 3:
            raise CancellationRequested("the owner asked to stop")

    checkpoints = KeptCheckpoints(tmp_path / "kept")
    with pytest.raises(CancellationRequested):
        train_and_export(tiny_model, tmp_path, recipe(checkpoint_every=100), checkpoints, Watch(check=cancel))
    assert checkpoints.kept == [3]


def test_a_checkpoint_of_an_older_recipe_goes_on_under_the_hash_that_its_job_has_stored(
    tiny_model: Path, tmp_path: Path
):
    older = msgspec.to_builtins(recipe(steps=4))
    del older["device"]  # a field that the release which wrote the job's row did not have
    stored = hashlib.sha256(json.dumps(older, sort_keys=True).encode()).hexdigest()
    wanted = msgspec.convert(older, TrainingRecipe)
    assert wanted.fingerprint() != stored

    def cancel(step: int) -> None:
        if step == 3:
            raise CancellationRequested("stopped for the upgrade")

    kept = KeptCheckpoints(tmp_path / "kept")
    with pytest.raises(CancellationRequested):
        train_and_export(tiny_model, tmp_path / "first", wanted, kept, Watch(check=cancel), recipe_hash=stored)
    resumed = train_and_export(tiny_model, tmp_path / "second", wanted, kept, recipe_hash=stored)
    straight = KeptCheckpoints(tmp_path / "straight")
    whole = train_and_export(tiny_model, tmp_path / "third", wanted, straight, recipe_hash=stored)
    assert kept.kept == [1, 2, 3, 4]
    assert resumed.hashes.blake3 == whole.hashes.blake3


def test_an_error_during_training_writes_no_checkpoint(tiny_model: Path, tmp_path: Path):
    def fail(report: StepReport) -> None:
        if report.step == 3:
            raise MemoryError

    checkpoints = KeptCheckpoints(tmp_path / "kept")
    with pytest.raises(MemoryError):
        train_and_export(tiny_model, tmp_path, recipe(checkpoint_every=2), checkpoints, Watch(on_step=fail))
    assert checkpoints.kept == [2]
    assert list(tmp_path.glob("checkpoint-*")) == []


def written(components: Components, wanted: TrainingRecipe, file: Path, owner: str = "a job") -> Path:
    training = method_named("full").begin(FAMILY, components, wanted)
    state = TrainingState(training.groups, ADAMW.begin(training.groups))
    write_checkpoint(file, step=4, fingerprint=wanted.fingerprint(), owner=owner, state=state)
    return file


def test_equal_states_are_equal_bytes(components: Components, tmp_path: Path):
    first, second = (written(components, recipe(), tmp_path / name) for name in ("first", "second"))
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    length = int.from_bytes(first.read_bytes()[:8], "little")
    header = json.loads(first.read_bytes()[8 : 8 + length])
    assert list(header) == sorted(header)
    assert header["__metadata__"]["step"] == "4"


def test_no_two_jobs_have_the_same_checkpoint(components: Components, tmp_path: Path):
    one, other = (written(components, recipe(), tmp_path / owner, owner) for owner in ("one", "other"))
    assert one.read_bytes() != other.read_bytes()
    assert checkpoint_step(one, recipe().fingerprint()) == checkpoint_step(other, recipe().fingerprint()) == 4


def test_a_checkpoint_of_another_recipe_is_refused_and_changes_nothing(components: Components, tmp_path: Path):
    file = written(components, recipe(), tmp_path / "file")
    training = method_named("full").begin(FAMILY, components, recipe(seed=8))
    optimizer = ADAMW.begin(training.groups)
    with pytest.raises(InvalidCheckpoint, match="belongs to recipe"):
        read_checkpoint(file, fingerprint=recipe(seed=8).fingerprint(), state=TrainingState(training.groups, optimizer))
    assert not optimizer.state


@pytest.mark.parametrize("where", ["header", "end"])
def test_a_torn_checkpoint_is_refused(where: str, components: Components, tmp_path: Path):
    file = written(components, recipe(), tmp_path / "file")
    content = bytearray(file.read_bytes())
    match where:
        case "header":
            content[3] ^= 1
        case _:
            del content[-1:]
    file.write_bytes(bytes(content))
    with pytest.raises(InvalidCheckpoint, match="file"):
        checkpoint_step(file, recipe().fingerprint())


def test_a_checkpoint_of_other_parameters_is_refused(components: Components, tmp_path: Path):
    file = written(components, recipe(), tmp_path / "file")
    training = method_named("full").begin(FAMILY, components, EVERYTHING)
    with pytest.raises(InvalidCheckpoint, match="does not hold this model's parameters"):
        read_checkpoint(
            file,
            fingerprint=recipe().fingerprint(),
            state=TrainingState(training.groups, ADAMW.begin(training.groups)),
        )


def test_no_pickle_is_entered(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pickle was entered")

    monkeypatch.setattr(torch, "save", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    checkpoints = KeptCheckpoints(tmp_path / "kept")
    train_and_export(tiny_model, tmp_path / "first", recipe(steps=2), checkpoints)
    train_and_export(tiny_model, tmp_path / "resumed", recipe(steps=2), checkpoints)
    assert checkpoints.kept == [1, 2]
