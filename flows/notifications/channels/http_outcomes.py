"""What a receiver's response to a call means for what was sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from http import HTTPStatus

from flows.notifications.channels.protocol import Outcome, PermanentFailure, Sent, TemporaryFailure
from flows.notifications.channels.transport import CallFailed, PublicTransport
from storage.errors import AddressRefused
from storage.records.notifications.addresses import WebAddress

MAX_WAIT_SECONDS = 86400.0


def post(
    transport: PublicTransport,
    address: WebAddress,
    body: bytes,
    headers: Mapping[str, str],
    *,
    who: str,
    ended: Collection[int],
) -> Outcome:
    """Post a body. The statuses `ended`, or a name that leads inside, end the address; all else that is no 2xx is
    tried again, not before the receiver asks for it."""
    try:
        response = transport.post(address, body, headers)
    except AddressRefused as error:
        return PermanentFailure(f"the address {error}")
    except CallFailed as error:
        return TemporaryFailure(str(error))
    if 200 <= response.status < 300:
        return Sent()
    if response.status in ended:
        return PermanentFailure(f"{who} returned {response.status} {HTTPStatus(response.status).phrase}")
    # A redirect could lead inside; and its new address is one that its reader has not registered.
    if 300 <= response.status < 400:
        return TemporaryFailure(f"{who} returned {response.status}; redirects are not followed")
    return TemporaryFailure(f"{who} returned {response.status}", _wait(response.headers.get("retry-after", "")))


def _wait(retry_after: str) -> float:
    """Seconds that the receiver asks for; dates are not read."""
    text = retry_after.strip()
    # A day at most: a receiver must not be able to keep a sending for ever.
    return min(float(text), MAX_WAIT_SECONDS) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0
