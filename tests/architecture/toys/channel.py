"""The channel `toy`: a line in a file for each message."""

from __future__ import annotations

import json
from pathlib import Path

from flows.notifications.channels.protocol import Message, Outcome, Sender, Sent
from storage.settings import Settings


class ToySender:
    """Writes to the file that an address names."""

    def send(self, message: Message) -> Outcome:
        """Add a line."""
        said = {"purpose": message.purpose.value, "titles": [item.text.title for item in message.items]}
        with Path(message.address.removeprefix("file:")).open("a") as file:
            file.write(json.dumps(said) + "\n")
        return Sent()


def sender(settings: Settings) -> Sender:
    """What sends."""
    return ToySender()
