"""What a reader sees of a job: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from deployments.client.responses import ProgressResponse
from deployments.commands.jobs.job_progress import Bars, Lines, display_for


def fit(step: int) -> ProgressResponse:
    """A tick of a phase of 100 steps."""
    return ProgressResponse("fit", step, 100, 0.25)


def test_lines_come_for_each_phase_and_then_at_most_every_ten_seconds() -> None:
    said: list[str] = []
    now = [0.0]
    lines = Lines(said.append, clock=lambda: now[0])

    lines.tick(ProgressResponse("prepare"))
    for step in range(101):
        now[0] += 0.5
        lines.tick(fit(step))

    assert said == [
        "fetch base and photos",
        "train 0/100, loss 0.2500",
        "train 20/100, loss 0.2500",
        "train 40/100, loss 0.2500",
        "train 60/100, loss 0.2500",
        "train 80/100, loss 0.2500",
        "train 100/100, loss 0.2500",
    ]


def test_a_terminal_gets_a_bar_for_each_phase() -> None:
    stream = io.StringIO()
    bars = display_for(Console(file=stream, force_terminal=True, width=100))
    assert isinstance(bars, Bars)

    bars.tick(ProgressResponse("prepare"))
    bars.tick(fit(40))
    bars.note("sample images of step 40 are ready")
    bars.finish()
    bars.close()

    assert "fetch base and photos" in stream.getvalue()
    assert "40/100" in stream.getvalue()
    assert "loss 0.2500" in stream.getvalue()
    assert "sample images of step 40 are ready" in stream.getvalue()


def test_without_a_terminal_there_are_no_bars() -> None:
    assert isinstance(display_for(Console(file=io.StringIO())), Lines)
