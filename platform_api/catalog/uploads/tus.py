"""The headers of tus 1.0.0, the protocol of uploads that go on where they broke off: headers in, headers out.

Source: https://tus.io/protocols/resumable-upload, with its extensions creation, creation-with-upload, checksum,
expiration and termination.

Our own: servers of tus bring routes and files of their own, while here bytes are hashed and judged while they arrive,
and quotas, free space and the upload's row decide with each request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any

from litestar.types import Message, Scope

from platform_api.http.problems import ProtocolRefusal, UnsupportedMediaType
from storage.errors import InvalidRequest
from storage.records.catalog.uploads import ModelUpload

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,checksum,expiration,termination"
MEDIA_TYPE = "application/offset+octet-stream"
MAX_METADATA = 4096
ALGORITHMS: Mapping[str, Callable[[], Any]] = {
    "sha1": hashlib.sha1,
    "sha256": hashlib.sha256,
    "md5": hashlib.md5,
}
"""What Upload-Checksum may be made with. The protocol asks for SHA-1; all three find changed bytes, not forged ones."""

_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,100}")


class OtherVersion(ProtocolRefusal):
    """A client that speaks another version of tus, or none."""

    code = "tus_version"
    status = HTTPStatus.PRECONDITION_FAILED

    def __init__(self) -> None:
        super().__init__(f"This address speaks tus {VERSION}. Send: Tus-Resumable: {VERSION}")

    @property
    def headers(self) -> dict[str, str]:
        """The versions there are."""
        return {"Tus-Version": VERSION}


class WrongOffset(ProtocolRefusal):
    """Bytes that do not follow those that are there."""

    code = "wrong_offset"
    status = HTTPStatus.CONFLICT

    def __init__(self, upload: ModelUpload) -> None:
        self._received = upload.received
        super().__init__(f"The upload has {upload.received:,} bytes. Go on at Upload-Offset: {upload.received}")

    @property
    def headers(self) -> dict[str, str]:
        """Where to go on."""
        return {"Upload-Offset": str(self._received)}


class ChecksumMismatch(ProtocolRefusal):
    """Bytes that came changed; none of the request's is kept."""

    code = "checksum_mismatch"
    # The tus extension's own status for this, which HTTP does not have.
    status = 460


class Checksum:
    """What a request's bytes must come to."""

    def __init__(self, algorithm: str, expected: bytes) -> None:
        self._algorithm, self._expected, self._digest = algorithm, expected, ALGORITHMS[algorithm]()

    def take(self, piece: bytes) -> None:
        """The next bytes of the request."""
        self._digest.update(piece)

    def check(self) -> None:
        """Raises ChecksumMismatch when the bytes taken are not those that were sent."""
        if not hmac.compare_digest(self._digest.digest(), self._expected):
            raise ChecksumMismatch(f"The bytes do not have the {self._algorithm} of Upload-Checksum. Send them again.")


def check_version(headers: Mapping[str, str]) -> None:
    """Raises OtherVersion unless the client speaks ours."""
    if headers.get("tus-resumable") != VERSION:
        raise OtherVersion


def check_media_type(headers: Mapping[str, str]) -> None:
    """Raises UnsupportedMediaType unless the body is declared as bytes of an upload."""
    if headers.get("content-type", "").split(";")[0].strip().lower() != MEDIA_TYPE:
        raise UnsupportedMediaType(f"Send the bytes as they are, with Content-Type: {MEDIA_TYPE}")


def read_number(headers: Mapping[str, str], name: str) -> int:
    """A header that is a count of bytes. Raises InvalidRequest."""
    text = headers.get(name.lower(), "")
    # 18 digits fit into Postgres' bigint.
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidRequest({name: "expected a count of bytes in digits"})
    return int(text)


def read_metadata(text: str) -> dict[str, str]:
    """Upload-Metadata as key to value. Raises InvalidRequest."""
    if len(text) > MAX_METADATA:
        raise InvalidRequest({"Upload-Metadata": f"must have {MAX_METADATA:,} characters at most"})
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = pair.partition(" ")
        if not _KEY.fullmatch(key) or key in found:
            raise InvalidRequest({"Upload-Metadata": "expected pairs of a key and a Base64 value, each key once"})
        try:
            # validate: by default Python passes over signs that are no Base64.
            found[key] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeError, ValueError) as error:
            raise InvalidRequest({"Upload-Metadata": f"the value of '{key}' is not Base64 of UTF-8 text"}) from error
    return found


def read_checksum(headers: Mapping[str, str]) -> Checksum | None:
    """What Upload-Checksum says, if it is there. Raises InvalidRequest."""
    text = headers.get("upload-checksum")
    if text is None:
        return None
    algorithm, _, encoded = text.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise InvalidRequest({"Upload-Checksum": f"known algorithms are {', '.join(ALGORITHMS)}"})
    try:
        expected = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest({"Upload-Checksum": "expected the algorithm, a blank and Base64"}) from error
    return Checksum(algorithm, expected)


def upload_headers(upload: ModelUpload) -> dict[str, str]:
    """Headers of a response about an upload."""
    return {
        "Upload-Offset": str(upload.received),
        "Upload-Length": str(upload.length),
        "Upload-Metadata": upload.metadata,
        "Upload-Expires": format_datetime(upload.expires_at, usegmt=True),
    }


def capabilities(max_size: int) -> dict[str, str]:
    """Headers of the response to OPTIONS."""
    return {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(max_size),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    }


def name_version(root: str) -> Callable[[Message, Scope], Any]:
    """A hook that has every response below `root` say which version of tus it speaks, errors too."""
    line = (b"tus-resumable", VERSION.encode())

    async def say(message: Message, scope: Scope) -> None:
        below = scope["path"] == root or scope["path"].startswith(f"{root}/")
        if message["type"] == "http.response.start" and below:
            message["headers"] = [*message.get("headers", ()), line]

    return say
