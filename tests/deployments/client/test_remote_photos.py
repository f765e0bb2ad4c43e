"""Photos at URLs: fetched here and under limits, with no secret of theirs in what is shown or stored."""

from __future__ import annotations

import errno
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import register_implementation

from deployments.client import remote_reads
from deployments.client.photos import FoundPhotos, find_photos
from deployments.client.remote_photos import is_url, name_of, shown
from deployments.client.remote_reads import NoPhotos
from storage.errors import ArchiveRefused
from storage.settings import UploadSettings
from tests.platform_api.door import photo
from tests.storage.blobs.test_archives import zipped

LIMITS = UploadSettings(max_images=9, max_image_bytes=100_000, max_upload_bytes=300_000)
SECRET = "hunter2"


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFileSystem]:
    """fsspec's file system in memory; temporary files of this test alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(remote_reads, "PAUSE_SECONDS", 0.001)
    filesystem = MemoryFileSystem()
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


def write(filesystem: MemoryFileSystem, **files: bytes) -> None:
    for name, content in files.items():
        filesystem.pipe_file(f"/shots/{name.replace('__', '/').replace('_', '.')}", content)


def said(found: FoundPhotos) -> list[tuple[str, str, int]]:
    return [(one.name, one.caption, one.repeats) for one in found.photos]


def test_a_folder_elsewhere_is_read_like_one_here(memory: MemoryFileSystem, tmp_path: Path) -> None:
    write(memory, a_png=photo(1), a_txt=b"at sea", deep__b_jpg=photo(2), notes_md=b"x" * 2_000_000, _hidden=b"x")
    found = find_photos("memory://shots", LIMITS)
    assert (found.name, said(found)) == ("shots", [("a.png", "at sea", 1), ("b.jpg", "", 1)])
    assert found.left_out == ("notes.md is neither a photo nor a caption",)
    assert found.photos[0].path.read_bytes() == photo(1)
    assert found.photos[0].path.is_relative_to(tmp_path)
    del found
    assert list(tmp_path.iterdir()) == []


def test_kohyas_toml_elsewhere_names_the_folders_beside_it(memory: MemoryFileSystem) -> None:
    toml = b"[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'p'\nnum_repeats = 4\nclass_tokens = 'sks mug'\n"
    write(memory, set_toml=toml, other_toml=b"[[", p__a_png=photo(1), p__a_caption=b"at sea", q__b_png=photo(2))
    found = find_photos("memory://shots/set.toml", LIMITS)
    assert (said(found), found.subjects) == ([("a.png", "at sea", 4)], ("sks mug",))


@pytest.mark.parametrize("inside", ["", "://", "://img", "://img/10_sks mug"])
def test_an_archive_elsewhere_is_unpacked_by_our_own_rules(memory: MemoryFileSystem, inside: str) -> None:
    write(memory, my_zip=zipped(("img/10_sks mug/a.png", photo(1)), ("img/10_sks mug/a.txt", b"at sea")))
    found = find_photos(f"zip{inside}::memory://shots/my.zip" if inside else "memory://shots/my.zip", LIMITS)
    assert (found.name, [(one.name, one.caption) for one in found.photos]) == ("my", [("a.png", "at sea")])
    assert (found.photos[0].repeats, found.subjects) == ((1, ()) if inside.endswith("mug") else (10, ("sks mug",)))
    write(memory, my_zip=zipped(("../a.png", photo(1))))
    with pytest.raises(ArchiveRefused, match=r"memory://shots/my.zip: '../a.png' is not a plain relative name"):
        find_photos(f"zip{inside}::memory://shots/my.zip" if inside else "memory://shots/my.zip", LIMITS)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memory://nowhere", "there is nothing at memory://nowhere"),
        ("memory://shots/gone.png", "there is nothing at memory://shots/gone.png"),
        ("memory://shots/notes.md", "is no folder, and no file that ends in .jpeg, .jpg, .png, .toml, .webp, .zip"),
        ("memory://shots/empty.zip", "The file is not a zip archive"),
        ("memory://shots/large.png", "has more than 100,000 bytes. Export it smaller"),
        ("memory://many", "memory://many has more than 1,036 files"),
        ("memory://heavy", "memory://heavy has more than 300,000 bytes"),
        ("zip://*.png::memory://shots/empty.zip", "has a pattern; name a folder of the archive"),
        ("nosuch://shots", "fsspec knows no protocol 'nosuch'. It knows s3"),
        ("gs://bucket/shots", "gs:// needs a library that is not installed here: pip install gcsfs"),
    ],
)
def test_what_cannot_be_read_says_why_and_leaves_nothing(
    memory: MemoryFileSystem, tmp_path: Path, url: str, reason: str
) -> None:
    write(memory, notes_md=b"x", empty_zip=b"", large_png=b"x" * 100_001)
    for number in range(1040):
        memory.pipe_file(f"/many/{number}.txt", b"")
    for number in range(4):
        memory.pipe_file(f"/heavy/{number}.png", b"x" * 90_000)
    with pytest.raises((NoPhotos, ArchiveRefused), match=reason.replace("*", r"\*")):
        find_photos(url, LIMITS)
    assert list(tmp_path.iterdir()) == []


class Cut(io.BytesIO):
    """A file that breaks off after `left` bytes; without `seeks` it is sent from its beginning only."""

    def __init__(self, content: bytes, left: int, *, seeks: bool) -> None:
        super().__init__(content)
        self.size, self._left, self._seeks = len(content), left, seeks

    def read(self, size: int | None = -1, /) -> bytes:
        if self._left <= 0:
            raise ConnectionResetError(f"cannot read https://me:{SECRET}@host?sig={SECRET}")
        piece = super().read(min(self._left, 10_000))
        self._left -= len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if not self._seeks:
            raise ValueError("Cannot seek streaming HTTP file")
        return super().seek(offset, whence)


class Broken(MemoryFileSystem):
    """Reads that break off."""

    protocol = "broken"
    seeks = True
    opened = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + "/".join(path.split("?")[0].split("/")[-2:])

    def _open(self, path: str, *arguments: Any, **options: Any) -> Cut:
        Broken.opened += 1
        # One that begins again gets a little further each time.
        return Cut(self.cat_file(path), 20_000 * (1 if Broken.seeks else Broken.opened), seeks=Broken.seeks)


register_implementation("broken", Broken, clobber=True)


@pytest.mark.parametrize("seeks", [True, False])
def test_a_read_that_breaks_off_is_gone_on_with(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, seeks: bool
) -> None:
    content = bytes(range(256)) * 300
    write(memory, a_png=content)
    monkeypatch.setattr(Broken, "seeks", seeks)
    monkeypatch.setattr(Broken, "opened", 0)
    found = find_photos("broken://shots/a.png", LIMITS)
    assert found.photos[0].path.read_bytes() == content
    assert Broken.opened == 4


def test_a_read_that_begins_again_and_comes_no_farther_is_given_up(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(memory, a_png=bytes(range(256)) * 300)
    opened = 0

    def always_cut(*arguments: Any, **options: Any) -> Cut:
        nonlocal opened
        opened += 1
        assert opened <= 9
        return Cut(bytes(range(256)) * 300, 20_000, seeks=False)

    monkeypatch.setattr(Broken, "_open", always_cut)
    with pytest.raises(NoPhotos, match=r"cannot be read \(ConnectionResetError\)"):
        find_photos("broken://shots/a.png", LIMITS)
    assert opened == 1 + remote_reads.FRUITLESS_TRIES


@pytest.mark.parametrize("room", [100_000, 40_000])
def test_a_disk_that_takes_a_part_of_a_write_is_written_to_again_until_it_refuses(
    memory: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    content = bytes(range(256)) * 300
    write(memory, a_png=content)
    opened = Path.open

    class NearlyFull(io.FileIO):
        def write(self, piece: Any, /) -> int:
            left = min(room - self.tell(), 30_000)
            if left <= 0:
                raise OSError(errno.ENOSPC, "full")
            return super().write(piece[:left])

    def open_nearly_full(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return NearlyFull(path, mode) if mode == "wb" else opened(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_nearly_full)
    if room > len(content):
        found = find_photos("memory://shots/a.png", LIMITS)
        assert found.photos[0].path.read_bytes() == content
    else:
        with pytest.raises(NoPhotos, match="no room left in the folder of temporary files"):
            find_photos("memory://shots/a.png", LIMITS)


class Endless(MemoryFileSystem):
    """A list of links that leads on without end: each folder holds folders."""

    protocol = "endless"
    wide = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("endless://").strip("/")

    def isdir(self, path: str) -> bool:
        return True

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        if path.count("/") > (2 if Endless.wide else 60):
            return []
        names = range(2000) if Endless.wide else ["a"]
        return [{"name": f"{path.rstrip('/')}/{name}", "size": 0, "type": "directory"} for name in names]


register_implementation("endless", Endless, clobber=True)


@pytest.mark.parametrize(("wide", "reason"), [(False, "folders more than 20 deep"), (True, "more than 1,036 folders")])
def test_folders_without_end_are_given_up(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, wide: bool, reason: str
) -> None:
    monkeypatch.setattr(Endless, "wide", wide)
    with pytest.raises(NoPhotos, match=rf"endless://shots has {reason}\. Give the folder that has the photos"):
        find_photos("endless://shots", LIMITS)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionResetError(SECRET), r"cannot be read \(ConnectionResetError\)"),
        (PermissionError(SECRET), r"may not be read \(PermissionError\)\. Give credentials in the environment"),
        (FileNotFoundError(f"https://me:{SECRET}@host/shots/a.png?sig={SECRET}"), "there is nothing at"),
    ],
)
def test_no_secret_is_in_an_error_a_name_or_a_log(
    memory: MemoryFileSystem,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    reason: str,
) -> None:
    caplog.set_level(logging.INFO)
    write(memory, a_png=b"")

    def refused(*arguments: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(Broken, "_open", refused)
    url = f"broken://me:{SECRET}@host/shots/a.png?sig={SECRET}#{SECRET}"
    with pytest.raises(NoPhotos, match=reason) as refusal:
        find_photos(url, LIMITS)
    assert "broken://host/shots/a.png" in str(refusal.value)
    assert SECRET not in f"{refusal.value!r} {refusal.value.__cause__!r} {name_of(url)} {caplog.text}"


@pytest.mark.parametrize(
    ("url", "public", "name"),
    [
        ("https://me:pw@host:8080/a/my%20mug.zip?sig=x#y", "https://host:8080/a/my%20mug.zip", "my%20mug"),
        ("https://me:p@w/x@host/a.zip", "https://...", "photos"),
        ("s3://bucket/shots/", "s3://bucket/shots/", "shots"),
        ("hf://datasets/me/dog@main/train", "hf://datasets/me/dog@main/train", "train"),
        ("zip://img::https://me:pw@host/my.zip?sig=x", "zip://img::https://host/my.zip", "my"),
        ("https://host", "https://host", "host"),
    ],
)
def test_what_is_shown_of_a_url_has_no_secret(url: str, public: str, name: str) -> None:
    assert (is_url(url), shown(url), name_of(url)) == (True, public, name)


@pytest.mark.parametrize(
    "place", ["photos", "./photos", "/home/me/a.zip", "file:///home/me", "C:\\photos", "10_sks mug"]
)
def test_a_path_is_no_url(place: str) -> None:
    assert not is_url(place)
