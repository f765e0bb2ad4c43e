"""The policy: one pure function that says what a viewer may do with a thing. Every door asks it, when it is used.

Lists ask the same of all rows at once, in SQL: `models.visible`, `listed` and `public_versions` say what it says of
anybody (catalogue_settle writes them), and storage/postgres/policy.sql has the clauses for owners, moderators and
images. A property test holds the two together.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from storage.records.policy.facts import Facts, Thing
from storage.records.policy.viewers import WITH_BLOCKED, Viewer
from storage.records.vocabulary import Availability, BrowsingLevel, Mode, Status


class Refusal(StrEnum):
    """Why something may not be done."""

    HIDDEN = "hidden"
    """As if it were not there."""
    GONE = "gone"
    """It was public, or is the viewer's own, and was deleted or taken down: that is said, and why."""
    ARCHIVED = "archived"
    """Shown without its files."""
    KEY_NEEDED = "key needed"
    """Its bytes are for accounts."""
    KEPT = "kept"
    """Its bytes are not given out: images are drawn with them here."""
    ANOTHERS = "another's"
    """It is seen, and is its owner's and the moderators' to change."""


class Rights(msgspec.Struct, frozen=True):
    """What a viewer may do with a thing: None for what may be done, else why not. `listed`: it stands in lists."""

    unseen: Refusal | None
    unfetched: Refusal | None
    unchanged: Refusal | None
    listed: bool

    @property
    def see(self) -> bool:
        """Whether it may be shown."""
        return self.unseen is None

    @property
    def fetch(self) -> bool:
        """Whether its bytes may be given."""
        return self.unfetched is None

    @property
    def change(self) -> bool:
        """Whether it may be changed, and told about things that only its owner is told."""
        return self.unchanged is None


def may(viewer: Viewer, facts: Facts, levels: int = WITH_BLOCKED) -> Rights:
    """What a viewer may do with a thing. `levels`: the browsing levels, as bits, of the list that is asked for."""
    if facts.thing is Thing.OWN:
        unseen = None if viewer.is_account(facts.owner_id) and facts.owner_active else Refusal.HIDDEN
        return Rights(unseen, unseen, unseen, listed=unseen is None)
    unseen = _unseen(viewer, facts)
    if unseen is not None:
        return Rights(unseen, unseen, unseen, listed=False)
    power = viewer.has_power_over(facts.owner_id)
    return Rights(
        None,
        None if power else _unfetched(viewer, facts),
        None if power else Refusal.ANOTHERS,
        listed=_is_listed(viewer, facts, levels),
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


def _unseen(viewer: Viewer, facts: Facts) -> Refusal | None:
    power = viewer.has_power_over(facts.owner_id)
    if facts.thing is not Thing.MODEL and facts.version_gone and not facts.gone:
        was_public = facts.version_was_published and facts.version_availability is not Availability.PRIVATE
        open_model = facts.status is Status.PUBLISHED and facts.availability is not Availability.PRIVATE
        return Refusal.GONE if power or (was_public and open_model and facts.owner_active) else Refusal.HIDDEN
    if facts.gone:
        if not (viewer.moderator and facts.mode is Mode.TAKEN_DOWN):
            was_public = facts.was_published and facts.availability is not Availability.PRIVATE
            return Refusal.GONE if viewer.is_account(facts.owner_id) or was_public else Refusal.HIDDEN
    elif not power and not is_public(facts):
        return Refusal.HIDDEN
    if facts.thing is Thing.MODEL:
        return None
    if facts.version_gone:  # of a model that was taken down, to a moderator
        return Refusal.GONE
    if not power and not is_public_version(facts):
        return Refusal.HIDDEN
    return _unseen_part(facts, power=power)


def _unseen_part(facts: Facts, *, power: bool) -> Refusal | None:
    """The same for a file or an image of a version that is seen."""
    match facts.thing:
        case Thing.FILE if facts.file_gone or (facts.visibility != "Public" and not power):
            return Refusal.HIDDEN
        case Thing.IMAGE if facts.image_gone:
            return Refusal.GONE
        case Thing.IMAGE if not power and not is_shown_image(facts):
            return Refusal.HIDDEN
        case _:
            return None


def is_shown_image(facts: Facts) -> bool:
    """Whether anybody sees an image of a version that anybody sees."""
    return facts.image_level != BrowsingLevel.BLOCKED and facts.shown_by_active


def _unfetched(viewer: Viewer, facts: Facts) -> Refusal | None:
    if facts.thing is Thing.IMAGE:
        return None
    if facts.mode is not None:
        return Refusal.ARCHIVED
    if facts.require_auth and viewer.account_id is None:
        return Refusal.KEY_NEEDED
    return None if facts.usage_control == "Download" else Refusal.KEPT


def _is_listed(viewer: Viewer, facts: Facts, levels: int) -> bool:
    """Lists show everybody the same, whoever asks: what is public, and to moderators what they have blocked."""
    if not (is_public(facts) and facts.availability is Availability.PUBLIC and facts.level & viewer.browsing(levels)):
        return False
    if facts.thing is Thing.MODEL:
        return True
    return is_public_version(facts) and (facts.thing is not Thing.IMAGE or facts.shown_by_active)
