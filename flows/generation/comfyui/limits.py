"""How long a ComfyUI is waited for, and how much of what it sends is read."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
"""For the next bytes of a response."""
RESPONSE_SECONDS = 120.0
"""For a whole response, however steadily it comes."""
POLL_SECONDS = 1.0
"""Between two looks at the history, unless the socket says that something ended."""
RECONNECT_SECONDS = 5.0
UNREACHABLE_SECONDS = 20.0
"""How long a server that drew a moment ago may refuse connections: a proxy that is reloaded."""
QUEUE_SECONDS = 3600.0
"""How long others' pictures may be in front without any of them ending."""
STALL_SECONDS = 600.0
"""How long a picture that is drawn may take for one step; the first includes loading the model."""
PICTURE_SECONDS = 3600.0
"""For one picture from its first step on, whatever progress is reported."""
CANCEL_SECONDS = 30.0
"""How long an interrupted picture may take to leave the queue: ComfyUI stops between two steps."""
CAPABILITIES_SECONDS = 300.0
"""How long an installation's list of nodes and files is trusted."""
RESPONSE_BYTES = MIB
"""Of a short response: an upload, a submission, statistics."""
HISTORY_BYTES, QUEUE_BYTES, NODES_BYTES = 8 * MIB, 64 * MIB, 64 * MIB
"""The history of one picture has its graph; the queue has everybody's; every plug-in adds to the nodes."""
MESSAGE_BYTES = 8 * MIB
"""Of a message on the socket: a preview has 512 pixels a side at most."""
METADATA_BYTES = MIB
"""What a picture's file may have beside its pixels: its graph."""


@dataclass(frozen=True, kw_only=True)
class ComfyLimits:
    """The waiting times above, in seconds."""

    connect: float = CONNECT_SECONDS
    read: float = READ_SECONDS
    response: float = RESPONSE_SECONDS
    poll: float = POLL_SECONDS
    reconnect: float = RECONNECT_SECONDS
    unreachable: float = UNREACHABLE_SECONDS
    queue: float = QUEUE_SECONDS
    stall: float = STALL_SECONDS
    picture: float = PICTURE_SECONDS
    cancel: float = CANCEL_SECONDS
    capabilities: float = CAPABILITIES_SECONDS
