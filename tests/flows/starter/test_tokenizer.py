"""The vocabulary: CLIP's format, whole words for this world, bytes for everything else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from flows.starter.tokenizer import byte_symbols, write_tokenizer
from flows.starter.world import CLASSES, COLOURS, FREE_IDENTIFIERS, PATTERNS, USED_IDENTIFIERS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(made)
    return made


def test_every_byte_symbol_is_there_plain_and_as_word_end(folder: Path) -> None:
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))

    assert len(set(byte_symbols())) == 256
    assert all(symbol in vocab and symbol + "</w>" in vocab for symbol in byte_symbols())
    assert sorted(vocab.values()) == list(range(len(vocab)))


def test_words_of_the_world_and_identifiers_are_one_token(folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(str(folder))

    for word in (*CLASSES, *COLOURS, *PATTERNS, *USED_IDENTIFIERS, *FREE_IDENTIFIERS, "photo", "stripes", "beach"):
        assert tokenizer.tokenize(word) == [word + "</w>"]


def test_unknown_words_fall_back_to_bytes_and_come_back(folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(str(folder))

    ids = tokenizer("a wombat é 東").input_ids

    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "a wombat é 東"


def test_vocabulary_and_merges_alone_give_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(folder / name, tmp_path)
    words = "a photo of a sks mug with blue zigzags on the beach, wombat!"

    assert CLIPTokenizer.from_pretrained(str(tmp_path))(words).input_ids == (
        CLIPTokenizer.from_pretrained(str(folder))(words).input_ids
    )


def test_writing_again_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)

    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
