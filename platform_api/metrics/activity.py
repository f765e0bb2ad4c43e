"""Activity: acts that clients count, and those that could not be."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec
from litestar import Controller, get, post
from litestar.params import JSONBody
from msgspec import Meta

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Requires
from platform_api.http.json_bodies import strictly
from platform_api.http.limits import PageCursor, PageLimit, end_of_page, read_number_cursor
from platform_api.http.links import API
from platform_api.http.pages import Page, page_metadata
from platform_api.http.problems import can_return
from platform_api.http.query_parameters import MAX_INTEGER
from storage.errors import InvalidRequest
from storage.postgres.metrics import activity
from storage.records.accounts.accounts import Role, Scope
from storage.records.metrics.activity import MAX_ACTIVITIES, Act, Counted, Metric, Reason
from storage.records.policy.viewers import viewer_of

# 1,000 acts do not fit into the 64 KiB of other bodies.
MAX_BODY_BYTES = 1024 * 1024


class ActivityKind(StrEnum):
    """Acts that are counted for others. Reactions, comments and follows are counted where they are written."""

    VIEW = "view"
    DOWNLOAD = "download"
    GENERATION = "generation"
    TIP = "tip"


class NewAct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One act."""

    key: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=200,
            pattern=r"^[^\x00-\x1f\x7f]*$",
            description="Your name for this act: the same key again is the same act.",
            examples=["page-7-2026-06-01T12:00:00Z-5f1c"],
        ),
    ]
    kind: ActivityKind
    entity: Counted
    entity_id: Annotated[int, Meta(ge=1, le=MAX_INTEGER, description="An id; of a user, the number.")]
    occurred_at: Annotated[
        datetime, Meta(tz=True, description="At most 7 days ago and 5 minutes ahead; anything else is rejected.")
    ]
    amount: Annotated[int, Meta(ge=1, le=MAX_INTEGER, description="How much a tip gives; 1 for other acts.")] = 1


class NewActivity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Acts to count."""

    activities: Annotated[list[NewAct], Meta(min_length=1, max_length=MAX_ACTIVITIES)]


class RefusedAct(msgspec.Struct, frozen=True, kw_only=True):
    """An act that was rejected, and why."""

    key: str
    reason: Reason


class CountedBatch(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What became of a call's acts: counted by it, counted before, rejected."""

    batch_id: int
    accepted: int
    repeated: int
    rejected: int
    refusals: list[RefusedAct]


class RejectedActView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An act that was not counted."""

    id: int
    batch_id: int
    key: str
    reason: Reason
    metric: Metric
    entity: Counted
    entity_id: int
    amount: int
    occurred_at: datetime
    noted_at: datetime


class ActivityResource(Controller):
    """Counted acts."""

    path = "/activity"
    tags = ("Activity",)

    @post(
        "/",
        guards=[Requires(Scope.ACTIVITY_WRITE)],
        before_request=strictly(NewActivity),
        request_max_body_size=MAX_BODY_BYTES,
        responses=can_return(401, 403, 413, 422),
        status_code=202,
        summary="Count acts",
    )
    async def count(self, stores: AppStores, caller: RequestCaller, data: JSONBody[NewActivity]) -> CountedBatch:
        """Commits the acts, at most 1,000, and returns; the counts follow with the next roll-up.

        A call can be repeated: each key counts once. What is too old or too early, about something that is not there
        (any more), or a key that was counted with another time, is rejected and named.
        """
        acts = [_act(n, act) for n, act in enumerate(data.activities)]
        source = f"account {caller.account_id}"
        # With the viewer: an act about what the caller does not see is refused as one about nothing, or it would reveal
        # both apart.
        batch = await stores.database.run(lambda: activity.ingest(source, acts, viewer=viewer_of(caller.account)))
        return CountedBatch(
            batch_id=batch.id,
            accepted=batch.accepted,
            repeated=batch.repeated,
            rejected=batch.rejected,
            refusals=[RefusedAct(key=refusal.key_text, reason=refusal.reason) for refusal in batch.refusals],
        )

    @get(
        "/rejected",
        guards=[Requires(Scope.ACTIVITY_READ)],
        responses=can_return(401, 403, 422),
        summary="Acts that were not counted",
    )
    async def rejected(
        self, stores: AppStores, caller: RequestCaller, cursor: PageCursor = None, limit: PageLimit = 50
    ) -> Page[RejectedActView]:
        """A page of the acts of your calls that were rejected, newest first; a moderator sees everybody's."""
        whose = None if caller.account.role is Role.MODERATOR else caller.account_id
        found = await stores.database.run(
            activity.rejected(account_id=whose, before=read_number_cursor(cursor), limit=limit + 1)
        )
        end = end_of_page(found, limit, lambda last: (last.id,))
        items = [
            RejectedActView(
                id=one.id,
                batch_id=one.batch_id,
                key=one.key_text,
                reason=one.reason,
                metric=one.metric,
                entity=one.entity,
                entity_id=one.entity_id,
                amount=one.amount,
                occurred_at=one.occurred_at,
                noted_at=one.noted_at,
            )
            for one in found[:limit]
        ]
        return Page(items=items, metadata=page_metadata(f"{API}/activity/rejected", end, {"limit": limit}))


def _act(position: int, act: NewAct) -> Act:
    if act.amount != 1 and act.kind is not ActivityKind.TIP:
        raise InvalidRequest({f"activities[{position}].amount": "is for tips; leave it out for a " + act.kind})
    return Act(
        key=act.key,
        entity=act.entity,
        entity_id=act.entity_id,
        metric=Metric(act.kind),
        occurred_at=act.occurred_at,
        amount=act.amount,
    )
