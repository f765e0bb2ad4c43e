"""What the summary on a training's page says, and what it does not let people write into it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from flows.jobs.metrics_document import Point
from flows.training.stages.summary import StageLine, TrainingSummary, candidates, failed_text, plain, table
from storage.errors import CancellationRequested, JobStalled
from storage.records.jobs.jobs import Checkpoint, Stage

JOB = UUID(int=7)


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(job_id=JOB, step=step, sha256="ab" * 32, size=1, created_at=datetime.now(UTC))


def test_the_page_has_stages_with_units_and_every_part_that_there_is() -> None:
    summary = TrainingSummary(
        title="sks mug",
        outcome="Published.",
        stages=[
            StageLine(Stage.FIT, 12.34, 2_345_000_000, "attempt 2"),
            StageLine(Stage.EXPORT, None, None, "did not end"),
        ],
        choice="Step 8 of 8.",
        candidates=[{"step": 4, "loss": 0.5}, {"step": 8, "validation_loss": 0.1}],
        links={"MLflow": "https://mlflow.example.org/run"},
        images={"Step 8: a mug": "https://api.example.org/i?signature=x"},
    )
    page = summary.markdown()
    assert "| stage | seconds | peak memory (GB) | made by |" in page
    assert "| fit | 12.3 | 2.35 | attempt 2 |" in page or "| fit | 12.3 | 2.34 | attempt 2 |" in page
    assert "| export |  |  | did not end |" in page
    assert "| step | loss | validation_loss |\n| --- | --- | --- |\n| 4 | 0.5 |  |\n| 8 |  | 0.1 |" in page
    assert "- [MLflow](https://mlflow.example.org/run)" in page
    assert "![Step 8: a mug](https://api.example.org/i?signature=x)" in page


@pytest.mark.parametrize("typed", ["x](https://evil.example)", "<img src=x>", "a|b\n# Title", "![i](y)"])
def test_what_people_typed_is_no_markdown(typed: str) -> None:
    assert not set(plain(typed)) & set("[]()<>|\n!")


def test_a_job_that_stopped_says_where_it_goes_on() -> None:
    text = failed_text(JOB, Stage.FIT, JobStalled("Nothing was done."), [checkpoint(4), checkpoint(2)])
    assert text.startswith("**Failed** in the stage `fit`: `stalled`\n\nNothing was done.")
    assert f"`darkroom jobs retry {JOB}`" in text
    assert "the fit goes on at step 4, its newest checkpoint" in text
    cancelled = failed_text(JOB, Stage.REGULARIZE, CancellationRequested("x"), [])
    assert cancelled.startswith("**Cancelled** in the stage `regularize`.")
    assert "the fit goes on at its first step" in cancelled


def test_each_step_that_could_be_taken_has_what_was_measured_up_to_it() -> None:
    points = [Point("loss", float(step), step, 0) for step in range(1, 9)]
    points += [Point("validation_loss.class", 0.25, 4, 0), Point("memory_peak_gb.fit", 3.0, 8, 0)]
    found = candidates(points, [checkpoint(4)], 8)
    loss = "loss (mean of up to 20 steps)"
    assert found == [{"step": 4, loss: 2.5, "validation_loss.class": 0.25}, {"step": 8, loss: 4.5}]
    assert candidates(points, [checkpoint(4)], 20)[-1]["step"] == 4, "step 20 was not reached"
    assert table([]) == "|  |\n|  |"
