"""Routes that write models: made as drafts, changed, published now or at a date, hidden, deleted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from litestar import Controller, Request, Response, delete, patch, post
from litestar.openapi.spec import Operation, RequestBody
from litestar.params import FromPath, JSONBody

from platform_api.access.dependencies import AppStores, RequestCaller, RequestViewer
from platform_api.access.guards import Requires
from platform_api.access.permissions import (
    check_creator,
    check_may_open,
    check_may_publish,
    deleted_by,
    held_model,
    hidden_by,
)
from platform_api.catalog.reading.catalog_parts import IMAGES_EACH, read_parts
from platform_api.catalog.reading.catalog_views import ModelView, VersionDetail, model_view, version_detail
from platform_api.catalog.writing.validation import check_model_fields
from platform_api.catalog.writing.write_models import ModelChanges, NewModel, NewVersion, Publication, kept
from platform_api.http.idempotency import IdempotencyKey, created_once
from platform_api.http.json_bodies import strictly
from platform_api.http.links import API, Addresses, addresses
from platform_api.http.problems import can_return
from storage.errors import InvalidRequest, WrongState
from storage.postgres.catalog import catalog, models, versions
from storage.postgres.connection import Script
from storage.records.accounts.accounts import Scope
from storage.records.catalog.catalog import Model, ModelFields, ModelVersion, VersionFields
from storage.records.catalog.vocabulary import Availability, ModelMode, Status
from storage.records.policy.viewers import Viewer

MAX_WAIT = timedelta(days=365)
WRITES = (Requires(Scope.MODELS_WRITE),)


@dataclass
class PublishOperation(Operation):
    """A body that may be left out."""

    def __post_init__(self) -> None:
        """Say so."""
        if isinstance(self.request_body, RequestBody):
            self.request_body.required = False


class ModelWriteRoutes(Controller):
    """What owners do with their models, and moderators with everybody's."""

    path = "/models"
    tags = ("Models",)
    guards = WRITES

    @post(
        "/",
        before_request=strictly(NewModel),
        responses=can_return(401, 403, 413, 422),
        summary="Make a model",
    )
    async def create(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        viewer: RequestViewer,
        data: JSONBody[NewModel],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[ModelView]:
        """A draft that its owner alone sees. Add a version, give that a file, then publish."""
        check_creator(caller.account)
        fields, where = kept(data), addresses(request, stores.settings.api)
        check_model_fields(fields)

        def make() -> Script[ModelView]:
            model = yield from models.create(caller.account_id, msgspec.convert(fields, ModelFields))
            return (yield from shown(model.id, viewer, where))

        asked = ("model", data)
        place = f"{API}/models/{{id}}"
        return await stores.database.run(lambda: created_once(caller.account_id, idempotency_key, asked, make(), place))

    @patch(
        "/{model_id:int}",
        before_request=strictly(ModelChanges),
        responses=can_return(401, 403, 404, 409, 410, 413, 422),
        summary="Change a model",
    )
    async def change(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        viewer: RequestViewer,
        model_id: FromPath[int],
        data: JSONBody[ModelChanges],
    ) -> ModelView:
        """What is left out stays."""
        fields, where = kept(data), addresses(request, stores.settings.api)

        def script() -> Script[ModelView]:
            model = yield from held_model(model_id, viewer, renamed="name" in fields)
            # Archiving would otherwise undo a moderator's take-down, which is a mode as well.
            if "mode" in fields and model.mode is ModelMode.TAKEN_DOWN:
                raise WrongState(f"Model {model_id} is taken down. Restore it first.")
            check_may_open(model, model, fields, viewer)
            check_model_fields({**msgspec.to_builtins(model), **fields})
            yield from models.change(model, fields)
            return (yield from shown(model_id, viewer, where))

        return await stores.database.run(script)

    @delete("/{model_id:int}", responses=can_return(401, 403, 404, 410), summary="Delete a model")
    async def remove(self, stores: AppStores, viewer: RequestViewer, model_id: FromPath[int]) -> None:
        """With its versions, files and images. Its address returns 410 from then on, and its number is not used again.

        Jobs that trained its versions stay.
        """

        def script() -> Script[None]:
            model = yield from held_model(model_id, viewer)
            yield from models.delete(model, deleted_by(model, viewer))

        await stores.database.run(script)

    @post(
        "/{model_id:int}/publish",
        before_request=strictly(Publication, optional=True),
        operation_class=PublishOperation,
        status_code=200,
        responses=can_return(401, 403, 404, 409, 410, 413, 422),
        summary="Publish a model",
    )
    async def publish(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        viewer: RequestViewer,
        model_id: FromPath[int],
        data: JSONBody[Publication | None] = None,
    ) -> ModelView:
        """With those of its draft versions that have a file, now or at a date. When its owner asks, a private model is
        public from then on, and so are its fine-tunes that were private ever since. Publishing again moves no date."""
        at, where = checked_time(data), addresses(request, stores.settings.api)

        def script() -> Script[ModelView]:
            model = yield from held_model(model_id, viewer)
            check_may_publish(model, viewer)
            check_not_public(model, at)
            # Only its owner opens what is private: a moderator who publishes it again leaves it so.
            yield from models.publish(model, at, opens=viewer.is_account(model.account_id))
            return (yield from shown(model_id, viewer, where))

        return await stores.database.run(script)

    @post(
        "/{model_id:int}/unpublish",
        status_code=200,
        responses=can_return(401, 403, 404, 409, 410),
        summary="Unpublish a model",
    )
    async def unpublish(
        self, request: Request[Any, Any, Any], stores: AppStores, viewer: RequestViewer, model_id: FromPath[int]
    ) -> ModelView:
        """Hidden until it is published again; what a moderator hides, a moderator publishes again."""
        where = addresses(request, stores.settings.api)

        def script() -> Script[ModelView]:
            model = yield from held_model(model_id, viewer)
            yield from models.unpublish(model, hidden_by(model, viewer))
            return (yield from shown(model_id, viewer, where))

        return await stores.database.run(script)

    @post(
        "/{model_id:int}/versions",
        before_request=strictly(NewVersion),
        responses=can_return(401, 403, 404, 410, 413, 422),
        summary="Add a version to a model",
    )
    async def add_version(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        viewer: RequestViewer,
        model_id: FromPath[int],
        data: JSONBody[NewVersion],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[VersionDetail]:
        """A draft without files, newest of its model."""
        fields, where = kept(data), addresses(request, stores.settings.api)

        def make() -> Script[VersionDetail]:
            model = yield from held_model(model_id, viewer)
            version = yield from versions.create(model, msgspec.convert(fields, VersionFields))
            return (yield from shown_version(version.id, viewer, where))

        asked, place = ("version", model_id, data), f"{API}/model-versions/{{id}}"
        return await stores.database.run(lambda: created_once(caller.account_id, idempotency_key, asked, make(), place))


def shown(model_id: int, viewer: Viewer, where: Addresses) -> Script[ModelView]:
    """A model as this transaction leaves it; the last thing in it."""
    model = yield from _settled(model_id)
    return model_view(model, (yield from read_parts([model], viewer)), where)


def shown_version(version_id: int, viewer: Viewer, where: Addresses) -> Script[VersionDetail]:
    """A version as this transaction leaves it; the last thing in it."""
    version = yield from catalog.version_by_id(version_id)
    model = yield from _settled(version.model_id)
    parts = yield from read_parts([model], viewer, images_each=IMAGES_EACH // 2)
    theirs = parts.versions[model.id]
    index = [sibling.id for sibling in theirs].index(version_id)
    return version_detail(model, theirs[index], index, parts, where)


def _settled(model_id: int) -> Script[Model]:
    # Deferred triggers run now instead of at the commit: what is shown has the revision and the counts of after the
    # change.
    yield from catalog.settle()
    return (yield from catalog.model_by_id(model_id))


def checked_time(asked: Publication | None) -> datetime | None:
    """When to publish, None for now. Raises InvalidRequest for a time that lies too far ahead."""
    at = asked.at if asked else None
    if at is not None and at > datetime.now(UTC) + MAX_WAIT:
        raise InvalidRequest({"at": f"must be within {MAX_WAIT.days} days from now"})
    return at


def check_not_public(thing: Model | ModelVersion, at: datetime | None) -> None:
    """Raises WrongState where a date to come would hide what everybody sees."""
    public = thing.status is Status.PUBLISHED and thing.availability is not Availability.PRIVATE
    if public and at is not None and at > datetime.now(UTC):
        raise WrongState("It is published already. Unpublish it first, then give it a date.")
