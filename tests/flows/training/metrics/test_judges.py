"""Judges: the one of the starter, and any CLIP."""

from pathlib import Path

import torch

from flows.training.metrics.judges import ClipJudge, open_judge
from flows.training.photos.pictures import SquarePixels
from tests.flows.training.metrics.embedder_folders import write_clip
from tests.flows.training.test_evaluation import SCENES
from tests.flows.training.tiny import pictures


def test_the_starters_judge_is_opened_from_its_folder(tiny_model: Path):
    judge = open_judge(tiny_model, ())
    assert judge is not None
    images = SquarePixels(pictures(2), 64)[:]
    assert torch.allclose(judge.embed(images).norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.allclose(judge.scene_probabilities(images).sum(1), torch.ones(2), atol=1e-5)
    assert judge.scene_probabilities(images).shape == (2, len(judge.scenes))
    assert open_judge(tiny_model / "unet", SCENES) is None


def test_a_clip_model_is_a_judge(tmp_path: Path):
    write_clip(tmp_path / "judge")
    judge = open_judge(tmp_path, SCENES)
    assert isinstance(judge, ClipJudge)
    images = SquarePixels(pictures(3), 64)[:]
    assert torch.allclose(judge.embed(images).norm(dim=1), torch.ones(3), atol=1e-5)
    probabilities = judge.scene_probabilities(images)
    assert probabilities.shape == (3, len(SCENES))
    # The rest is of no scene: a photo need not show any that is listed.
    assert bool((probabilities.sum(1) < 1 - 1e-6).all())
    assert judge.class_probabilities(images).shape == (3, 0)
    assert open_judge(tmp_path, ()) is None
