"""Weights & Biases' own file, written offline by the real library, holds what a job has measured, and no secret."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from wandb.proto import wandb_internal_pb2

from flows.training.tracking.protocol import TrackedJob
from flows.training.tracking.wandb import TRACKER
from storage.settings import Settings

JOB = TrackedJob(UUID(int=7), "sks mug 00000007", {"steps": 8, "class_word": "mug"}, {"base_model": "tiny"})
CANARY = "c0ffee" * 6 + "beef"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = Settings(data_folder=tmp_path / "data")
    settings.data_folder.mkdir()
    settings.tracking.wandb_mode = "offline"
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    return settings


def records(file: Path) -> Iterator[Any]:
    """The records of a run's file: a header of 7 bytes, then a log of LevelDB's form, in blocks of 32 KiB."""
    content, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece of one
            record = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
            record.ParseFromString(whole)
            yield record
            whole = b""


def history_of(file: Path) -> list[dict[str, Any]]:
    rows = [one.history.item for one in records(file) if one.WhichOneof("record_type") == "history"]
    return [{(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in row} for row in rows]


def run_file(settings: Settings) -> Path:
    [file] = settings.data_folder.glob("wandb/offline-run-*/run-*.wandb")
    return file


def test_a_run_has_metrics_by_step_images_and_the_recipe(offline: Settings) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(picture, "PNG")
    tracker = TRACKER.begin(offline, JOB, 0)
    tracker.log(8, {"memory_peak_gb.resume": 1.0})
    for step in (1, 2):  # behind step 8, as a phase that is measured first has it
        tracker.log(step, {"loss": 1 / step, "learning_rate.unet": 1e-3})
    tracker.image("sample-0", 2, picture.getvalue())
    tracker.end("FINISHED")
    rows = history_of(run_file(offline))
    assert [(row["step"], row["loss"]) for row in rows if "loss" in row] == [(1, 1.0), (2, 0.5)]
    [shown] = [row for row in rows if "sample-0.path" in row]
    assert (shown["step"], shown["sample-0.width"]) == (2, 8)
    [run] = [one.run for one in records(run_file(offline)) if one.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.project, run.display_name) == (str(JOB.id), "darkroom", JOB.name)
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["class_word"] == "mug"
    assert [one.exit.exit_code for one in records(run_file(offline)) if one.WhichOneof("record_type") == "exit"] == [0]


def test_the_next_attempt_goes_on_under_the_same_id(offline: Settings) -> None:
    TRACKER.begin(offline, JOB, 0).end("RUNNING")
    second = TRACKER.begin(offline, JOB, 4)
    second.log(5, {"loss": 0.5})
    second.end("FINISHED")
    files = list(offline.data_folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert {file.stem for file in files} == {f"run-{JOB.id}"}
    assert any(row.get("step") == 5 for file in files for row in history_of(file))


def test_nothing_of_the_key_of_this_machine_or_of_its_code_is_written(offline: Settings, tmp_path: Path) -> None:
    tracker = TRACKER.begin(offline, JOB, 0)
    tracker.log(1, {"loss": 1.0})
    tracker.end("FINISHED")
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert written
    for file in written:
        assert CANARY.encode() not in file.read_bytes(), file
    [record] = [one.run for one in records(run_file(offline)) if one.WhichOneof("record_type") == "run"]
    assert (record.host, record.git.remote_url) == ("", "")
    assert not list(offline.data_folder.glob("wandb/**/requirements.txt"))
    assert not list(offline.data_folder.glob("wandb/**/wandb-metadata.json"))
