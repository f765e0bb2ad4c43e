"""Files of tensors: the hash that follows the writing is the file's, whatever the tensors look like in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flows.training import tensor_files
from flows.training.tensor_files import start_tensors, write_tensors

MIB = 1 << 20


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_any_layout_and_type_is_written_row_by_row_and_hashed(tmp_path: Path) -> None:
    source = torch.Generator().manual_seed(3)
    tensors = {
        "rows": torch.randn(5, 7, generator=source),
        "columns": torch.randn(900, 700, generator=source).T,
        "channels last": torch.randn(3, 5, 4, 4, generator=source).contiguous(memory_format=torch.channels_last),
        "half": torch.randn(6, 4, generator=source).to(torch.bfloat16).T,
        "number": torch.tensor(2.5),
        "nothing": torch.empty(0, 3),
        "bytes": torch.arange(12, dtype=torch.uint8).reshape(3, 4).T,
    }
    digest = write_tensors(tmp_path / "file", tensors, {"step": "1"})
    assert digest == sha256(tmp_path / "file")
    read = load_file(tmp_path / "file")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_tensors_may_change_before_the_hash_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "_AT_ONCE", MIB)
    weight = torch.ones(5 * MIB)
    written = start_tensors(tmp_path / "file", {"weight": weight}, {})
    weight.zero_()
    assert written.sha256() == sha256(tmp_path / "file")
    assert bool(load_file(tmp_path / "file")["weight"].all())


def test_a_file_that_is_shorter_than_what_was_written_has_no_hash(tmp_path: Path) -> None:
    written = start_tensors(tmp_path / "file", {"weight": torch.ones(3)}, {})
    with written.path.open("r+b") as file:
        file.truncate(written.size - 1)
    with pytest.raises(OSError, match="shorter than what was written"):
        written.sha256()
