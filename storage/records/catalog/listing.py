"""Lists of the catalogue: what a client may ask for, and the cursor that keeps the order of the first page.

A cursor carries the snapshot in which its first page was read. Later pages read the sort keys as that snapshot saw
them and show what is still public, so nothing that moves meanwhile is missed or comes twice.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec

from storage.errors import CursorExpired, InvalidCursor
from storage.records.catalog.vocabulary import CheckpointType, CommercialUse, ModelType, UploadType

KEEP_HOURS = 24
"""How long a sort key is kept after another one has replaced it, and so how long a cursor works."""

_SNAPSHOT = re.compile(r"(\d{1,19}):(\d{1,19}):((?:\d{1,19})(?:,\d{1,19})*)?")
# The largest bigint: before every place of a list.
_TOP = 2**63 - 1


class ModelSort(StrEnum):
    """Orders of models."""

    HIGHEST_RATED = "Highest Rated"
    MOST_DOWNLOADED = "Most Downloaded"
    MOST_LIKED = "Most Liked"
    MOST_DISCUSSED = "Most Discussed"
    MOST_COLLECTED = "Most Collected"
    MOST_IMAGES = "Most Images"
    NEWEST = "Newest"
    OLDEST = "Oldest"

    @property
    def list_name(self) -> str:
        """The list in `sort_keys`."""
        return _MODEL_LISTS[self]


class ImageSort(StrEnum):
    """Orders of images."""

    MOST_REACTIONS = "Most Reactions"
    MOST_COMMENTS = "Most Comments"
    MOST_COLLECTED = "Most Collected"
    NEWEST = "Newest"
    OLDEST = "Oldest"
    RANDOM = "Random"

    @property
    def list_name(self) -> str:
        """The list in `sort_keys`."""
        return _IMAGE_LISTS[self]


class Period(StrEnum):
    """How far back a list goes."""

    DAY = "Day"
    WEEK = "Week"
    MONTH = "Month"
    YEAR = "Year"
    ALL_TIME = "AllTime"

    def since(self, now: datetime) -> datetime | None:
        """The oldest date that the period holds at `now`."""
        days = _DAYS.get(self)
        return None if days is None else now - timedelta(days=days)


_MODEL_LISTS = {
    ModelSort.HIGHEST_RATED: "rated",
    ModelSort.MOST_LIKED: "rated",
    ModelSort.MOST_DOWNLOADED: "downloaded",
    ModelSort.MOST_DISCUSSED: "discussed",
    ModelSort.MOST_COLLECTED: "collected",
    ModelSort.MOST_IMAGES: "pictured",
    ModelSort.NEWEST: "newest",
    ModelSort.OLDEST: "oldest",
}
_IMAGE_LISTS = {
    ImageSort.MOST_REACTIONS: "image_reactions",
    ImageSort.MOST_COMMENTS: "image_comments",
    ImageSort.MOST_COLLECTED: "image_collected",
    ImageSort.NEWEST: "image_newest",
    ImageSort.OLDEST: "image_oldest",
    ImageSort.RANDOM: "image_random",
}
_DAYS = {Period.DAY: 1, Period.WEEK: 7, Period.MONTH: 30, Period.YEAR: 365}


class ModelFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which models a list shows; None leaves a question open. `levels` are bits, one of which a model must have."""

    levels: int = 1
    types: tuple[ModelType, ...] | None = None
    base_models: tuple[str, ...] | None = None
    checkpoint_type: CheckpointType | None = None
    tag: str | None = None
    username: str | None = None
    ids: tuple[int, ...] | None = None
    version_ids: tuple[int, ...] | None = None
    formats: tuple[str, ...] | None = None
    commercial_use: tuple[CommercialUse, ...] | None = None
    allow_no_credit: bool | None = None
    allow_derivatives: bool | None = None
    allow_different_license: bool | None = None
    upload_type: UploadType | None = None
    drawable: bool = False
    archived: bool = False
    nothing: bool = False
    period: Period = Period.ALL_TIME


class ImageFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which images a list shows; None leaves a question open. `levels` are bits."""

    levels: int = 1
    model_id: int | None = None
    version_id: int | None = None
    image_id: int | None = None
    username: str | None = None
    user_number: int | None = None
    tags: tuple[int, ...] | None = None
    base_models: tuple[str, ...] | None = None
    requiring_meta: bool = False
    nothing: bool = False
    period: Period = Period.ALL_TIME


class ListPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where an item stands in a list; lists run from the highest place down."""

    k1: int
    k2: int
    item_id: int


TOP = ListPlace(_TOP, _TOP, _TOP)


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where a page begins, in which list, and in whose eyes.

    `asked` is a hash of the list and its filter, `snapshot` the text of a pg_snapshot, `epoch` names the cluster that
    the snapshot belongs to, `started_at` (Unix seconds) when the first page was read.
    """

    asked: str
    epoch: str
    snapshot: str
    started_at: int
    place: ListPlace

    def began(self) -> datetime:
        """When the first page was read."""
        return datetime.fromtimestamp(self.started_at, UTC)


def fingerprint(list_name: str, wanted: msgspec.Struct) -> str:
    """What ties a cursor to its list and filter (12 hex digits)."""
    return hashlib.sha256(list_name.encode() + b"\n" + msgspec.json.encode(wanted, order="sorted")).hexdigest()[:12]


def check_cursor(cursor: Cursor, asked: str, epoch: str, now: datetime) -> None:
    """Raises InvalidCursor for one of another list, filter or making, CursorExpired for one that is too old."""
    if cursor.asked != asked:
        raise InvalidCursor("The cursor belongs to another sort or filter. Send the same parameters as for its page.")
    if not is_snapshot(cursor.snapshot) or not all(
        -_TOP <= key <= _TOP for key in msgspec.structs.astuple(cursor.place)
    ):
        raise InvalidCursor("The cursor is not one of ours. Send metadata.nextCursor of a page, unchanged.")
    age = now.timestamp() - cursor.started_at
    # A minute ahead is taken: another process's clock may be.
    if cursor.epoch != epoch or not -60 <= age < KEEP_HOURS * 3600:
        raise CursorExpired(f"The cursor is older than {KEEP_HOURS} hours. Begin again at the first page.")


def is_snapshot(text: str) -> bool:
    """Whether Postgres would take `text` as a pg_snapshot: xmin:xmax:xip, in order and in range."""
    match = _SNAPSHOT.fullmatch(text)
    if match is None:
        return False
    low, high = int(match[1]), int(match[2])
    running = [int(number) for number in (match[3] or "").split(",") if number]
    inside = all(low <= number < high for number in running)
    return 0 < low <= high <= _TOP and inside and running == sorted(set(running))
