"""Leaderboards: whose works were most popular, for today and for days that are over."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from litestar import Controller, Request, Response, get
from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema
from litestar.params import FromPath
from msgspec import Meta

from platform_api.access.dependencies import AppStores
from platform_api.access.guards import Reads
from platform_api.cache.responses import UNCHANGED, respond
from platform_api.http.links import API, Addresses, addresses
from platform_api.http.pagination import Numbers, numbers, queried
from platform_api.http.problems import can_return
from platform_api.http.query_parameters import QueryParameters, integer_schema
from storage.errors import NotFound
from storage.postgres.metrics import leaderboards
from storage.records.accounts.accounts import Scope
from storage.records.metrics.activity import Counted, Metric
from storage.records.metrics.leaderboards import BOARDS, PLACES, Edition, Leaderboard, Place, Published

DEFAULT_LIMIT = 100
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class RuleView(msgspec.Struct, frozen=True, kw_only=True):
    """Points for each act of a kind."""

    entity: Counted
    metric: Metric
    points: int


class BoardView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A board: what it scores, and the days that it can be read of."""

    id: Annotated[str, Meta(examples=["creators-week"])]
    title: str
    description: str
    days: Annotated[int, Meta(description="It scores so many times 24 hours.")]
    rules: list[RuleView]
    best_of: Annotated[
        int | None, Meta(description="A creator's n-th best work counts by 1 - sqrt((n - 1) / bestOf); null: whole.")
    ]
    joined_within_days: Annotated[int | None, Meta(description="Only accounts that are not older; null: all.")]
    first_date: date | None
    latest_date: date | None
    link: str


class BoardList(msgspec.Struct, frozen=True, kw_only=True):
    """Every board."""

    items: list[BoardView]


class PlaceView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A creator on a board. Equal scores have equal ranks."""

    rank: int
    previous_rank: Annotated[int | None, Meta(description="The rank of the day before; null: none.")]
    delta: Annotated[int | None, Meta(description="By how many ranks it rose since; below 0: it fell.")]
    score: int
    counts: Annotated[dict[Metric, int], Meta(description="The acts that were scored, taken-back ones taken off.")]
    user_id: int
    username: Annotated[str, Meta(examples=["owner"])]
    image: str | None
    link: str


class BoardPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The board of a day, as it was defined then. It scores the acts from `from` up to, without, `to`."""

    id: Annotated[str, Meta(examples=["creators-week"])]
    title: str
    description: str
    day: date = msgspec.field(name="date")
    since: datetime = msgspec.field(name="from")
    until: datetime = msgspec.field(name="to")
    published_at: datetime
    previous_date: Annotated[date | None, Meta(description="The day that deltas are to; null: it has no board.")]
    items: list[PlaceView]
    metadata: Numbers


class Leaderboards(Controller):
    """Whose works were most popular."""

    path = "/leaderboards"
    tags = ("Leaderboards",)

    @get(
        "/", guards=[Reads(Scope.MODELS_READ)], responses=can_return(401, 403) | UNCHANGED, summary="Every leaderboard"
    )
    async def list_all(self, request: Request[Any, Any, Any], stores: AppStores) -> Response[BoardList]:
        """What each board scores, how and for whom, and from which to which day it can be read."""
        where = addresses(request, stores.settings.api)
        found = await stores.database.run(leaderboards.published(datetime.now(UTC).date()))
        days = {one.board: one for one in found}
        return respond(
            request, BoardList(items=[_board(board, days.get(board.id), where) for board in BOARDS.values()])
        )

    @get(
        "/{board_id:str}",
        guards=[Reads(Scope.MODELS_READ)],
        operation_class=queried(
            {
                "date": (
                    Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE),
                    "The board of this UTC day, today or earlier; without it, the latest.",
                ),
                "limit": (integer_schema(1, PLACES), f"Places in one page; {DEFAULT_LIMIT} by default."),
                "page": (integer_schema(), "A page by its number."),
            }
        ),
        responses=can_return(401, 403, 404, 422) | UNCHANGED,
        summary="One leaderboard",
    )
    async def show(
        self, request: Request[Any, Any, Any], stores: AppStores, board_id: FromPath[str]
    ) -> Response[BoardPage]:
        """The creators of a board with their ranks, and how those moved since the day before.

        A day's board is ready when the day begins, and does not move with what is counted later. Who is banned is on no
        board, also of days that are over: the others move up.
        """
        query, where, today = (
            QueryParameters(request),
            addresses(request, stores.settings.api),
            datetime.now(UTC).date(),
        )
        day = _read_day(query, today)
        limit, page = query.number("limit", high=PLACES) or DEFAULT_LIMIT, query.number("page") or 1
        query.check()
        if board_id not in BOARDS:
            raise NotFound(f"There is no such leaderboard. There are: {', '.join(BOARDS)}.")
        found = await stores.database.run(
            leaderboards.show(board_id, day or today, latest=day is None, offset=(page - 1) * limit, limit=limit)
        )
        if found is None:
            when = f"of {day}" if day else "yet; the first is ready at the next midnight UTC"
            raise NotFound(f"The leaderboard '{board_id}' has no board {when}. {API}/leaderboards says which it has.")
        metadata = numbers(found.total, page, limit, f"{API}/leaderboards/{board_id}", query, where)
        return respond(request, _page(found, metadata, where), ignored=query.ignored)


def _read_day(query: QueryParameters, today: date) -> date | None:
    """The day that a query names. Notes what is wrong with it."""
    text = query.text("date")
    if text is None:
        return None
    try:
        # `fromisoformat` also takes week dates and dates without dashes.
        day = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None or day > today:
        query.fault("date", f"expected a UTC day such as {today}, and none after it; leave it out for the latest board")
    return day


def _board(board: Leaderboard, days: Published | None, where: Addresses) -> BoardView:
    return BoardView(
        id=board.id,
        title=board.title,
        description=board.description,
        days=board.days,
        rules=[RuleView(entity=rule.entity, metric=rule.metric, points=rule.points) for rule in board.rules],
        best_of=board.best_of,
        joined_within_days=board.joined_within_days,
        first_date=days and days.first,
        latest_date=days and days.latest,
        link=f"{where.base}{API}/leaderboards/{board.id}",
    )


def _page(found: Edition, metadata: Numbers, where: Addresses) -> BoardPage:
    return BoardPage(
        id=found.board,
        title=found.definition.title,
        description=found.definition.description,
        day=found.day,
        since=found.since,
        until=found.until,
        published_at=found.published_at,
        previous_date=found.previous_day,
        items=[_place(place, where) for place in found.places],
        metadata=metadata,
    )


def _place(place: Place, where: Addresses) -> PlaceView:
    return PlaceView(
        rank=place.rank,
        previous_rank=place.previous_rank,
        delta=place.delta,
        score=place.score,
        counts=place.counts,
        user_id=place.number,
        username=place.name,
        image=place.image,
        link=where.page(f"{API}/models", f"username={quote(place.name, safe='')}"),
    )
