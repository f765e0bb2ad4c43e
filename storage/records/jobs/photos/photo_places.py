"""Where photos and their captions are: a folder of this machine, or files from elsewhere under their names there.

Paths are relative to the place, with `/`, and `""` is the place itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol


class PhotoPlace(Protocol):
    """What a layout of photos needs of a place."""

    def called(self, path: str) -> str:
        """A path as messages name it."""
        ...

    def has_file(self, path: str) -> bool:
        """Whether a file is there."""
        ...

    def has_folder(self, path: str) -> bool:
        """Whether a folder is there, if only an empty one."""
        ...

    def files(self, folder: str) -> list[str]:
        """The names of the files in a folder, sorted; none where there is no such folder."""
        ...

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder, sorted."""
        ...

    def local(self, path: str) -> Path:
        """Where this machine has a file of the place."""
        ...


@dataclass(frozen=True)
class FolderPlace:
    """A folder of this machine. Only what is asked for is looked at: it may be somebody's home."""

    root: Path

    def called(self, path: str) -> str:
        """The whole path."""
        return str(self.root / path)

    def has_file(self, path: str) -> bool:
        """Follows links."""
        return (self.root / path).is_file()

    def has_folder(self, path: str) -> bool:
        """Follows links."""
        return (self.root / path).is_dir()

    def files(self, folder: str) -> list[str]:
        """Hidden ones too."""
        return sorted(one.name for one in self._entries(folder) if one.is_file())

    def folders(self, folder: str) -> list[str]:
        """Hidden ones too."""
        return sorted(one.name for one in self._entries(folder) if one.is_dir())

    def local(self, path: str) -> Path:
        """The file itself."""
        return self.root / path

    def _entries(self, folder: str) -> list[Path]:
        place = self.root / folder
        return list(place.iterdir()) if place.is_dir() else []


@dataclass(frozen=True)
class ListedFiles:
    """Files of an archive or of another machine, which lie here under other names. `name` is what messages call it."""

    name: str
    paths: Mapping[str, Path]

    def called(self, path: str) -> str:
        """The path, behind the name of the place."""
        return f"{self.name}: {path}" if path else self.name

    def has_file(self, path: str) -> bool:
        """By its whole path."""
        return path in self.paths

    def has_folder(self, path: str) -> bool:
        """One that holds a file: archives and object stores know no others."""
        return not path or self._holds(self._first_below(f"{path}/"), f"{path}/")

    def files(self, folder: str) -> list[str]:
        """Those that lie in the folder itself."""
        return list(self._files.get(folder, ()))

    def folders(self, folder: str) -> list[str]:
        """Those that hold a file."""
        before = f"{folder}/" if folder else ""
        found: list[str] = []
        at = self._first_below(before)
        while self._holds(at, before):
            name = self._folders[at].removeprefix(before).partition("/")[0]
            found += [name] if name else []
            # Behind all that is in this one: `0` is the character after `/`.
            at = self._first_below(f"{before}{name}0") if name else at + 1
        return sorted(found)

    def local(self, path: str) -> Path:
        """Raises KeyError for a path that is not listed."""
        return self.paths[path]

    # Made once: a layout may ask for one folder again and again, and an archive has thousands of files.
    @cached_property
    def _files(self) -> dict[str, list[str]]:
        """The names in each folder that holds files itself, sorted."""
        found: dict[str, list[str]] = {}
        for path in self.paths:
            folder, _, name = path.rpartition("/")
            found.setdefault(folder, []).append(name)
        return {folder: sorted(names) for folder, names in found.items()}

    @cached_property
    def _folders(self) -> list[str]:
        """Those folders, each with `/` behind it, sorted: what is in one of them, or below it, stands together. Not the
        folders between: of deep paths they would take far more memory than the paths."""
        return sorted(f"{folder}/" for folder in self._files if folder)

    def _first_below(self, prefix: str) -> int:
        return bisect_left(self._folders, prefix)

    def _holds(self, at: int, prefix: str) -> bool:
        return at < len(self._folders) and self._folders[at].startswith(prefix)


def joined(folder: str, name: str) -> str:
    """A path from a folder's; `.` is the folder itself."""
    path = str(PurePosixPath(folder) / name)
    return "" if path == "." else path
