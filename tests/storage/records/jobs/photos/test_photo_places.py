"""Places answer alike, whatever they are; paths leave none that is no folder of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.records.jobs.photos.photo_places import FolderPlace, ListedFiles, PhotoPlace, joined


@pytest.fixture(params=["folder", "listed"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> PhotoPlace:
    """The same files in a folder, and in a list."""
    for path in (
        "b.png",
        "a.png",
        "deep/c.png",
        "deep/deeper/d.png",
        "deep/deeper/e/f.png",
        "deep-2/g.png",
        "h/i/j.png",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    files = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*.png")}
    return FolderPlace(tmp_path) if request.param == "folder" else ListedFiles("photos.zip", files)


def test_every_place_answers_alike(place: PhotoPlace) -> None:
    assert (place.files(""), place.folders("")) == (["a.png", "b.png"], ["deep", "deep-2", "h"])
    assert (place.files("deep"), place.folders("deep")) == (["c.png"], ["deeper"])
    assert (place.files("h"), place.folders("h"), place.folders("deep/deeper")) == ([], ["i"], ["e"])
    assert (place.files("nowhere"), place.folders("nowhere")) == ([], [])
    assert [place.has_file(path) for path in ("a.png", "deep/c.png", "deep", "c.png")] == [True, True, False, False]
    assert [place.has_folder(path) for path in ("", "deep", "h", "h/i", "dee", "a.png")] == [True] * 4 + [False] * 2
    assert place.local("deep/c.png").is_file()
    assert place.called("a.png").endswith("a.png")


@pytest.mark.parametrize(
    ("folder", "name", "path"),
    [("", ".", ""), (".", "a", "a"), ("a", ".", "a"), ("a", "b/c", "a/b/c"), ("a", "/b", "/b")],
)
def test_paths_are_joined(folder: str, name: str, path: str) -> None:
    assert joined(folder, name) == path


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.png", "deep/../a.png"])
def test_a_list_has_nothing_but_what_is_listed(tmp_path: Path, path: str) -> None:
    place = ListedFiles("photos.zip", {"a.png": tmp_path / "a.png"})
    assert not place.has_file(path)
    assert not place.has_folder(path)
    with pytest.raises(KeyError):
        place.local(path)
