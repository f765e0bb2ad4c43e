"""The policy as doors ask it: what may not be done is refused by its own name."""

from __future__ import annotations

from storage.errors import DarkroomError, Gone, NotAllowed, NotFound, Unauthenticated
from storage.records.catalog import Model, ModelVersion
from storage.records.policy.facts import Facts, Thing, model_facts, version_facts
from storage.records.policy.rights import Refusal, may
from storage.records.policy.viewers import Viewer


def check_seen(viewer: Viewer, facts: Facts) -> None:
    """Raises NotFound, and Gone for what is no secret and is gone."""
    unseen = may(viewer, facts).unseen
    if unseen is not None:
        raise refused(unseen, facts)


def check_fetched(viewer: Viewer, facts: Facts) -> None:
    """Raises NotFound, Gone, Unauthenticated unless the thing's bytes may be given."""
    unfetched = may(viewer, facts).unfetched
    if unfetched is not None:
        raise refused(unfetched, facts)


def check_changed(viewer: Viewer, facts: Facts) -> None:
    """Raises NotFound, Gone, NotAllowed unless the thing may be changed."""
    unchanged = may(viewer, facts).unchanged
    if unchanged is not None:
        raise refused(unchanged, facts)


def check_model(model: Model, viewer: Viewer) -> None:
    """Raises Gone for a model that was public and is deleted or taken down, NotFound for one the viewer may not see."""
    check_seen(viewer, model_facts(model))


def check_version(version: ModelVersion, model: Model, viewer: Viewer) -> None:
    """The same for one version of a model."""
    check_seen(viewer, version_facts(model, version))


def refused(refusal: Refusal, facts: Facts) -> DarkroomError:
    """A refusal as it is raised. It says no more than the viewer may know."""
    match refusal:
        case Refusal.HIDDEN:
            return NotFound(
                f"Model version {facts.version_id} has no such file."
                if facts.thing is Thing.FILE
                else f"No {facts.name}."
            )
        case Refusal.GONE:
            return Gone(_gone(facts))
        case Refusal.ARCHIVED:
            return Gone(f"Model {facts.model_id} is archived: its files are not given out.")
        case Refusal.KEY_NEEDED:
            return Unauthenticated("This version's files need a key. Send: Authorization: Bearer drk_...")
        case Refusal.KEPT:
            return NotFound(f"Model version {facts.version_id} is for generation only: its files are not given out.")
        case Refusal.ANOTHERS:
            return NotAllowed(f"Model {facts.model_id} belongs to somebody else.")


def _gone(facts: Facts) -> str:
    if facts.gone:
        return f"Model {facts.model_id} is gone: {facts.gone_reason}."
    if facts.version_gone:
        return f"Model version {facts.version_id} is gone: {facts.version_gone_reason}."
    return f"Image {facts.image_id} is gone: it was deleted."
