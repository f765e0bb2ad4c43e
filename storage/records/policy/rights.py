"""The policy: one pure function that says what a viewer may do with a thing. Every route asks it, when it is used.

Lists ask the same of all rows at once, in SQL: `models.visible`, `listed` and `public_versions` say what it says of
anybody (catalogue_settle writes them), and storage/postgres/policy/policy.sql has the clauses for owners, moderators
and images. A property test holds the two together.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from storage.records.catalog.vocabulary import Availability, BrowsingLevel, ModelMode, Status
from storage.records.policy.facts import Facts, Thing
from storage.records.policy.viewers import WITH_BLOCKED, Viewer


class Denial(StrEnum):
    """Why something may not be done."""

    HIDDEN = "hidden"
    """As if it were not there."""
    GONE = "gone"
    """It was public, or is the viewer's own, and was deleted or taken down: that is shown, and why."""
    ARCHIVED = "archived"
    """Shown without its files."""
    KEY_NEEDED = "key needed"
    """Its bytes are for accounts."""
    KEPT = "kept"
    """Its bytes are not given out: images are drawn with them here."""
    ANOTHERS = "another's"
    """It is seen, and is its owner's and the moderators' to change."""


class Rights(msgspec.Struct, frozen=True):
    """What a viewer may do with a thing: None for what may be done, else why not.

    Routes ask `unseen`, `unfetched` and `unchanged` (checks.py). `listed`: lists show it at one of its browsing levels;
    they read that of columns, and the property test holds those equal to this.
    """

    unseen: Denial | None
    unfetched: Denial | None
    unchanged: Denial | None
    listed: bool

    @property
    def see(self) -> bool:
        """Whether it may be shown."""
        return self.unseen is None


def may(viewer: Viewer, facts: Facts) -> Rights:
    """What a viewer may do with a thing."""
    if facts.thing is Thing.OWN:
        unseen = None if viewer.is_account(facts.owner_id) and facts.owner_active else Denial.HIDDEN
        return Rights(unseen, unseen, unseen, listed=unseen is None)
    unseen = _unseen(viewer, facts)
    if unseen is not None:
        return Rights(unseen, unseen, unseen, listed=False)
    power = viewer.has_power_over(facts.owner_id)
    return Rights(
        None,
        None if power else _unfetched(viewer, facts),
        None if power else Denial.ANOTHERS,
        listed=_is_listed(viewer, facts),
    )


def is_public(facts: Facts) -> bool:
    """Whether anybody sees the model: the column `visible`."""
    return (
        facts.status is Status.PUBLISHED
        and facts.availability is not Availability.PRIVATE
        and not facts.gone
        and facts.has_public_version
        and facts.owner_active
    )


def is_public_version(facts: Facts) -> bool:
    """Whether anybody sees the version once its model is public: the column `public_versions`."""
    return (
        facts.version_status is Status.PUBLISHED
        and facts.version_availability is not Availability.PRIVATE
        and facts.has_public_file
    )


def _unseen(viewer: Viewer, facts: Facts) -> Denial | None:
    power = viewer.has_power_over(facts.owner_id)
    if facts.thing is not Thing.MODEL and facts.version_gone and not facts.gone:
        # Only what was public is shown as gone: of anything else the response must not reveal that it was ever there.
        was_public = facts.version_was_published and facts.version_availability is not Availability.PRIVATE
        open_model = facts.status is Status.PUBLISHED and facts.availability is not Availability.PRIVATE
        return Denial.GONE if power or (was_public and open_model and facts.owner_active) else Denial.HIDDEN
    if facts.gone:
        # Moderators go on seeing what they have taken down: they may restore it.
        if not (viewer.moderator and facts.mode is ModelMode.TAKEN_DOWN):
            was_public = facts.was_published and facts.availability is not Availability.PRIVATE
            return Denial.GONE if viewer.is_account(facts.owner_id) or was_public else Denial.HIDDEN
    elif not power and not is_public(facts):
        return Denial.HIDDEN
    if facts.thing is Thing.MODEL:
        return None
    if facts.version_gone:  # of a model that was taken down, to a moderator
        return Denial.GONE
    if not power and not is_public_version(facts):
        return Denial.HIDDEN
    return _unseen_part(facts, power=power)


def _unseen_part(facts: Facts, *, power: bool) -> Denial | None:
    """The same for a file or an image of a version that is seen."""
    match facts.thing:
        case Thing.FILE if facts.file_gone or (facts.visibility != "Public" and not power):
            return Denial.HIDDEN
        case Thing.IMAGE if facts.image_gone:
            return Denial.GONE
        case Thing.IMAGE if not power and not is_shown_image(facts):
            return Denial.HIDDEN
        case _:
            return None


def is_shown_image(facts: Facts) -> bool:
    """Whether anybody sees an image of a version that anybody sees."""
    return facts.image_level != BrowsingLevel.BLOCKED and facts.shown_by_active


def _unfetched(viewer: Viewer, facts: Facts) -> Denial | None:
    if facts.thing is Thing.IMAGE:
        return None
    if facts.mode is not None:
        return Denial.ARCHIVED
    if facts.require_auth and viewer.account_id is None:
        return Denial.KEY_NEEDED
    return None if facts.usage_control == "Download" else Denial.KEPT


def _is_listed(viewer: Viewer, facts: Facts) -> bool:
    """Lists show everybody the same, whoever asks: what is public, and to moderators what they have blocked."""
    shown = facts.level & viewer.browsing(WITH_BLOCKED)
    if not (is_public(facts) and facts.availability is Availability.PUBLIC and shown):
        return False
    if facts.thing is Thing.MODEL:
        return True
    return is_public_version(facts) and (facts.thing is not Thing.IMAGE or facts.shown_by_active)
