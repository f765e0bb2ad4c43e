"""Photos from another machine: whatever fsspec reads (S3, the web, Hugging Face, ...), brought here before the upload.

The command line does it, so that no credential for such a place reaches the API, which opens no address that somebody
types. Credentials come from the environment, as each protocol's library reads them. An address may hold a password or
a signature: what is shown and stored of it is `shown` and `name_of`, and no library's own words, which may repeat it.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import fsspec
from fsspec.registry import get_filesystem_class, known_implementations

from deployments.client.remote_reads import Budget, NoPhotos, fetch_file, unreadable
from storage.records.jobs.photos.photo_layouts import DESCRIPTION, METADATA, SUFFIXES
from storage.records.jobs.photos.photo_places import ListedFiles
from storage.settings import MIB, UploadSettings

ARCHIVE = ".zip"
_TEXT_BYTES = MIB
_AT_ONCE = 8
DEEPEST = 20
"""Folders inside each other."""
_URL = re.compile(r"[a-z][a-z0-9+.-]*(://|::)")
_IN_ZIP = re.compile(r"zip(?:://(?P<inside>.*?))?::(?P<archive>.+)", re.DOTALL)
_JUNK = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class FetchedPhotos:
    """What was at a URL: files, with the TOML file that describes them if one was named; or an archive, of which the
    folder or file `inside` counts (all of it if empty)."""

    files: ListedFiles
    description: str = ""
    archive: Path | None = None
    inside: str = ""


def is_url(place: str) -> bool:
    """Whether a place is a URL and no path of this machine. `file://` is a path, too."""
    return bool(_URL.match(place)) and not place.startswith(("file://", "local://"))


def shown(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment."""
    return "::".join(_shown(part) for part in url.split("::"))


def name_of(url: str) -> str:
    """What a data set from a URL is called: the last name in its path, without what may be secret."""
    parts = [part for part in re.split(r"::|/", shown(url)) if part and not part.endswith(":")]
    # Of `zip://inside::archive` the archive's: a folder in it is often called `images`.
    name = PurePosixPath(parts[-1]).stem if parts else ""
    return "".join(character for character in name if character.isprintable())[:100].strip(".") or "photos"


def fetch_photos(url: str, folder: Path, limits: UploadSettings) -> FetchedPhotos:
    """Bring what is at a URL into `folder`, under names of our own: a photo, an archive, kohya's TOML, or a folder.

    Of `zip://INSIDE::URL` the archive is brought as a whole, and unpacked by our own rules. Raises NoPhotos, without
    what is secret in the URL.
    """
    chained = _IN_ZIP.fullmatch(url)
    address, inside = (chained["archive"], (chained["inside"] or "").strip("/")) if chained else (url, "")
    if any(character in inside for character in "*?["):
        raise NoPhotos(f"{shown(url)} has a pattern; name a folder of the archive, or nothing: zip::URL")
    if chained and not is_url(address):
        address = Path(address.removeprefix("file://")).absolute().as_uri()
    budget = Budget(limits.max_upload_bytes, shown(url))
    filesystem, path = _open(address)
    kind = ARCHIVE if chained else _kind(filesystem, path, address)
    if kind == ARCHIVE:
        archive = folder / "archive.zip"
        fetch_file(filesystem, path, archive, limits.max_upload_bytes, budget, shown(address))
        return FetchedPhotos(ListedFiles(shown(address), {}), archive=archive, inside=inside)
    if kind in SUFFIXES:
        target = folder / "photo"
        fetch_file(filesystem, path, target, limits.max_image_bytes, budget, shown(address))
        return FetchedPhotos(ListedFiles(shown(address), {_last(path): target}))
    place = path.rsplit("/", 1)[0] if kind == DESCRIPTION else path
    listed = _listed(filesystem, place, 4 * limits.max_images + 1000, shown(address))
    paths = {name: folder / f"{number:06}" for number, name in enumerate(listed)}
    wanted = [name for name in paths if _counts(name, paths)]

    def fetch(name: str) -> None:
        limit = limits.max_image_bytes if _suffix(name) in SUFFIXES else _TEXT_BYTES
        fetch_file(filesystem, listed[name], paths[name], limit, budget, f"{shown(address)}: {name}")

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for _ in threads.map(fetch, wanted):
            pass
    return FetchedPhotos(ListedFiles(shown(address), paths), _last(path) if kind == DESCRIPTION else "")


def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. Raises NoPhotos naming what to install."""
    for part in url.split("::"):
        if "://" in part:
            _check_protocol(part.split("://", 1)[0], shown(url))
    try:
        # Listings are read once; what another process wrote since must be seen.
        return cast(tuple[Any, str], cast(Any, fsspec).core.url_to_fs(url, use_listings_cache=False))
    except Exception as error:  # noqa: BLE001 - each protocol's library has its own, and its words may hold the secret
        raise unreadable(error, shown(url)) from None


def _check_protocol(protocol: str, address: str) -> None:
    try:
        get_filesystem_class(protocol)
    except ValueError:
        raise NoPhotos(
            f"{address}: fsspec knows no protocol '{protocol}'. It knows s3, gs, az, hf, https, sftp and others; for a "
            "folder of this machine leave the protocol out."
        ) from None
    except ImportError:
        known = known_implementations[protocol]
        library = re.split(r"[.:]", known["class"])[0]
        advice = known.get("err", "") if library == "fsspec" else f"pip install {library}"
        raise NoPhotos(f"{address}: {protocol}:// needs a library that is not installed here: {advice}") from None


def _kind(filesystem: Any, path: str, url: str) -> str:
    """The suffix that says what a file is; empty for a folder. Raises NoPhotos."""
    suffix = PurePosixPath(shown(url)).suffix.lower()
    if suffix in {*SUFFIXES, ARCHIVE, DESCRIPTION}:
        return suffix
    web = url.startswith(("http://", "https://"))
    try:
        # On the web every address is a file, and a list of links one that ends with a slash.
        is_folder = path.endswith("/") if web else filesystem.isdir(path)
        if is_folder:
            return ""
        with filesystem.open(path, "rb") as stream:
            head = cast(bytes, stream.read(4))
    except Exception as error:  # noqa: BLE001 - see _open
        raise unreadable(error, shown(url)) from None
    # A download whose address has no name.
    if head.startswith(b"PK\x03\x04"):
        return ARCHIVE
    raise NoPhotos(
        f"{shown(url)} is no folder, and no file that ends in {', '.join(sorted({*SUFFIXES, ARCHIVE, DESCRIPTION}))}."
    )


def _listed(filesystem: Any, root: str, maximum: int, address: str) -> dict[str, str]:
    """The files below a folder: their paths in it, and what the file system calls them. Raises NoPhotos when there
    are more than `maximum` files or folders."""
    found: dict[str, str] = {}
    advice = "Give the folder that has the photos."
    # Folder by folder: a list of everything may have millions of names.
    walked = filesystem.walk(root, detail=True, on_error="raise")
    try:
        for number, (folder, _, files) in enumerate(walked, start=1):
            # A list of links on the web may lead on without end.
            if number > maximum:
                raise NoPhotos(f"{address} has more than {maximum:,} folders. {advice}")
            if _below(folder, root).count("/") >= DEEPEST:
                raise NoPhotos(f"{address} has folders more than {DEEPEST} deep. {advice}")
            for path in (str(facts["name"]) for facts in files.values()):
                name = _below(path, root)
                if name and not any(part[0] == "." or part in _JUNK for part in name.split("/") if part):
                    found[name] = path
                if len(found) > maximum:
                    raise NoPhotos(f"{address} has more than {maximum:,} files. {advice}")
    except NoPhotos:
        raise
    except Exception as error:  # noqa: BLE001 - see _open
        raise unreadable(error, address) from None
    return dict(sorted(found.items()))


def _below(path: str, root: str) -> str:
    return path[len(root.rstrip("/")) :].strip("/")


def _counts(name: str, names: dict[str, Path]) -> bool:
    """Whether a layout may read a file: a photo, what describes photos, or what lies beside one under its name."""
    if _suffix(name) in {*SUFFIXES, DESCRIPTION} or _last(name) == METADATA:
        return True
    stem = name[: len(name) - len(PurePosixPath(name).suffix)]
    # Kohya's TOML may give captions any suffix; what its scripts cache beside photos (.npz) is no text.
    return _suffix(name) not in {".npz", ".safetensors"} and any(
        stem + suffix in names for one in SUFFIXES for suffix in (one, one.upper())
    )


def _shown(part: str) -> str:
    scheme, separator, rest = part.partition("://")
    if not separator:
        return re.split(r"[?#]", part)[0]
    authority = re.split(r"[/?#]", rest)[0]
    host = authority.rsplit("@", 1)[-1]
    path = rest[len(authority) :]
    if re.search(r":(?!\d+$)", host) or ("@" in authority and "@" in path):
        return f"{scheme}://..."  # a password that is not quoted as it should be
    return f"{scheme}://{host}{re.split(r'[?#]', path)[0]}"


def _last(path: str) -> str:
    return re.split(r"[?#]", path)[0].rstrip("/").rsplit("/", 1)[-1]


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
