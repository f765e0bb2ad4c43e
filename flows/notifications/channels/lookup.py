"""What sends on each channel: the file of the channel's name, beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from flows.notifications.channels.protocol import Sender
from storage.records.notifications.channels import OUTWARD, Channel
from storage.settings import Settings


def senders(settings: Settings) -> Mapping[Channel, Sender]:
    """A sender for each channel that leaves the platform, as the function `sender` of its file makes it.

    Raises ModuleNotFoundError for a channel that has a line in storage/records/notifications/channels.py and no file.
    """
    return {channel: import_module(f"flows.notifications.channels.{channel}").sender(settings) for channel in OUTWARD}
