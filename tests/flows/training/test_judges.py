"""Judges: the one of the starter, and any CLIP."""

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from flows.starter.tokenizer import write_tokenizer
from flows.training.data import pixels_of_all
from flows.training.judges import ClipJudge, open_judge
from tests.flows.training.test_evaluation import SCENES
from tests.flows.training.tiny import pictures


def test_the_starters_judge_is_opened_from_its_folder(tiny_model: Path):
    judge = open_judge(tiny_model, ())
    assert judge is not None
    images = pixels_of_all(pictures(2), 64)
    assert torch.allclose(judge.embed(images).norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.allclose(judge.scene_probabilities(images).sum(1), torch.ones(2), atol=1e-5)
    assert judge.scene_probabilities(images).shape == (2, len(judge.scenes))
    assert open_judge(tiny_model / "unet", SCENES) is None


def test_a_clip_model_is_a_judge(tmp_path: Path):
    folder = tmp_path / "judge"
    tokenizer = write_tokenizer(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **small,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": tokenizer.model_max_length,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    judge = open_judge(tmp_path, SCENES)
    assert isinstance(judge, ClipJudge)
    images = pixels_of_all(pictures(3), 64)
    assert torch.allclose(judge.embed(images).norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(judge.scene_probabilities(images).sum(1), torch.ones(3), atol=1e-5)
    assert open_judge(tmp_path, ()) is None
