"""A job followed to its end: bars in a terminal, plain lines without one, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from deployments.client import stream
from deployments.client.api import Api, ApiRefusal
from deployments.client.responses import JobResponse, job_root
from deployments.client.responses import ProgressResponse as Tick
from deployments.client.stream import StreamEvent, follow_events
from storage.errors import DarkroomError

PATIENCE_SECONDS = 120.0
LINE_SECONDS = 10.0
# As shells say it: 128 and the number of SIGINT.
INTERRUPTED_STATUS = 130
NOT_FOUND = 404

STEPS = {
    "start": "start",
    "prepare": "fetch base and photos",
    "regularize": "draw class images",
    "load": "load the model",
    "encode": "encode photos and prompts",
    "setup": "set up what trains",
    "resume": "read the checkpoint",
    "fit": "train",
    "evaluate": "measure",
    "export": "write weights",
    "publish": "publish",
    "fetch-model": "fetch the model",
    "draw": "draw images",
}
"""What each phase is called for a reader."""


class JobEnded(DarkroomError):
    """A job that was followed failed or was cancelled."""

    code = "job_ended"


class Display(Protocol):
    """Shows a job's events."""

    def note(self, text: str) -> None:
        """One line."""
        ...

    def tick(self, tick: Tick) -> None:
        """How far the job is."""
        ...

    def close(self) -> None:
        """The job has ended, or the reader has left."""
        ...


@dataclass
class Lines:
    """Plain lines: one for each phase and then one for each tenth of it, but not more than one in ten seconds."""

    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    names: Mapping[str, str] = field(default_factory=lambda: STEPS)
    _phase: str = ""
    _tenth: int = 0
    _said: float = 0.0

    def note(self, text: str) -> None:
        """One line."""
        self.say(text)

    def tick(self, tick: Tick) -> None:
        """How far the job is, when there is enough news in it."""
        tenth = 10 * tick.step // tick.total if tick.total else 0
        now = self.clock()
        if tick.phase == self._phase and (tenth == self._tenth or (now - self._said < LINE_SECONDS and tenth < 10)):
            return
        self._phase, self._tenth, self._said = tick.phase, tenth, now
        text = f"{self.names.get(tick.phase, tick.phase)}"
        if tick.total:
            text += f" {tick.step}/{tick.total}"
        if tick.loss is not None:
            text += f", loss {tick.loss:.4f}"
        self.say(text)

    def close(self) -> None:
        """Nothing is left open."""


@dataclass
class Bars:
    """A bar for each phase."""

    console: Console
    names: Mapping[str, str] = field(default_factory=lambda: STEPS)
    _bars: Progress = field(init=False)
    _tasks: dict[str, TaskID] = field(default_factory=dict[str, TaskID])

    def __post_init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[count]:>9}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[loss]}"),
            console=self.console,
        )
        self._bars.start()

    def note(self, text: str) -> None:
        """One line above the bars."""
        # Rich would take words in square brackets for colours.
        self._bars.console.print(text, highlight=False, markup=False)

    def tick(self, tick: Tick) -> None:
        """Move the phase's bar; a new phase fills the bars of those before it."""
        task = self._tasks.get(tick.phase)
        if task is None:
            self._fill()
            task = self._bars.add_task(self.names.get(tick.phase, tick.phase), total=None, count="", loss="")
            self._tasks[tick.phase] = task
        count = f"{tick.step}/{tick.total}" if tick.total else ""
        loss = "" if tick.loss is None else f"loss {tick.loss:.4f}"
        self._bars.update(task, completed=tick.step, total=tick.total or None, count=count, loss=loss)

    def close(self) -> None:
        """Leave the bars as they stand."""
        self._bars.stop()

    def finish(self) -> None:
        """Every bar is full: the job succeeded."""
        self._fill()

    def _fill(self) -> None:
        for task in self._bars.tasks:
            if not task.finished:
                total = task.total or 1
                self._bars.update(task.id, total=total, completed=total)
                self._bars.stop_task(task.id)


def display_for(console: Console, names: Mapping[str, str] = STEPS) -> Bars | Lines:
    """Bars in a terminal, lines elsewhere. names: what phases are called."""
    if console.is_terminal:
        return Bars(console, names)
    return Lines(lambda text: typer.echo(f"{time.strftime('%H:%M:%S')} {text}"), names=names)


def find_job(api: Api, job_id: UUID) -> JobResponse:
    """A job of either kind by its id. Raises ApiRefusal when there is none of the key's account."""
    try:
        return api.get(f"{job_root('training')}/{job_id}", JobResponse)
    except ApiRefusal as refusal:
        if refusal.status != NOT_FOUND:
            raise
    return api.get(f"{job_root('generation')}/{job_id}", JobResponse)


def follow_job(api: Api, job: JobResponse, display: Bars | Lines) -> JobResponse:
    """Show the job until it ends; returns it as it ended. Ctrl-C leaves it running and says how to come back.

    Raises JobEnded when it failed or was cancelled, typer.Exit after Ctrl-C.
    """
    noted: set[int] = set()
    try:
        if job.state == "submitted" and job.queue_position:
            display.note(f"{job.queue_position} jobs go before it")
        for event in follow_events(api, job.path):
            _show(event, display, noted)
        ended = api.get(job.path, JobResponse, patience_seconds=PATIENCE_SECONDS)
        if ended.state == "succeeded" and isinstance(display, Bars):
            display.finish()
    except KeyboardInterrupt as interrupt:
        display.close()
        typer.echo(
            f"\nThe job goes on. Follow it with: darkroom jobs follow {job.id}\n"
            f"Stop it with: darkroom jobs cancel {job.id}"
        )
        raise typer.Exit(INTERRUPTED_STATUS) from interrupt
    finally:
        display.close()
    if ended.state == "failed":
        failure = ended.failure
        why = f"{failure.reason} ({failure.code})" if failure else "without a reason"
        raise JobEnded(
            f"job {ended.id} failed: {why}\nTry again from its last checkpoint: darkroom jobs retry {ended.id}"
        )
    if ended.state == "cancelled":
        raise JobEnded(f"job {ended.id} was cancelled. What it made is kept: darkroom jobs show {ended.id}")
    return ended


def _show(event: StreamEvent, display: Display, noted: set[int]) -> None:
    """One event; `noted` are the steps whose samples were reported: each image of a step has an event of its own."""
    match event.kind:
        case "progress":
            display.tick(msgspec.convert(event.data, Tick, strict=False))
        case "job.submitted" if _number(event.data, "attempt") > 1:
            display.note(f"the work fell silent and starts again (attempt {event.data['attempt']})")
        case "job.started":
            display.note("a worker has taken the job")
        case "job.sample_ready" if event.data.get("step") not in noted:
            noted.add(_number(event.data, "step"))
            display.note(f"sample images of step {event.data.get('step')} are ready")
        case "job.cancelling":
            display.note("stopping at the next step")
        case stream.INTERRUPTED:
            display.note("the connection to the API broke; connecting again")
        case _:
            pass


def _number(data: dict[str, Any], name: str) -> int:
    value: object = data.get(name)
    return value if isinstance(value, int) else 0
