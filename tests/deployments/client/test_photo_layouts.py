"""Folders as other trainers have them: whose captions, how often, and what is said of what is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.client.photo_layouts import NoPhotos, PhotoLayout
from deployments.client.photos import find_photos


def touched(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def said(found: PhotoLayout) -> list[tuple[str, str, int]]:
    return [(photo.name, photo.caption, photo.repeats) for photo in found.photos]


def test_a_plain_folder_has_captions_in_text_files(tmp_path: Path) -> None:
    touched(tmp_path, "a.png", "b.jpg", "other.txt")
    (tmp_path / "a.txt").write_text("on the\nbeach \N{SNOWMAN}\n", encoding="utf-8-sig")
    found = find_photos(tmp_path, 9)
    assert said(found) == [("a.png", "on the beach \N{SNOWMAN}", 1), ("b.jpg", "", 1)]
    assert found.left_out == ("other.txt is not a photo or a zip archive",)


def test_kohyas_folders_say_repeats_and_what_is_shown(tmp_path: Path) -> None:
    touched(tmp_path / "img" / "3_sks mug", "1.png")
    touched(tmp_path / "img" / "10_sks mug", "1.png", "notes.md")
    touched(tmp_path / "img", "log")
    (tmp_path / "img" / "3_sks mug" / "1.txt").write_text("a sks mug, beach")
    found = find_photos(tmp_path / "img", 9)
    assert said(found) == [("1-1.png", "", 10), ("2-1.png", "a sks mug, beach", 3)]
    assert found.tokens == "sks mug"
    assert found.left_out == ("log is not named like 10_sks mug, as other folders here are",)


def test_kohyas_toml_is_read_with_the_innermost_setting_first(tmp_path: Path) -> None:
    touched(tmp_path / "photos", "a.png", "b.png")
    touched(tmp_path / "class", "c.png")
    (tmp_path / "photos" / "a.cap").write_text("in the snow")
    (tmp_path / "set.toml").write_text(
        """
        [general]
        caption_extension = ".txt"
        flip_aug = true
        [[datasets]]
        resolution = 512
        caption_extension = ".cap"
        [[datasets.subsets]]
        image_dir = "photos"
        class_tokens = "sks mug"
        num_repeats = 4
        [[datasets.subsets]]
        is_reg = true
        image_dir = "class"
        """
    )
    found = find_photos(tmp_path / "set.toml", 9)
    assert said(found) == [("a.png", "in the snow", 4), ("b.png", "", 4)]
    assert found.tokens == "sks mug"
    assert [reason.split(",")[0].split(":")[0] for reason in found.left_out] == ["class", "flip_aug", "resolution"]


def test_an_image_folder_has_its_captions_in_lines(tmp_path: Path) -> None:
    touched(tmp_path / "train" / "deep", "a.png")
    touched(tmp_path / "train", "b.png", "c.png")
    lines = [{"file_name": "deep/a.png", "text": "on a  desk", "width": 9}, {"file_name": "b.png", "prompt": "at sea"}]
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    found = find_photos(tmp_path, 9)
    assert said(found) == [("deep-a.png", "on a desk", 1), ("b.png", "at sea", 1)]
    assert found.left_out == ("c.png has no line in metadata.jsonl",)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "metadata.jsonl",
            b'{"file_name": "a.png"}\n{"file_name": "b.png"}',
            r"names 'b.png', which is not there",
        ),
        ("metadata.jsonl", b'{"file_name": "../a.png"}', r"names '../a.png', which is not inside"),
        ("metadata.jsonl", b'{"file_name": "a.png"}\n{oh', r"line 2: .*A line is like"),
        ("metadata.jsonl", b'{"file_name": "a.png", "repeats": 0}', r"line 1: .*repeats"),
        ("metadata.jsonl", b'{"file_name": "a.png"}\n{"file_name": "a.png"}', r"line 2: 'a.png' was named before"),
        ("metadata.jsonl", b"\xff\xfe", "is not UTF-8 text"),
        ("a.txt", b"\xff\xfe", "a.txt is not UTF-8 text"),
        ("a.txt", b"word " * 500, r"2,499 characters; a caption has 2,000 at most"),
        ("set.toml", b"[[datasets", "is not TOML"),
        ("set.toml", b"[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'nowhere'", "'nowhere', which is no folder"),
        ("set.toml", b"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '.'\nnum_repeats = 1.5", "it is a whole number"),
        ("set.toml", b"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '.'\nnum_repeats = 0", "they are 1 to 1,000"),
        ("set.toml", b"datasets = 3", "no photos in"),
    ],
)
def test_what_is_broken_is_named_with_what_to_do(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    touched(tmp_path, "a.png")
    (tmp_path / name).write_bytes(content)
    place = tmp_path / name if name.endswith(".toml") else tmp_path
    with pytest.raises(NoPhotos, match=reason):
        find_photos(place, 9)


def test_an_empty_folder_of_kohyas_has_no_photos(tmp_path: Path) -> None:
    touched(tmp_path / "10_sks mug")
    with pytest.raises(NoPhotos, match="no photos in"):
        find_photos(tmp_path, 9)
