"""darkroom jobs."""

from __future__ import annotations

from uuid import uuid4

import msgspec

from storage.postgres.jobs import job_files, jobs
from storage.records.jobs.jobs import JobState
from storage.records.jobs.training import TrainingJobRequest
from tests.deployments.line import Line


def test_a_waiting_job_is_listed_shown_cancelled_and_retried(line: Line) -> None:
    job_id = line.submitted()

    listed = line("jobs", "list")
    shown = line("jobs", "show", job_id)
    cancelled = line("jobs", "cancel", job_id)
    retried = line("jobs", "retry", job_id, "--detach")

    assert f"{job_id}  training  submitted" in listed.output
    assert "classWord" in shown.output
    assert "mug" in shown.output
    assert cancelled.output == f"{job_id} is cancelled\n"
    assert retried.exit_code == 0
    assert line.jobs()[0].retry_of == job_id


def test_what_a_job_made_is_deleted_once_it_has_ended_and_its_version_stays(line: Line) -> None:
    version, running = line.trained(), line.submitted()
    job = next(job for job in line.jobs() if job.model_version_id == version)
    assert line.door.database.run(job_files.files(job.id)) != []

    refused = line("jobs", "delete-files", running)
    deleted = line("jobs", "delete-files", job.id)

    assert (refused.exit_code, "Cancel it, or wait for its end" in refused.output) == (1, True)
    assert deleted.output == f"{job.id} has no files any more\n"
    assert line.door.database.run(job_files.files(job.id)) == []
    assert line("download", version, "--out", line.folder / "kept").exit_code == 0


def test_the_list_of_one_state_holds_no_other(line: Line) -> None:
    first, second = line.submitted(), line.submitted()
    line("jobs", "cancel", first)

    listed = line("jobs", "list", "--state", "submitted")

    assert str(second) in listed.output
    assert str(first) not in listed.output


def test_a_job_is_followed_from_wherever_it_is(line: Line) -> None:
    version = line.trained()
    job_id = line.jobs()[0].id

    result = line("jobs", "follow", job_id, "--out", line.folder / "again")

    assert result.exit_code == 0, result.output
    assert f"as model version {version}" in result.output
    assert len(list((line.folder / "again").glob("*.png"))) == 1


def test_a_running_job_is_asked_to_stop_and_ends_as_cancelled(line: Line) -> None:
    job_id = line.submitted()
    job = line.worker.next_job()

    asked = line("jobs", "cancel", job_id)
    line.door.database.run(jobs.end_cancelling(job.id, job.attempt))
    followed = line("jobs", "follow", job_id)

    assert asked.output == f"{job_id} is cancelling\n"
    assert followed.exit_code == 1
    assert "was cancelled. What it made is kept" in followed.output
    assert line.jobs()[0].state is JobState.CANCELLED


def test_one_stage_of_a_job_that_has_ended_is_done_again_as_a_job_of_its_own(line: Line) -> None:
    job_id = line.submitted()
    line("jobs", "cancel", job_id)

    again = line("jobs", "rerun-stage", job_id, "evaluate", "--detach")
    refused = line("jobs", "rerun-stage", job_id, "publish")

    assert again.exit_code == 0, again.output
    assert line.jobs()[0].retry_of == job_id
    assert again.output == f"submitted job {line.jobs()[0].id}\n"
    assert (refused.exit_code, "fit" in refused.output) == (2, True), refused.output


def test_checkpoints_that_stayed_are_listed_and_one_of_them_is_chosen(line: Line) -> None:
    job_id = line.submitted("--keep-every", "200")
    job = line.worker.next_job()
    none = line("jobs", "checkpoints", job_id)
    for step in (200, 300, 400):
        line.door.database.run(job_files.put_checkpoint(job.id, job.attempt, step, f"{step:064d}", step << 20))
    running = line("jobs", "checkpoints", job_id)
    line("jobs", "cancel", job_id)
    line.door.database.run(jobs.end_cancelling(job.id, job.attempt))
    ended = line("jobs", "checkpoints", job_id)
    wrong = line("jobs", "retry", job_id, "--step", 250, "--detach")
    chosen = line("jobs", "retry", job_id, "--step", 200, "--detach")

    assert "no checkpoints. Let some stay with: darkroom train" in none.output
    lines = [one.split() for one in running.output.splitlines()]
    assert lines[0] == ["step", "size", "made", "kept", "until"]
    assert [one[:3] for one in lines[1:]] == [["400", "400", "MiB"], ["300", "300", "MiB"], ["200", "200", "MiB"]]
    assert running.output.count("the job ends") == 3
    # 300 is neither the newest nor a multiple of keepEvery: retention deletes it next.
    days = {one.split()[0]: one.split()[-2] for one in ended.output.splitlines()[1:]}
    assert days["400"] == days["200"] > days["300"]
    assert (wrong.exit_code, "those there are: 200, 300, 400" in wrong.output) == (1, True)
    assert chosen.exit_code == 0, chosen.output
    again = line.jobs()[0]
    recipe = msgspec.convert(again.request, TrainingJobRequest).recipe
    assert (recipe.chosen_step, recipe.last_step, recipe.steps > 200) == (200, 200, True)
    assert [row.step for row in line.door.database.run(job_files.checkpoints(again.id))] == [200]


def test_what_cannot_be_done_is_an_error_of_one_line(line: Line) -> None:
    job_id, unknown = line.submitted(), uuid4()

    for arguments, message in [
        (("jobs", "show", unknown), f"error: No job {unknown}"),
        (("jobs", "retry", job_id), f"error: Job {job_id} is submitted. Only a failed or cancelled job"),
        (("jobs", "list", "--state", "asleep"), "error: "),
    ]:
        result = line(*arguments)
        assert result.exit_code == 1
        assert result.output.startswith(message)
        assert result.output.count("\n") == 1


def test_no_jobs_yet_says_how_to_make_one(line: Line) -> None:
    assert "darkroom train" in line("jobs", "list").output
