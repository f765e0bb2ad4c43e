"""Types of notifications: what each tells by default, and where."""

from __future__ import annotations

from storage.records.notifications.channels import Channel
from storage.records.notifications.notifications import TYPES, allowed


def test_every_type_has_a_default_that_its_channels_take():
    assert len(TYPES) == 10
    for kind in TYPES.values():
        assert set(kind.default_frequencies) == set(Channel)
        assert all(allowed(channel, frequency) for channel, frequency in kind.default_frequencies.items())
        assert kind.about
