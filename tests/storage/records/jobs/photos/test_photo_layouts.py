"""Photos as other trainers have them, in a folder or in an archive: whose captions, how often, and what is broken."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.blobs.archives import ArchiveLimits, unpack_photos
from storage.errors import UploadRefused
from storage.records.jobs.photos.captions import Caption, caption_beside
from storage.records.jobs.photos.photo_layouts import (
    PhotoLayout,
    read_description,
    read_files,
    read_layout,
)
from storage.records.jobs.photos.photo_places import FolderPlace, ListedFiles

Read = Callable[[Path], PhotoLayout]
TOML = """
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


def touched(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def said(found: PhotoLayout) -> list[tuple[str, str, int]]:
    return [(photo.name, photo.caption, photo.repeats) for photo in found.photos]


def archived(folder: Path) -> ListedFiles:
    """What the folder has, packed and unpacked as an upload is."""
    archive, unpacked = folder.parent / "photos.zip", folder.parent / "unpacked"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder.parent))
    unpacked.mkdir()
    files = unpack_photos(archive, unpacked, ArchiveLimits(50, 50_000, 500_000))
    return ListedFiles("photos.zip", {file.name: file.path for file in files})


def from_folder(folder: Path) -> PhotoLayout:
    place, described = FolderPlace(folder), sorted(folder.glob("*.toml"))
    if described:
        return read_description(place, described[0].name, 50)
    found = read_layout(place, 50)
    assert found is not None
    return found


def from_archive(folder: Path) -> PhotoLayout:
    return read_files(archived(folder), 50)


@pytest.fixture(params=[from_folder, from_archive], ids=["folder", "archive"])
def read(request: pytest.FixtureRequest) -> Read:
    """Reads a folder's layout as it is, or from an archive of it."""
    found: Read = request.param
    return found


def test_kohyas_folders_say_repeats_and_what_is_shown(tmp_path: Path, read: Read) -> None:
    touched(tmp_path / "img" / "3_sks mug", "1.png")
    touched(tmp_path / "img" / "10_sks mug", "1.png")
    (tmp_path / "img" / "3_sks mug" / "1.txt").write_text("a sks mug, beach")
    found = read(tmp_path / "img")
    assert said(found) == [("1-1.png", "", 10), ("2-1.png", "a sks mug, beach", 3)]
    assert found.tokens == "sks mug"
    assert found.left_out == ()


def test_each_of_several_subjects_is_taught_by_its_own_words(tmp_path: Path, read: Read) -> None:
    folders = (
        touched(tmp_path / "img" / "10_sks mug", "1.png", "2.png"),
        touched(tmp_path / "img" / "5_ohwx mug", "1.png"),
    )
    (folders[0] / "2.txt").write_text("at sea, ohwx-like, sksy")
    (folders[1] / "1.txt").write_text("a photo of Ohwx, at sea")
    found = read(tmp_path / "img")
    assert said(found) == [
        ("1-1.png", "sks mug", 10),
        ("1-2.png", "sks mug, at sea, ohwx-like, sksy", 10),
        ("2-1.png", "a photo of Ohwx, at sea", 5),
    ]
    assert all(photo.whole_prompt for photo in found.photos)
    assert (found.tokens, found.subjects) == ("", ("sks mug", "ohwx mug"))


def test_of_a_part_that_says_not_what_it_shows_the_captions_stand(tmp_path: Path, read: Read) -> None:
    folder = tmp_path / "data"
    touched(folder / "a", "1.png", "2.png")
    touched(folder / "b", "1.png")
    (folder / "a" / "1.caption").write_text("zwx cat in the snow")
    subsets = "{image_dir = 'a'}, {image_dir = 'b', class_tokens = 'sks mug'}"
    (folder / "set.toml").write_text(f"datasets = [{{subsets = [{subsets}]}}]")
    found = read(folder)
    assert [(photo.caption, photo.whole_prompt) for photo in found.photos] == [
        ("zwx cat in the snow", True),
        ("", False),
        ("sks mug", True),
    ]
    assert (found.tokens, found.subjects) == ("", ("", "sks mug"))


def test_a_caption_that_its_subject_makes_too_long_is_refused_by_name(tmp_path: Path, read: Read) -> None:
    touched(tmp_path / "img" / "5_ohwx mug", "1.png")
    (touched(tmp_path / "img" / "10_sks mug", "1.png") / "1.txt").write_text("x" * 1_995)
    with pytest.raises(UploadRefused, match=r"mug/1.png lacks 'sks', and has 2,004 .* 2,000 at most. Shorten it"):
        read(tmp_path / "img")


def test_everything_else_in_kohyas_folders_is_named(tmp_path: Path) -> None:
    others = [f"{number}_0512x0512_sd.npz" for number in range(25)]
    touched(tmp_path / "3_sks mug", "1.png", "1.json", "Thumbs.db", *others)
    touched(tmp_path, "log")
    found = from_folder(tmp_path)
    assert found.left_out[0] == "log is not named like 10_sks mug, as other folders here are"
    assert found.left_out[1] == "3_sks mug/0_0512x0512_sd.npz is neither a photo nor a caption of one"
    assert found.left_out[-1] == "... and 8 more files like these"
    assert len(found.left_out) == 21


def test_kohyas_toml_is_read_with_the_innermost_setting_first(tmp_path: Path, read: Read) -> None:
    folder = touched(tmp_path / "data")
    touched(folder / "photos", "a.png", "b.png")
    touched(folder / "class", "c.png")
    (folder / "photos" / "a.cap").write_text("in the snow")
    (folder / "set.toml").write_text(TOML)
    found = read(folder)
    assert said(found) == [("a.png", "in the snow", 4), ("b.png", "", 4)]
    assert found.tokens == "sks mug"
    assert [reason.split(",")[0].split(":")[0] for reason in found.left_out] == ["class", "flip_aug", "resolution"]


def test_an_image_folder_has_its_captions_in_lines(tmp_path: Path, read: Read) -> None:
    folder = tmp_path / "data"
    touched(folder / "train" / "deep", "a.png")
    touched(folder / "train", "b.png", "c.png")
    lines = [
        {"file_name": "deep/a.png", "text": "on a  desk", "width": 9},
        {"file_name": "b.png", "prompt": "ohwx mug at sea", "whole_prompt": True},
    ]
    (folder / "train" / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    found = read(folder)
    assert said(found) == [("deep-a.png", "on a desk", 1), ("b.png", "ohwx mug at sea", 1)]
    assert [photo.whole_prompt for photo in found.photos] == [False, True]
    assert found.left_out == ("c.png has no line in metadata.jsonl",)


def test_an_archive_without_a_layout_has_all_its_photos_with_their_captions(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    touched(folder / "deep", "a.png", "b.jpg")
    touched(folder, "a.png", "c.webp")
    (folder / "deep" / "a.txt").write_text("on the  beach \N{SNOWMAN}\n", encoding="utf-8-sig")
    (folder / "c.caption").write_text("at sea")
    touched(folder, "c.json")
    found = from_archive(folder)
    assert said(found) == [
        ("data-a.png", "", 1),
        ("c.webp", "at sea", 1),
        ("data-deep-a.png", "on the beach \N{SNOWMAN}", 1),
        ("b.jpg", "", 1),
    ]
    assert found.left_out == ("data/c.json is neither a photo nor a caption",)


def test_paths_with_parts_that_lead_nowhere_are_read_to_their_end(tmp_path: Path) -> None:
    assert said(read_files(ListedFiles("shots", {"./a.png": tmp_path, "b//c.png": tmp_path}), 50)) == [
        ("a.png", "", 1),
        ("c.png", "", 1),
    ]
    for path in ("./a.png", "b//c.png", "b/./c.png"):
        found = read_files(ListedFiles("shots", {path: tmp_path}), 50)
        assert said(found) == [(path.rpartition("/")[2], "", 1)]


def test_an_archive_with_two_descriptions_does_not_say_which_counts(tmp_path: Path) -> None:
    folder = touched(tmp_path / "data", "a.png", "one.toml", "two.toml")
    with pytest.raises(UploadRefused, match=r"photos.zip: data has one.toml and two.toml; leave the TOML file in that"):
        from_archive(folder)


BROKEN = [
    ("metadata.jsonl", b'{"file_name": "a.png"}\n{"file_name": "b.png"}', r"names 'b.png', which is not there"),
    ("metadata.jsonl", b'{"file_name": "../a.png"}', r"names '../a.png', which is not inside"),
    ("metadata.jsonl", b'{"file_name": "/etc/passwd"}', r"names '/etc/passwd', which is not inside"),
    ("metadata.jsonl", b'{"file_name": "a.png"}\n{oh', r"line 2: .*A line is like"),
    ("metadata.jsonl", b'{"file_name": "a.png", "repeats": 0}', r"line 1: .*repeats"),
    ("metadata.jsonl", b'{"file_name": "a.png"}\n{"file_name": "a.png"}', r"line 2: 'a.png' was named before"),
    ("metadata.jsonl", b"\xff\xfe", "is not UTF-8 text"),
    ("10_sks mug/a.txt", b"\xff\xfe", "a.txt is not UTF-8 text"),
    ("10_sks mug/a.txt", b"word " * 500, r"2,499 characters; a caption has 2,000 at most"),
    ("10_sks mug/a.txt", b"a \x1b[2J mug", "holds control characters"),
    ("set.toml", b"[[datasets", "is not TOML"),
    ("set.toml", b"a = " + b"[" * 5000, "is not TOML"),
    ("set.toml", b"[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'nowhere'", "'nowhere', which is no folder"),
    ("set.toml", b"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '.'\nnum_repeats = 1.5", "it is a whole number"),
    ("set.toml", b"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '.'\nnum_repeats = 0", "they are 1 to 1,000"),
]


@pytest.mark.parametrize(("name", "content", "reason"), BROKEN)
def test_what_is_broken_is_named_with_what_to_do(
    tmp_path: Path, read: Read, name: str, content: bytes, reason: str
) -> None:
    folder = touched(tmp_path / "data")
    touched((folder / name).parent, "a.png")
    (folder / name).write_bytes(content)
    with pytest.raises(UploadRefused, match=reason):
        read(folder)


def test_an_archive_reads_nothing_of_this_machine(tmp_path: Path) -> None:
    outside = touched(tmp_path / "secret", "a.png")
    folder = touched(tmp_path / "data", "b.png")
    (folder / "set.toml").write_text(f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '{outside}'")
    with pytest.raises(UploadRefused, match="which is no folder"):
        from_archive(folder)
    assert said(from_folder(folder)) == [("a.png", "", 1)]


def test_a_caption_may_have_kohyas_own_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.caption").write_text("at sea")
    place = FolderPlace(touched(tmp_path, "a.png", "b.png"))
    assert caption_beside(place, "a.png") == Caption("at sea", "a.caption")
    assert caption_beside(place, "a.png", ".cap") == Caption()
    assert caption_beside(place, "b.png") == Caption()


def test_a_captions_first_line_counts_and_the_others_are_named(tmp_path: Path, read: Read) -> None:
    """As kohya's scripts have it; joined, the lines would be one prompt that nobody wrote."""
    folder = touched(tmp_path / "img" / "3_sks mug", "1.png", "2.png", "3.png")
    (folder / "1.txt").write_bytes(b"\r\n  a sks mug,\tbeach \r\na photo, bad quality\r\n\r\n")
    (folder / "2.txt").write_text("a sks mug, snow\n")
    (folder / "3.txt").write_text("\n \n")
    found = read(tmp_path / "img")
    assert [photo.caption for photo in found.photos] == ["a sks mug, beach", "a sks mug, snow", ""]
    [reason] = found.left_out
    assert reason.endswith("3_sks mug/1.txt: the lines behind its first one, which is the caption")


def test_an_archive_without_a_layout_names_the_lines_of_captions_that_do_not_count(tmp_path: Path) -> None:
    folder = touched(tmp_path / "data", "a.png", "b.png")
    (folder / "a.txt").write_text("at sea\nat night")
    found = from_archive(folder)
    assert said(found) == [("a.png", "at sea", 1), ("b.png", "", 1)]
    assert found.left_out == ("data/a.txt: the lines behind its first one, which is the caption",)


def test_photos_that_subsets_name_again_are_counted_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    touched(folder / "a", "1.png", "2.png")
    toml = "datasets = [{{image_dir = 'a', subsets = [{}]}}]"
    for subsets, refused in ((25, ""), (26, "names more than 50 photos"), (51, "has more than 50 subsets")):
        (folder / "set.toml").write_text(toml.format("{}, " * subsets))
        if refused:
            with pytest.raises(UploadRefused, match=refused):
                from_folder(folder)
        else:
            assert len(from_folder(folder).photos) == 50


def test_what_many_subsets_leave_out_is_named_once_for_all_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    touched(folder / "a", *(f"{number}.json" for number in range(30)))
    (folder / "set.toml").write_text(f"datasets = [{{image_dir = 'a', subsets = [{'{}, ' * 50}]}}]")
    found = from_folder(folder)
    assert found.left_out[0] == "a/0.json is neither a photo nor a caption of one"
    assert found.left_out[20:] == ("... and 10 more files like these",)


def test_a_small_description_of_many_subsets_costs_no_seconds(tmp_path: Path) -> None:
    """Of one folder with thousands of files, and with thousands of settings for each subset: hundredths of a second."""
    toml = tmp_path / "set.toml"
    settings = "".join(f"a{number} = 1\n" for number in range(5_000))
    toml.write_text(f"datasets = [{{image_dir = 'a', subsets = [{'{}, ' * 500}]}}]\n[general]\n{settings}")
    paths = {f"a/{number}.jsonl": toml for number in range(2_000)}
    files, tries = ListedFiles("photos.zip", {**paths, "set.toml": toml}), list[float]()
    found = read_files(files, 500)
    # The best of three: a busy machine, or a collection of garbage, took 0.5 s of one.
    for _ in range(3):
        began = time.process_time()
        read_files(files, 500)
        tries.append(time.process_time() - began)
    assert min(tries) < 0.5
    assert found.left_out[20:] == ("... and 6,980 more files like these",)


@pytest.mark.parametrize("tokens", ["x" * 2001, "sks\\u0000mug"])
def test_class_tokens_that_are_no_caption_are_refused(tmp_path: Path, tokens: str) -> None:
    folder = tmp_path / "data"
    touched(folder / "a", "1.png")
    (folder / "set.toml").write_text(f'datasets = [{{subsets = [{{image_dir = "a", class_tokens = "{tokens}"}}]}}]')
    with pytest.raises(UploadRefused, match="class_tokens of a may be 2,000 printable characters"):
        from_folder(folder)
