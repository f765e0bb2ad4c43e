"""A training in a process of its own that dies at a given place, or whenever it is killed, and one that goes on.

Processes are forked from one that has torch, as those of flow runs are: a death costs a second, not ten.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from flows.diffusion.families.lookup import family_named
from flows.training.callbacks import StepReport, Watch
from flows.training.methods.lookup import method_named
from storage.records.jobs.training import TrainingRecipe
from tests.flows.training.tiny import KeptCheckpoints, recipe, train
from tests.warm import CONTEXT

STEPS = 6
CHECKPOINT_EVERY = 2
FAMILIES = ("sd1", "sdxl")
METHODS: dict[str, dict[str, Any]] = {
    "full": {"text_encoder_learning_rate": 1e-4},
    "lora": {
        "learning_rate": 1e-2,
        "text_encoder_learning_rate": 1e-2,
        "token_learning_rate": 0.0,
        "lora_rank": 4,
        "lora_alpha": 8.0,
        "lora_dropout": 0.2,
    },
}
"""Each with all that it can train."""
COMBINATIONS = [(family, method) for family in FAMILIES for method in METHODS]

BEGINNING, FIT, RESUME, EXPORT = "beginning", "fit", "resume", "export"


def places() -> list[str]:
    """Every place where a training can be made to die, in the order in which one that dies at each comes to them:
    between its stages, after a step before its checkpoint, while a checkpoint is stored and once it is, and between the
    files of the export."""
    found = [BEGINNING, FIT]
    for step in range(1, STEPS + 1):
        found.append(f"step:{step}")
        if step % CHECKPOINT_EVERY == 0:
            found += [f"half:{step}", f"kept:{step}"]
        if step == CHECKPOINT_EVERY:
            found.append(RESUME)
    return [*found, EXPORT, "file:1"]


def wanted(family: str, method: str) -> TrainingRecipe:
    """A training of a few steps whose last one has a checkpoint too."""
    fields = {"steps": STEPS, "checkpoint_every": CHECKPOINT_EVERY, "family": family, "method": method}
    return recipe(**{**fields, **METHODS[method]})


@dataclass
class Dying:
    """Where one process is to die; the other end hears of every place that it reaches."""

    place: str
    heard: Connection
    files: int = 0

    def reach(self, place: str) -> None:
        """Report, and die here if that was the order."""
        self.heard.send(place)
        if place == self.place:
            # Not `sys.exit`: what is tested is a death in which nothing is tidied up.
            os.kill(os.getpid(), signal.SIGKILL)

    def next_file(self) -> None:
        """Before a file of the export."""
        self.reach(f"file:{self.files}")
        self.files += 1


@dataclass
class DyingCheckpoints(KeptCheckpoints):
    """A store in whose work a process may die."""

    dying: Dying = field(kw_only=True)

    def keep(self, step: int, file: Path, sha256: str) -> None:
        """Half of the bytes under another name first, as a store that dies leaves them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = file.read_bytes()
        (self.folder / f"{step}.partial").write_bytes(content[: len(content) // 2])
        self.dying.reach(f"half:{step}")
        super().keep(step, file, sha256)
        self.dying.reach(f"kept:{step}")


def train_to_the_end(base: Path, family: str, method: str, work: Path, place: str, heard: Connection) -> None:
    """The whole of a training and its export into `work`, from its newest checkpoint if there is one."""
    dying, asked = Dying(place, heard), wanted(family, method)
    dying.reach(BEGINNING)

    @contextmanager
    def measured(phase: str) -> Generator[None]:
        dying.reach(phase)
        yield

    def stepped(report: StepReport) -> None:
        dying.reach(f"step:{report.step}")

    kept = DyingCheckpoints(work / "kept", dying=dying)
    components, changed = train(base, work, asked, kept, Watch(on_step=stepped, measured=measured))
    dying.reach(EXPORT)
    # As a job does: see DiskRoom.export_folder.
    shutil.rmtree(work / "export", ignore_errors=True)
    method_named(method).export(
        family_named(family), components, changed, asked, asked.fingerprint(), work / "export", dying.next_file
    )


@contextmanager
def training_process(
    base: Path, family: str, method: str, work: Path, place: str = ""
) -> Generator[tuple[ForkServerProcess, Any]]:
    """The process, and what it reports: the place that it has reached. Gone after the block."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    work.mkdir(parents=True, exist_ok=True)
    process = CONTEXT.Process(target=train_to_the_end, args=(base, family, method, work, place, theirs))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


def places_until_the_end(heard: Any, act: Callable[[str], None] = lambda place: None) -> list[str]:
    """What a process reaches before it is no more; `act` is called at each."""
    reached: list[str] = []
    try:
        while True:
            reached.append(heard.recv())
            act(reached[-1])
    except (EOFError, ConnectionResetError):
        return reached


def exported(work: Path) -> dict[str, bytes]:
    """The bytes of every file of an export, by its path."""
    folder = work / "export"
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
