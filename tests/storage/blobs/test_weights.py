"""What a safetensors file holds, found out from its header alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from storage.blobs.weights import MAX_KEPT_METADATA_BYTES, TensorFacts, check_weights
from storage.errors import WeightsRefused


def a_file(folder: Path, metadata: dict[str, str] | None = None) -> Path:
    """A sound file with three tensors."""
    path = folder / "model.safetensors"
    tensors = {
        "conv_in.weight": np.ones((2, 3), np.float16),
        "conv_in.bias": np.ones(2, np.float32),
        "empty": np.ones((0, 4), np.float32),
    }
    save_file(tensors, path, metadata=metadata)
    return path


def test_a_sound_file_tells_its_tensors_metadata_and_size(tmp_path: Path) -> None:
    path = a_file(tmp_path, {"ss_tags": '{"a": {"b": [1, 2]}}', "ü": "\\ \n"})

    facts = check_weights(path)

    assert facts.tensors["conv_in.weight"].shape == (2, 3)
    assert facts.tensors["conv_in.bias"] == TensorFacts("F32", (2,), 0, 8)
    assert facts.parameters == 8
    assert facts.metadata_keys == {"ss_tags", "ü"}
    assert facts.metadata == {"ss_tags": '{"a": {"b": [1, 2]}}', "ü": "\\ \n"}
    assert facts.size == path.stat().st_size == facts.data_begin + 20


def test_metadata_beyond_what_is_kept_is_named_without_its_value(tmp_path: Path) -> None:
    long = "x" * (MAX_KEPT_METADATA_BYTES - 100)

    facts = check_weights(a_file(tmp_path, {"a": "short", "b": long, "c": long}))

    assert facts.metadata_keys == {"a", "b", "c"}
    assert sorted(facts.metadata) in (["a", "b"], ["a", "c"], ["b"], ["c"])


def test_only_tensors_of_the_allow_list_pass(tmp_path: Path) -> None:
    path = a_file(tmp_path)

    check_weights(path, names=re.compile(r"conv_in\..*|empty"), dtypes=frozenset({"F16", "F32"}))
    with pytest.raises(WeightsRefused, match=r"'empty', which this part of the model family does not have"):
        check_weights(path, names=re.compile(r"conv_in\..*"))
    with pytest.raises(WeightsRefused, match="is F16; known here are F32"):
        check_weights(path, dtypes=frozenset({"F32"}))


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = a_file(tmp_path).read_bytes()
    cut = tmp_path / "cut.safetensors"

    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(WeightsRefused):
            check_weights(cut)


def test_bytes_after_the_last_tensor_are_refused(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    path.write_bytes(path.read_bytes() + b"PK\x05\x06" + bytes(18))

    with pytest.raises(WeightsRefused, match="own 20 bytes but 42 follow"):
        check_weights(path)


def test_a_pickle_is_refused_with_how_to_convert_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.")

    with pytest.raises(WeightsRefused, match=r"is a pickle, which can run code; only .* Convert it .* weights_only"):
        check_weights(path)


def test_a_pipe_or_a_folder_does_not_hang_or_crash(tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused, match="not a plain file"):
        check_weights(tmp_path)
