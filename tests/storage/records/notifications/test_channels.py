"""What follows from the line of a channel."""

from __future__ import annotations

import msgspec
import pytest

from storage.records.notifications.channels import BOUND, INTERRUPTS, OUTWARD, Channel
from storage.records.notifications.notifications import TYPES, Frequency, allowed


def test_a_channel_is_stored_and_read_by_its_name() -> None:
    assert {"in_app", "email", "webhook", "push", "chat"} <= {str(channel) for channel in Channel}
    for channel in Channel:
        assert msgspec.json.decode(msgspec.json.encode(channel), type=Channel) is channel
        assert Channel(channel.value) is channel
        assert channel.about.endswith(".")


def test_every_channel_but_the_list_in_the_app_leaves_the_platform() -> None:
    assert list(OUTWARD) == [channel for channel in Channel if channel is not Channel.IN_APP]
    assert (OUTWARD[Channel.WEBHOOK].signed, OUTWARD[Channel.CHAT].signed) == (True, False)
    assert {Channel.EMAIL, Channel.PUSH, Channel.CHAT} <= INTERRUPTS
    assert Channel.WEBHOOK not in INTERRUPTS
    assert (Channel.PUSH in BOUND, Channel.CHAT in BOUND) == (True, False)


@pytest.mark.parametrize("channel", Channel)
def test_only_what_leaves_the_platform_takes_digests(channel: Channel) -> None:
    assert allowed(channel, Frequency.DAILY) is (channel in OUTWARD)


def test_what_comes_often_comes_once_a_day_where_the_channel_says_so() -> None:
    usual = TYPES["new_follower"].default_frequencies
    assert (usual[Channel.EMAIL], usual[Channel.WEBHOOK]) == (Frequency.DAILY, Frequency.NOW)
    assert set(usual) == set(Channel)
