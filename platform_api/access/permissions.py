"""Models and versions that a caller changes: held until the transaction ends, and the caller's to change.

What the caller may not even see is not found; what everybody sees is its owner's and the moderators' to change.
"""

from __future__ import annotations

from collections.abc import Mapping

from storage.errors import NotAllowed
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Script
from storage.records.accounts.accounts import Account, Role
from storage.records.catalog.catalog import Model, ModelVersion
from storage.records.catalog.vocabulary import Availability, Status
from storage.records.policy.checks import check_changed
from storage.records.policy.facts import model_facts, version_facts
from storage.records.policy.viewers import Viewer


def held_model(model_id: int, viewer: Viewer, *, renamed: bool = False) -> Script[Model]:
    """A model to change. Raises NotFound, Gone, NotAllowed.

    Its account comes first when it gets a name: whoever names models holds the account before the model.
    """
    if renamed:
        # One order of locks for all writers, account before model: a test has a renaming and a publishing wait for each
        # other.
        found = yield from catalog.model_by_id(model_id)
        yield from catalog.hold_names(found.account_id)
    model = yield from models.lock(model_id)
    check_changed(viewer, model_facts(model))
    return model


def held_version(version_id: int, viewer: Viewer) -> Script[tuple[Model, ModelVersion]]:
    """A version to change, and its model. Raises NotFound, Gone, NotAllowed."""
    found = yield from catalog.version_by_id(version_id)
    model = yield from models.lock(found.model_id)
    # Read again under the model's lock, which is what holds its versions still.
    version = yield from catalog.version_by_id(version_id)
    check_changed(viewer, version_facts(model, version))
    return model, version


def check_may_publish(thing: Model | ModelVersion, viewer: Viewer) -> None:
    """Raises NotAllowed for what a moderator has hidden: a moderator shows it again."""
    if thing.status is Status.UNPUBLISHED_VIOLATION and not viewer.moderator:
        raise NotAllowed("A moderator has hidden it. Write to the operator, who can publish it again.")


def check_may_open(thing: Model | ModelVersion, model: Model, changes: Mapping[str, object], viewer: Viewer) -> None:
    """Raises NotAllowed where changes would open what is private: that is its owner's alone."""
    private = thing.availability is Availability.PRIVATE
    opens = changes.get("availability", Availability.PRIVATE) != Availability.PRIVATE
    if private and opens and not viewer.is_account(model.account_id):
        raise NotAllowed("It is private. Its owner alone opens it to others.")


def check_creator(account: Account) -> None:
    """Raises NotAllowed for an account that only reads."""
    if account.role is Role.READER:
        raise NotAllowed(f"The account '{account.name}' only reads. Ask the operator to make it a creator.")


def check_moderator(viewer: Viewer) -> None:
    """Raises NotAllowed for everybody else."""
    if not viewer.moderator:
        raise NotAllowed("Only moderators may do this.")


def hidden_by(model: Model, viewer: Viewer) -> Status:
    """What a model or version becomes when the viewer unpublishes it."""
    return Status.UNPUBLISHED if viewer.is_account(model.account_id) else Status.UNPUBLISHED_VIOLATION


def deleted_by(model: Model, viewer: Viewer) -> str:
    """The reason that what the viewer deletes leaves behind."""
    return "deleted by its owner" if viewer.is_account(model.account_id) else "deleted by a moderator"
