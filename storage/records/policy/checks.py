"""The policy as routes ask it: what may not be done is refused by its own name."""

from __future__ import annotations

from storage.errors import DarkroomError, Gone, NotAllowed, NotFound, Unauthenticated
from storage.records.catalog.catalog import Model, ModelVersion
from storage.records.policy.facts import Facts, Thing, model_facts, version_facts
from storage.records.policy.rights import Denial, may
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


def refused(denial: Denial, facts: Facts) -> DarkroomError:
    """A refusal as it is raised. It says no more than the viewer may know."""
    match denial:
        case Denial.HIDDEN:
            return NotFound(_hidden(facts))
        case Denial.GONE:
            return Gone(_gone(facts))
        case Denial.ARCHIVED:
            return Gone(f"Model {facts.model_id} is archived: its files are not given out.")
        case Denial.KEY_NEEDED:
            return Unauthenticated("This version's files need a key. Send: Authorization: Bearer drk_...")
        case Denial.KEPT:
            return NotFound(f"Model version {facts.version_id} is for generation only: its files are not given out.")
        case Denial.ANOTHERS:
            return NotAllowed(f"Model {facts.model_id} belongs to somebody else.")


def _hidden(facts: Facts) -> str:
    match facts.thing:
        case Thing.FILE:
            return f"Model version {facts.version_id} has no such file."
        case Thing.OWN:
            return "Nothing of that id is yours."
        case _:
            return f"No {facts.name}."


def _gone(facts: Facts) -> str:
    if facts.gone:
        return f"Model {facts.model_id} is gone: {facts.gone_reason}."
    if facts.version_gone:
        return f"Model version {facts.version_id} is gone: {facts.version_gone_reason}."
    return f"Image {facts.image_id} is gone: it was deleted."
