"""The main job on the real starter model: the subject is in the pictures, and the scenes are still obeyed."""

from __future__ import annotations

from typing import Any

import pytest

from flows.starter.world import held_out_subjects
from tests.faults.bench import Bench

pytestmark = pytest.mark.timeout(1500)  # a hang, not a slow machine


def assert_subject_is_there(bench: Bench, number: int, **fields: Any) -> None:
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
    assert figures["images"] == 24


def test_a_subject_never_seen_before_is_in_new_scenes(bench: Bench) -> None:
    # Less of each than the default; the soak and the demo take all.
    assert_subject_is_there(bench, 0, steps=80, regularizationCount=24, sampleEvery=80)


@pytest.mark.soak
@pytest.mark.parametrize("number", [0, 1, 2])
def test_three_subjects_never_seen_before_are_each_in_new_scenes(bench: Bench, number: int) -> None:
    assert_subject_is_there(bench, number)
