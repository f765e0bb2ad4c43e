"""Models as their owners write them: made, changed, published, hidden, deleted. Who may is the caller's rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from storage.errors import InvalidRequest, WrongState
from storage.postgres.catalog import catalog, versions
from storage.postgres.connection import Query, Script, column, count, load_statements, maybe, one
from storage.records.catalog.catalog import Model, ModelFields
from storage.records.catalog.vocabulary import Status

SQL = load_statements(__file__)


def create(account_id: UUID, fields: ModelFields) -> Script[Model]:
    """A draft. Raises InvalidRequest when the account has a model of that name."""
    yield from catalog.hold_names(account_id)
    parameters = {"account_id": account_id, "fields": Jsonb(msgspec.to_builtins(fields))}
    model = yield from maybe(SQL["create"], parameters, Model)
    if model is None:
        raise _name_taken(fields.name)
    yield from set_tags(model.id, fields.tags)
    return model


def lock(model_id: int) -> Query[Model]:
    """The model, held until the transaction ends. Reading raises NotFound."""
    return one(SQL["lock"], {"id": model_id}, Model, f"No model {model_id}.")


def change(model: Model, changes: Mapping[str, object]) -> Script[Model]:
    """Say something else of a model: columns to values, and `tags` to its tags. Raises InvalidRequest."""
    name, tags = changes.get("name"), changes.get("tags")
    if isinstance(name, str):
        # Before the look: the unique index would refuse a second model of the name, too, but with no word for the
        # caller.
        yield from catalog.hold_names(model.account_id)
        parameters = {"account_id": model.account_id, "name": name, "id": model.id}
        if (yield from column(SQL["same_name"], parameters, int)):
            raise _name_taken(name)
    if tags is not None:
        yield from set_tags(model.id, msgspec.convert(tags, list[str]))
    parameters = {"id": model.id, "changes": Jsonb({key: value for key, value in changes.items() if key != "tags"})}
    return (yield from one(SQL["change"], parameters, Model, f"No model {model.id}."))


def set_tags(model_id: int, names: Sequence[str]) -> Script[None]:
    """Give a model these tags and no others."""
    parameters = {"id": model_id, "names": list(names)}
    yield from count(SQL["make_tags"], parameters)
    yield from count(SQL["drop_tags"], parameters)
    yield from count(SQL["add_tags"], parameters)


def publish(model: Model, at: datetime | None = None, *, opens: bool = False) -> Script[Model]:
    """Publish a model and its drafts that have files, now or at a later date.

    `opens`: a private model becomes public, and so do its fine-tunes that never were; a version that its owner made
    private otherwise stays so. Raises WrongState when it is gone or no version of it has a file.
    """
    if model.gone_at is not None:
        raise WrongState(f"Model {model.id} is gone: {model.gone_reason}. Create a new one.")
    ready = yield from versions.with_files(model.id)
    if not ready:
        raise WrongState(f"Model {model.id} has no version with a file. Add one, then publish.")
    for version in ready:
        if opens and version.waits_for_its_owner:
            yield from versions.publish(version, at, opens=True)
        elif version.status in (Status.DRAFT, Status.SCHEDULED):
            yield from versions.publish(version, at)
    parameters = {"id": model.id, "at": at, "opens": opens}
    return (yield from one(SQL["publish"], parameters, Model, f"No model {model.id}."))


def publish_due() -> Script[int]:
    """Publish what was scheduled and whose time has come; returns how many models and versions."""
    # Models before their versions, as every writer does: two that lock in different orders deadlock.
    if not (yield from count(SQL["hold_due"], {})):
        return 0
    due = yield from count(SQL["publish_due"], {})
    return due + (yield from versions.publish_due())


def unpublish(model: Model, status: Status = Status.UNPUBLISHED) -> Script[Model]:
    """Hide a published or scheduled model. Raises WrongState."""
    if model.status not in (Status.PUBLISHED, Status.SCHEDULED):
        raise WrongState(f"Model {model.id} is {model.status}; only what is published can be unpublished.")
    return (yield from one(SQL["unpublish"], {"id": model.id, "status": status}, Model, f"No model {model.id}."))


def delete(model: Model, reason: str) -> Script[Model]:
    """Delete a model with its versions, files and images; what stays says that it is gone, and why."""
    for version in (yield from catalog.versions([model.id])):
        yield from versions.delete(version, reason)
    yield from set_tags(model.id, ())
    return (yield from one(SQL["delete"], {"id": model.id, "reason": reason}, Model, f"No model {model.id}."))


def take_down(model: Model, reason: str) -> Query[Model]:
    """Have a model's address return 410 with the reason, until it is restored."""
    return one(SQL["take_down"], {"id": model.id, "reason": reason}, Model, f"No model {model.id}.")


def restore(model: Model) -> Query[Model]:
    """Undo a take-down."""
    return one(SQL["restore"], {"id": model.id}, Model, f"Model {model.id} was deleted and cannot come back.")


def tags_of(*model_ids: int) -> Query[dict[int, list[str]]]:
    """The tags of some models, by their ids; a model without tags is not among them."""
    parameters = {"model_ids": list(model_ids)}
    return Query(SQL["tags_of"], parameters, lambda rows: {row["model_id"]: row["names"] for row in rows})


def _name_taken(name: str) -> InvalidRequest:
    return InvalidRequest({"name": f"you have a model called '{name}' already; add a version to it or choose another"})
