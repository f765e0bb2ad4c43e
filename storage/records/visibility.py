"""Who sees what of the catalogue, by id. Lists show what is `listed`; everything else is decided here."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import msgspec

from storage.errors import Gone, NotFound
from storage.records.access import Account, Role
from storage.records.catalog import Model, ModelVersion
from storage.records.vocabulary import Availability


class Viewer(msgspec.Struct, frozen=True, kw_only=True):
    """Who is looking: an account by its working key, or anybody."""

    account_id: UUID | None = None
    moderator: bool = False

    def owns(self, model: Model) -> bool:
        """Whether the model is the viewer's own."""
        return self.account_id is not None and self.account_id == model.account_id

    def sees_all_of(self, model: Model) -> bool:
        """Whether drafts and private versions of a model are shown: to its owner and to moderators."""
        return self.moderator or self.owns(model)


ANYBODY = Viewer()


def viewer_of(account: Account) -> Viewer:
    """The viewer that an account is."""
    return Viewer(account_id=account.id, moderator=account.role is Role.MODERATOR)


def check_model(model: Model, viewer: Viewer) -> None:
    """Raises Gone for a model that was public and is deleted or taken down, NotFound for one the viewer may not see.

    A moderator still sees what was taken down.
    """
    if model.gone_at is not None:
        if viewer.moderator and model.mode is not None:
            return
        if viewer.owns(model) or (model.published_at is not None and model.availability is not Availability.PRIVATE):
            raise Gone(f"Model {model.id} is gone: {model.gone_reason}.")
        raise NotFound(f"No model with id {model.id}.")
    if not model.visible and not viewer.sees_all_of(model):
        raise NotFound(f"No model with id {model.id}.")


def check_version(version: ModelVersion, model: Model, viewer: Viewer) -> None:
    """The same for one version of a model."""
    check_model(model, viewer)
    if version.gone_at is not None:
        if viewer.sees_all_of(model) or version.published_at is not None:
            raise Gone(f"Model version {version.id} is gone: {version.gone_reason}.")
        raise NotFound(f"No model version with id {version.id}.")
    if version.id not in model.public_versions and not viewer.sees_all_of(model):
        raise NotFound(f"No model version with id {version.id}.")


def seen_versions(model: Model, versions: Iterable[ModelVersion], viewer: Viewer) -> list[ModelVersion]:
    """Those of a model's versions that the viewer sees, in their order."""
    everything = viewer.sees_all_of(model)
    return [version for version in versions if everything or version.id in model.public_versions]
