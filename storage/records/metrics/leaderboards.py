"""Leaderboards: whose works were most popular in the last days. What a board scores, how, and for whom, is data here.

A day's boards score acts until `AHEAD` before it begins. So they are ready when it does, every act counts in as many
boards of one kind as that has days, and a board that is made again later scores the same hours. It counts works that
everybody finds at that moment, and what has come late for those hours: only what was published stays as it was.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

import msgspec

from storage.records.metrics.activity import Counted, Metric

RANK = "rank-leaderboards"
"""The flow, its lock, and its rows in `flow_partitions`."""
AHEAD = timedelta(hours=2)
PLACES = 1000
"""The most creators that one board has."""
WHOLE = 1000
"""Weights are in thousandths: whole numbers give the same sums in whatever order they are added."""


class Rule(msgspec.Struct, frozen=True):
    """How many points an act of a kind brings to whose work, or whose account, it is about."""

    entity: Counted
    metric: Metric
    points: int


class Leaderboard(msgspec.Struct, frozen=True, kw_only=True):
    """What a board is. `days`: it scores so many times 24 hours.

    best_of: a creator's n-th best work counts by 1 - sqrt((n - 1) / best_of), and none after that many, so that many
    works do not outweigh good ones (as Civitai weights pictures). None: every work counts whole.
    joined_within_days: only for accounts that are not older, at the end of what is scored.
    """

    id: str
    title: str
    description: str
    days: int
    rules: tuple[Rule, ...]
    best_of: int | None = None
    joined_within_days: int | None = None

    def window(self, day: date) -> tuple[datetime, datetime]:
        """The time whose acts the board of a day scores: from, and up to but without."""
        until = counted_until(day)
        return until - timedelta(days=self.days), until

    def weights(self) -> list[int] | None:
        """The weight of a creator's best work, the second best and so on, in thousandths; None: all are whole."""
        if self.best_of is None:
            return None
        return [round(WHOLE * (1 - math.sqrt(nth / self.best_of))) for nth in range(self.best_of)]


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """An edition that was written and is not read yet."""

    edition_id: int
    board: str
    places: int


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """What the making of a day's boards did."""

    day: date
    boards: int
    places: int
    seconds: float


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A creator on a board. Equal scores have equal ranks; `previous_rank` is the one of the day before, if any.

    `counts` are the acts that were scored, by what they are.
    """

    rank: int
    previous_rank: int | None
    score: int
    counts: dict[Metric, int]
    number: int
    name: str
    image: str | None

    @property
    def delta(self) -> int | None:
        """By how many ranks the creator has risen since the day before; below 0: fallen."""
        return None if self.previous_rank is None else self.previous_rank - self.rank


class Edition(msgspec.Struct, frozen=True, kw_only=True):
    """The published board of a day, as it was defined then, with some of its places in their order.

    `previous_day` is the day before when that has a board to be compared with; `total` counts all places.
    """

    board: str
    day: date
    since: datetime
    until: datetime
    definition: Leaderboard
    published_at: datetime
    previous_day: date | None
    total: int
    places: tuple[Place, ...]


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """The first and the latest day that a board can be read of."""

    board: str
    first: date
    latest: date


def counted_until(day: date) -> datetime:
    """When the time ends whose acts a day's boards score: they can be made from then on."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) - AHEAD


# Acts that creators do to themselves cheaply (comments), or to others to push them down (thumbs down), bring nothing.
_USED = (
    Rule(Counted.VERSION, Metric.DOWNLOAD, 1),
    Rule(Counted.VERSION, Metric.GENERATION, 1),
    Rule(Counted.VERSION, Metric.THUMBS_UP, 10),
    Rule(Counted.MODEL, Metric.THUMBS_UP, 10),
)
_LIKED = tuple(Rule(Counted.IMAGE, metric, 2) for metric in (Metric.LIKE, Metric.HEART, Metric.LAUGH, Metric.CRY))
_FOLLOWED = (Rule(Counted.USER, Metric.FOLLOW, 20),)
_CREATORS = (*_USED, *_LIKED, *_FOLLOWED)
_POINTS = "1 point for a download or generation, 2 for a reaction to a picture, 10 for a thumb up, 20 for a follower."

BOARDS: dict[str, Leaderboard] = {
    board.id: board
    for board in (
        Leaderboard(
            id="creators-week",
            title="Creators of the week",
            description=f"Whose models and pictures were most popular in seven days: {_POINTS}",
            days=7,
            rules=_CREATORS,
        ),
        Leaderboard(
            id="creators-month",
            title="Creators of the month",
            description=f"Whose models and pictures were most popular in thirty days: {_POINTS}",
            days=30,
            rules=_CREATORS,
        ),
        Leaderboard(
            id="newcomers-month",
            title="Newcomers of the month",
            description=f"The same for those who joined in the last 90 days: {_POINTS}",
            days=30,
            rules=_CREATORS,
            joined_within_days=90,
        ),
        Leaderboard(
            id="pictures-month",
            title="Pictures of the month",
            description="Whose pictures were liked most in thirty days: 2 points for a reaction. Of a creator's "
            "pictures the best counts whole and each further one less, so many do not outweigh good ones.",
            days=30,
            rules=_LIKED,
            best_of=120,
        ),
    )
}
"""Every board, by its id. A board that is taken out is not made any more; its days are read no more."""
