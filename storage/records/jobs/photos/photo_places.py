"""Where photos and their captions are: a folder of this machine, or files from elsewhere under their names there.

Paths are relative to the place, with `/`, and `""` is the place itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
        return not path or bool(self._inside(path))

    def files(self, folder: str) -> list[str]:
        """By the paths that begin with the folder's."""
        inside = self._inside(folder)
        return sorted(rest for rest in inside if "/" not in rest)

    def folders(self, folder: str) -> list[str]:
        """Those that hold a file."""
        return sorted({rest.split("/", 1)[0] for rest in self._inside(folder) if "/" in rest})

    def local(self, path: str) -> Path:
        """Raises KeyError for a path that is not listed."""
        return self.paths[path]

    def _inside(self, folder: str) -> list[str]:
        before = f"{folder}/" if folder else ""
        return [path.removeprefix(before) for path in self.paths if path.startswith(before)]


def joined(folder: str, name: str) -> str:
    """A path from a folder's; `.` is the folder itself."""
    path = str(PurePosixPath(folder) / name)
    return "" if path == "." else path
