"""What each error's code means and what a client does about it: the section Errors of the API's page."""

from __future__ import annotations

import html
from collections.abc import Mapping

ERRORS: Mapping[int, Mapping[str, tuple[str, str]]] = {
    400: {
        "malformed_request": ("The request cannot be read.", "Compare it with the route's description above."),
        "malformed_body": ("The body is not the JSON that it claims to be.", "Fix it; the message says where."),
        "invalid_cursor": ("The cursor is of another list or filter.", "Begin the list again without it."),
        "cursor_expired": ("The cursor's order is kept no more.", "Begin the list again without it."),
        "too_many_pages": ("A numbered page that lies too deep.", "Go on with `metadata.nextPage`."),
    },
    401: {"unauthenticated": ("No key, or one that is unknown, expired or revoked.", "Send a key that works.")},
    403: {
        "scope_missing": ("The key lacks the scope.", "Use a key that has it; each route names its scope."),
        "account_banned": ("The key works, but its account is banned; the message says why.", "Ask a moderator."),
        "not_allowed": ("It is another's, or moderators alone may do it.", "Only its owner or a moderator can."),
        "quota_exceeded": (
            "The account holds as much as it may.",
            "Delete something: `storage` of `/api/v1/me` says what holds how much. For keys: revoke some.",
        ),
        "link_refused": ("A signed link that is wrong or has expired.", "Ask for the link again where it came from."),
    },
    404: {"not_found": ("Nothing of that name that you may see.", "Look the name up in its list.")},
    405: {"method_not_allowed": ("The address does not take that method.", "The Allow header names those it takes.")},
    408: {"too_slow": ("The client stopped sending.", "Send again.")},
    409: {
        "wrong_state": ("Not possible in the present state.", "Read the thing again; the message names its state."),
        "file_exists": ("The version has another file of that name.", "Use another name, or delete that file."),
        "in_use": ("Something else still needs it.", "Wait for it or delete it first; the message names it."),
        "wrong_offset": ("The bytes do not begin where the upload ends.", "Ask for its offset with HEAD, go on there."),
    },
    410: {"gone": ("It was deleted or taken down; the message says why.", "Do not ask again.")},
    412: {"tus_version": ("Another version of the tus protocol.", "Send `Tus-Resumable: 1.0.0`.")},
    413: {"body_too_large": ("The body is over the limit of the route.", "Send less; the message names the limit.")},
    415: {"unsupported_media_type": ("A body of a kind that the route does not take.", "Send one that it takes.")},
    416: {"range_not_satisfiable": ("The range begins behind the end.", "Content-Range says how long the file is.")},
    422: {
        "invalid_request": ("One or more fields do not pass.", "`errors` has a reason for each."),
        "backend_refused": ("No backend can draw it.", "`errors` says what is missing for each field."),
        "idempotency_key_reused": ("The key came before with another request.", "Make a new key for a new request."),
        "image_refused": ("An image that cannot be taken.", "Send another; the message says why."),
        "archive_refused": ("A zip archive that cannot be taken.", "Send another; the message says why."),
        "weights_refused": ("A weights file that cannot be taken.", "Send another; the message says why."),
        "upload_refused": ("Bytes that are not what they claim to be.", "Send others; the message says why."),
        "address_refused": ("An address that may not be called or written to.", "The message says what it must be."),
        "refused": ("It cannot be done as asked.", "The message says how to fix it."),
    },
    423: {"upload_busy": ("Another request is sending bytes of the upload.", "Wait for it, then ask for the offset.")},
    429: {"too_many_requests": ("A limit of your account or address is reached.", "Wait `Retry-After` seconds.")},
    460: {"checksum_mismatch": ("The bytes came changed; none is kept.", "Send them again from the offset.")},
    500: {"internal_error": ("A fault of ours, which was logged.", "Try again; give the operator the requestId.")},
    501: {"not_served": ("A route of another service that is not served here.", "The message says what is instead.")},
    502: {"drawing_failed": ("What was waited for has failed.", "The message says why; the workflow is in its list.")},
    503: {
        "postgres_unavailable": ("Postgres does not respond.", "Wait `Retry-After` seconds."),
        "store_unavailable": ("A store does not respond.", "Wait `Retry-After` seconds."),
        "encoder_unavailable": ("Nothing turns text into vectors now.", "Search by words, or wait."),
        "backend_unavailable": ("What draws pictures does not respond.", "Wait `Retry-After` seconds."),
        "backend_stalled": ("What draws pictures does not get on.", "Wait `Retry-After` seconds."),
        "pool_busy": ("Every thread or connection of its kind is in use.", "Wait `Retry-After` seconds."),
        "shutting_down": ("The process stops; the next one goes on.", "Wait `Retry-After` seconds."),
        "lock_timeout": ("Another request held what this one needs.", "Wait `Retry-After` seconds."),
        "transaction_conflict": ("Another request was in the way.", "Send it again."),
        "deadlock": ("Another request was in the way.", "Send it again."),
        "serialization_failure": ("Another request was in the way.", "Send it again."),
        "statement_timeout": ("The database took too long.", "Ask for less: the same again takes as long."),
        "store_failure": ("A store did not do what it was asked for.", "Give the operator the requestId."),
        "seal_broken": ("A secret that is kept does not open.", "Register the address again, or ask the operator."),
    },
    507: {
        "free_space_low": ("A disk is nearly full: uploads and new jobs wait.", "Wait until the operator made room."),
        "disk_full": ("No room is left.", "Wait until the operator made room."),
    },
}
"""By status and code: what it means, and what a client does."""


def codes_of(status: int) -> str:
    """The codes that a status comes with, for its line in the OpenAPI document."""
    return ", ".join(f"`{code}`" for code in ERRORS.get(status, ()))


def section() -> str:
    """The section of the page, with the anchors that `type` of an error names."""
    rows = "".join(
        f"<tr id='problem-{code}'><td><code>{status}</code></td><td><code>{code}</code></td>"
        f"<td>{html.escape(meaning)}</td><td>{html.escape(action).replace('`', '')}</td></tr>"
        for status, known in ERRORS.items()
        for code, (meaning, action) in known.items()
    )
    return f"<h2 id='errors'>Errors</h2><table>{rows}</table>"
