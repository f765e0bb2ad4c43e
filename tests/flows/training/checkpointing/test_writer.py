"""Checkpoints written while training goes on: the same bytes, one at a time, none lost, and no failure unheard."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from flows.training.callbacks import Watch
from flows.training.checkpointing.host_copies import HostCopies
from flows.training.checkpointing.writer import CheckpointPause, CheckpointWriter
from flows.training.checkpoints import CheckpointContent
from storage.errors import CancellationRequested, DiskFull, TrainingDiverged
from tests.flows.training.test_callbacks import spoil_loss
from tests.flows.training.tiny import KeptCheckpoints, recipe, train_and_export
from tests.warm import run_warm

CPU = torch.device("cpu")
WANTED = recipe(steps=4, checkpoint_every=1, text_encoder_learning_rate=1e-3)
PLENTY = 1 << 40


@dataclass
class WatchedStore(KeptCheckpoints):
    """Notes in which thread each checkpoint was kept; `keep` waits for `gate`, and fails at the steps of `failing`."""

    threads: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    failing: tuple[int, ...] = ()

    def keep(self, step: int, file: Path, sha256: str) -> None:
        assert self.gate.wait(60)
        self.threads.append(threading.current_thread().name)
        if step in self.failing:
            raise DiskFull("no room for a checkpoint")
        super().keep(step, file, sha256)


@pytest.fixture
def in_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is memory for a copy, however large the share of the model is."""
    monkeypatch.setattr("flows.training.checkpointing.host_copies.SHARE_OF_MODEL", 1 / 100)


def content(value: float) -> CheckpointContent:
    return CheckpointContent({"weights/one": torch.full((4, 5), value)}, {"step": "1"})


def writer(store: WatchedStore, folder: Path, *, background: bool = True, kept: int = 0) -> CheckpointWriter:
    copies = HostCopies(CPU, PLENTY if background else 0, lambda: PLENTY)
    return CheckpointWriter(store, folder, copies, stopping=nullcontext, room=lambda size: None, kept_step=kept)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WatchedStore]:
    made = WatchedStore(tmp_path / "kept")
    made.gate.set()
    yield made
    made.gate.set()


def test_a_training_writes_the_same_bytes_whether_it_waits_or_goes_on(
    tiny_model: Path, store: WatchedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[CheckpointPause] = []
    waiting = WatchedStore(tmp_path / "waiting", gate=store.gate)
    whole = train_and_export(tiny_model, tmp_path / "one", WANTED, waiting, Watch(on_checkpoint=pauses.append))
    monkeypatch.setattr("flows.training.checkpointing.host_copies.SHARE_OF_MODEL", 1 / 100)
    again = train_and_export(tiny_model, tmp_path / "two", WANTED, store, Watch(on_checkpoint=pauses.append))

    assert [(pause.step, pause.copied) for pause in pauses] == [
        (step, copied) for copied in (False, True) for step in (1, 2, 3, 4)
    ]
    assert store.kept == waiting.kept == [1, 2, 3, 4]
    assert {name.split("_")[0] for name in store.threads + waiting.threads} == {"checkpoint"}
    for step in store.kept:
        name = f"{step}.safetensors"
        assert (store.folder / name).read_bytes() == (waiting.folder / name).read_bytes()
    assert again.hashes == whole.hashes


@pytest.mark.parametrize("copied", [True, False])
def test_training_goes_on_while_one_is_stored_and_waits_before_the_next(
    copied: bool, store: WatchedStore, tmp_path: Path
) -> None:
    store.gate.clear()
    ours, state = writer(store, tmp_path, background=copied), content(1.0)
    assert ours.write(1, state).copied is copied
    assert (ours.kept_step, store.kept) == (0, [])
    state.tensors["weights/one"].fill_(9.0)  # the next step
    ours.check()
    second = threading.Thread(target=ours.write, args=(2, state))
    second.start()
    second.join(0.2)
    assert second.is_alive(), "two checkpoints were in flight"
    store.gate.set()
    second.join(60)
    ours.wait()
    assert (ours.kept_step, store.kept) == (2, [1, 2])
    first, last = ((store.folder / f"{step}.safetensors").read_bytes() for step in (1, 2))
    assert content(1.0).write(tmp_path / "one") != content(9.0).write(tmp_path / "nine")
    assert (first, last) == ((tmp_path / "one").read_bytes(), (tmp_path / "nine").read_bytes())
    ours.close()
    assert list(tmp_path.glob("checkpoint-*")) == []


@pytest.mark.parametrize("then", ["check", "wait", "write"])
def test_what_a_write_raised_is_raised_by_the_next_call(then: str, store: WatchedStore, tmp_path: Path) -> None:
    store.failing = (1,)
    ours = writer(store, tmp_path, kept=7)
    ours.write(1, content(1.0))
    deadline = time.monotonic() + 60
    with pytest.raises(DiskFull, match="no room"):
        while time.monotonic() < deadline:
            if then == "write":
                ours.write(2, content(1.0))
            else:
                getattr(ours, then)()
    assert (ours.kept_step, store.kept) == (7, [])
    ours.wait()  # once
    ours.close()


def test_a_failure_that_nobody_asked_for_is_logged_at_the_end(
    store: WatchedStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.failing = (1,)
    ours = writer(store, tmp_path)
    ours.write(1, content(1.0))
    ours.close()
    assert "a checkpoint was not kept: DiskFull" in caplog.text


@pytest.mark.usefixtures("in_background")
@pytest.mark.parametrize("failing", [2, 4])
def test_a_checkpoint_that_cannot_be_kept_ends_the_training(
    failing: int, tiny_model: Path, store: WatchedStore, tmp_path: Path
) -> None:
    store.failing = (failing,)
    reached: list[int] = []
    with pytest.raises(DiskFull):
        train_and_export(tiny_model, tmp_path, WANTED, store, Watch(on_step=lambda report: reached.append(report.step)))
    assert store.kept == list(range(1, failing))
    assert reached[-1] in (failing, min(4, failing + 1))


@pytest.mark.usefixtures("in_background")
def test_no_room_is_found_out_before_anything_is_written(tiny_model: Path, store: WatchedStore, tmp_path: Path) -> None:
    def room(size: int) -> None:
        if store.kept:
            raise DiskFull(f"{size} bytes")

    with pytest.raises(DiskFull, match=r"\d{6,} bytes"):
        train_and_export(tiny_model, tmp_path, WANTED, store, Watch(room=room, on_step=lambda report: None))
    assert store.kept == [1]


@pytest.mark.usefixtures("in_background")
def test_a_training_that_diverges_names_the_step_that_was_being_written(
    tiny_model: Path, store: WatchedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss(monkeypatch, 2, float("nan"))
    store.gate.clear()
    wanted = recipe(steps=4, checkpoint_every=2)
    threading.Timer(3, store.gate.set).start()
    with pytest.raises(TrainingDiverged, match="its checkpoint of step 2 stays"):
        train_and_export(tiny_model, tmp_path, wanted, store)
    assert store.kept == [2]


@pytest.mark.usefixtures("in_background")
def test_a_cancelled_training_ends_what_is_being_written_and_keeps_its_last_step(
    tiny_model: Path, store: WatchedStore, tmp_path: Path
) -> None:
    def cancel(step: int) -> None:
        if step == 3:
            raise CancellationRequested("the owner asked to stop")

    with pytest.raises(CancellationRequested):
        train_and_export(tiny_model, tmp_path, recipe(steps=9, checkpoint_every=2), store, Watch(check=cancel))
    assert store.kept == [2, 3]


KILLED = """
import os, signal, sys, time
from pathlib import Path
from flows.training.checkpointing import host_copies
from flows.training.callbacks import Watch
from tests.flows.training.checkpointing.test_writer import WANTED
from tests.flows.training.tiny import KeptCheckpoints, train_and_export

host_copies.SHARE_OF_MODEL = 1 / 100

class Slow(KeptCheckpoints):
    def keep(self, step, file, sha256):
        if step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        super().keep(step, file, sha256)

train_and_export(Path(sys.argv[1]), Path(sys.argv[2]), WANTED, Slow(Path(sys.argv[2]) / "kept"))
"""


def test_a_process_killed_while_it_writes_leaves_the_one_before_and_goes_on_to_the_same_bytes(
    tiny_model: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    killed = run_warm(KILLED, str(tiny_model), str(tmp_path / "killed"), environment=environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = KeptCheckpoints(tmp_path / "killed" / "kept")
    newest = kept.latest()
    assert newest is not None
    assert newest[0] == 2
    again = train_and_export(tiny_model, tmp_path / "again", WANTED, kept)
    whole = train_and_export(tiny_model, tmp_path / "whole", WANTED, KeptCheckpoints(tmp_path / "whole" / "kept"))
    assert again.hashes == whole.hashes
