"""The main job on the real starter model: the subject is in the pictures, and the scenes are still obeyed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deployments.local.seed import STARTER_FOLDER
from flows.starter.world import held_out_subjects, photo_scenes
from flows.training.evaluation import SCENES, SEEDS_PER_SCENE
from tests.faults.bench import Bench

FEWER_SCENES = 3

pytestmark = pytest.mark.timeout(1500)  # a hang, not a slow machine


def assert_subject_is_there(bench: Bench, number: int, scenes: int = SCENES, **fields: Any) -> None:
    subject = held_out_subjects()[number]
    request = bench.starter_defaults() | fields
    job_id = bench.submit(dataSetId=bench.upload(subject, seed=100 + number), classWord=subject.class_word, **request)
    bench.weights(job_id)
    figures = bench.model_version(job_id)["evaluation"]
    figures_shown = f"subject {number} ({subject.class_word}): {figures}"
    floor, ceiling = figures["subjectFidelityBase"], figures["subjectFidelityPhotos"]
    assert floor < ceiling, figures_shown
    assert figures["subjectFidelity"] >= (floor + ceiling) / 2, figures_shown
    assert figures["promptAccuracy"] >= 0.8 * figures["promptAccuracyBase"]
    assert figures["classSimilarity"] is not None
    assert figures["images"] == scenes * SEEDS_PER_SCENE


@pytest.fixture
def brief(bench: Bench, tmp_path: Path) -> str:
    """The starter by a name of its own, with a card that asks for fewer scenes, none of the photos, and for fewer
    steps of an image."""
    folder = shutil.copytree(STARTER_FOLDER, tmp_path / "brief")
    card = json.loads((folder / "darkroom.json").read_text())
    shown = photo_scenes(4, seed=100)
    card["evaluation"]["scenes"] = [scene for scene in card["evaluation"]["scenes"] if scene not in shown][
        :FEWER_SCENES
    ]
    card["sampler"]["steps"] = 15
    (folder / "darkroom.json").write_text(json.dumps(card))
    added = bench.platform.cli("base", "add", str(folder), "--name", "brief")
    assert added.returncode == 0, added.stderr
    return "brief"


def test_a_subject_never_seen_before_is_in_new_scenes(bench: Bench, brief: str) -> None:
    # Less of each than the default; the soak and the demo take all.
    less = {"steps": 80, "regularizationCount": 16, "sampleEvery": 80}
    assert_subject_is_there(bench, 0, FEWER_SCENES, baseModel=brief, **less)


@pytest.mark.soak
@pytest.mark.parametrize("number", [0, 1, 2])
def test_three_subjects_never_seen_before_are_each_in_new_scenes(bench: Bench, number: int) -> None:
    assert_subject_is_there(bench, number)
