"""Moderation: models taken down and restored, accounts banned and unbanned."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Controller, Request, post
from litestar.params import FromPath, JSONBody

from platform_api.access.dependencies import AppStores, RequestViewer
from platform_api.access.guards import Requires
from platform_api.access.permissions import check_moderator, held_model
from platform_api.catalog.reading.catalog_views import ModelView
from platform_api.catalog.writing.model_routes import shown
from platform_api.catalog.writing.write_models import ModerationReason, kept
from platform_api.http.json_bodies import strictly
from platform_api.http.links import addresses
from platform_api.http.problems import can_return
from storage.errors import NotAllowed, WrongState
from storage.postgres.accounts import accounts
from storage.postgres.catalog import models
from storage.postgres.connection import Script
from storage.records.accounts.accounts import Account, AccountStatus, Role, Scope
from storage.records.catalog.vocabulary import ModelMode


class UserStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether an account's keys work and its models are shown; why not, when they are not."""

    id: int
    username: str
    status: AccountStatus
    ban_reason: str | None


class Moderation(Controller):
    """What moderators do."""

    tags = ("Moderation",)
    guards = (Requires(Scope.MODELS_WRITE),)

    @post(
        "/models/{model_id:int}/take-down",
        before_request=strictly(ModerationReason),
        status_code=200,
        responses=can_return(401, 403, 404, 409, 410, 413, 422),
        summary="Take a model down",
    )
    async def take_down(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        viewer: RequestViewer,
        model_id: FromPath[int],
        data: JSONBody[ModerationReason],
    ) -> ModelView:
        """It returns 410 with the reason, to everybody but moderators, until it is restored."""
        reason, where = kept(data)["reason"], addresses(request, stores.settings.api)

        def script() -> Script[ModelView]:
            # In this order: what the caller does not see is not found, before it could learn that only a moderator may
            # do this.
            model = yield from held_model(model_id, viewer)
            check_moderator(viewer)
            if model.mode is ModelMode.TAKEN_DOWN:
                raise WrongState(f"Model {model_id} is taken down already: {model.gone_reason}.")
            yield from models.take_down(model, reason)
            return (yield from shown(model_id, viewer, where))

        return await stores.database.run(script)

    @post(
        "/models/{model_id:int}/restore",
        status_code=200,
        responses=can_return(401, 403, 404, 409, 410),
        summary="Undo a take-down",
    )
    async def restore(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer, model_id: FromPath[int]
    ) -> ModelView:
        """The model is again what it was."""
        where = addresses(request, stores.settings.api)

        def script() -> Script[ModelView]:
            model = yield from held_model(model_id, viewer)
            check_moderator(viewer)
            if model.mode is not ModelMode.TAKEN_DOWN:
                raise WrongState(f"Model {model_id} is not taken down.")
            yield from models.restore(model)
            return (yield from shown(model_id, viewer, where))

        return await stores.database.run(script)

    @post(
        "/users/{user_id:int}/ban",
        before_request=strictly(ModerationReason),
        status_code=200,
        responses=can_return(401, 403, 404, 413, 422),
        summary="Ban an account",
    )
    async def ban(
        self, stores: AppStores, viewer: RequestViewer, user_id: FromPath[int], data: JSONBody[ModerationReason]
    ) -> UserStatus:
        """Its keys are refused with the reason, and its models are not shown."""
        reason = kept(data)["reason"]

        def script() -> Script[Account]:
            account = yield from accounts.user(user_id)
            check_moderator(viewer)
            if account.role is Role.MODERATOR:
                raise NotAllowed("A moderator is not banned by another: the operator changes the role first.")
            return (yield from accounts.ban(account, reason))

        return _status(await stores.database.run(script))

    @post("/users/{user_id:int}/unban", status_code=200, responses=can_return(401, 403, 404), summary="Lift a ban")
    async def unban(self, stores: AppStores, viewer: RequestViewer, user_id: FromPath[int]) -> UserStatus:
        """Its keys work and its models are shown as before."""

        def script() -> Script[Account]:
            account = yield from accounts.user(user_id)
            check_moderator(viewer)
            return (yield from accounts.lift_ban(account))

        return _status(await stores.database.run(script))


def _status(account: Account) -> UserStatus:
    return UserStatus(id=account.number, username=account.name, status=account.status, ban_reason=account.ban_reason)
