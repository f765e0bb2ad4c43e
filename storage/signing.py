"""Signed tokens and links, by itsdangerous: HMAC-SHA256 under the current key, read under the one before it too.

Links carry their own end, and itsdangerous' timed signer is not used: it signs the moment of signing, so that an image
would get a new address with every request and no cache would find it again.

What we signed by ourselves, before itsdangerous, is still read: e-mail that was sent then must be able to stop e-mail
for ever, image links were promised for a week, and a client may stand in the middle of a list. Nothing is written so.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from itsdangerous import BadData, BadSignature, Signer
from itsdangerous.encoding import base64_decode, base64_encode

from storage.errors import LinkRefused
from storage.records.policy.signed_links import Link, SigningKeys, job_file_subject

Token = TypeVar("Token", bound=msgspec.Struct)

_EARLIER_LINK_DIGITS = 64


@dataclass(frozen=True)
class TokenPurpose:
    """What tokens are for: one of another purpose is not taken. `earlier_bytes`: of the signatures of before."""

    name: bytes
    earlier_bytes: int


EMAIL_LINK = TokenPurpose(b"notification link", 16)
CURSOR = TokenPurpose(b"cursor", 9)
_LINK = b"link"


def write_token(value: msgspec.Struct, purpose: TokenPurpose, keys: SigningKeys) -> str:
    """A value with its signature: letters, digits, `-`, `_` and one dot."""
    return _signer(purpose.name, keys).sign(base64_encode(msgspec.msgpack.encode(value))).decode()


def read_token(token: str, kind: type[Token], purpose: TokenPurpose, keys: SigningKeys) -> Token:
    """The value of a token. Raises BadSignature for all but our own of this purpose and kind."""
    try:
        # The alphabet of URL-safe base64 has no dot, so one says that itsdangerous wrote the token.
        if "." in token:
            content = base64_decode(_signer(purpose.name, keys).unsign(token))
        else:
            content = _read_earlier(token, purpose, keys)
        return msgspec.msgpack.decode(content, type=kind)
    except (BadData, msgspec.DecodeError, UnicodeError, binascii.Error) as error:
        raise BadSignature("not a token of ours, or not whole") from error


def write_email_link(link: msgspec.Struct, keys: SigningKeys) -> str:
    """The token of a link in an e-mail. Raises LinkRefused without a signing key."""
    return write_token(link, EMAIL_LINK, _checked(keys))


def read_email_link(token: str, kind: type[Token], keys: SigningKeys) -> Token:
    """What the token of a link in an e-mail does. Raises LinkRefused for all but our own of this kind."""
    try:
        return read_token(token, kind, EMAIL_LINK, _checked(keys))
    except BadSignature as error:
        raise LinkRefused("The link is not one of ours, or not whole. Copy all of it from the e-mail.") from error


def link_query(link: Link, keys: SigningKeys) -> str:
    """The query that makes an address a signed link."""
    reader = {} if link.reader is None else {"for": link.reader}
    signature = _signer(_LINK, keys).get_signature(link.content).decode()
    return urlencode({**reader, "expires": link.expires, "signature": signature})


def is_signed(link: Link, signature: str, keys: SigningKeys, now: int) -> bool:
    """Whether `signature` is ours for exactly this link, and its time (Unix seconds) is still to come."""
    if not keys or not signature or link.expires <= now:
        return False
    # Ours were 64 hex digits; itsdangerous writes the same 32 bytes in 43 letters of base64.
    if len(signature) == _EARLIER_LINK_DIGITS:
        try:
            return _is_earlier(_LINK + b"\n" + link.content, bytes.fromhex(signature), keys)
        except ValueError:
            return False
    return _signer(_LINK, keys).verify_signature(link.content, signature)


def job_image_link(job_id: UUID, sha256: str, expires: int, keys: SigningKeys) -> str:
    """The path and query of an image of a job, good without a key until then (Unix seconds)."""
    link = Link(subject=job_file_subject(job_id, sha256), reader=None, expires=expires)
    return f"/api/v1/images/{sha256}?{urlencode({'job': job_id})}&{link_query(link, keys)}"


def _signer(purpose: bytes, keys: SigningKeys) -> Signer:
    # The oldest first: itsdangerous signs with the last key of the list and reads under each. Key derivation and digest
    # are named, because its defaults are a plain hash of salt and key ("django-concat"), and SHA-1.
    return Signer(keys.oldest_first, salt=purpose, key_derivation="hmac", digest_method=hashlib.sha256)


def _checked(keys: SigningKeys) -> SigningKeys:
    if not keys:
        raise LinkRefused("There is no signing key, so no link can be read or made. Run darkroom up once.")
    return keys


def _read_earlier(token: str, purpose: TokenPurpose, keys: SigningKeys) -> bytes:
    """The content of a token of before: the beginning of its signature, then itself, in base64."""
    whole = base64.b64decode((token + "=" * (-len(token) % 4)).encode("ascii"), altchars=b"-_", validate=True)
    signature, content = whole[: purpose.earlier_bytes], whole[purpose.earlier_bytes :]
    if len(signature) < purpose.earlier_bytes or not _is_earlier(purpose.name + b"\n" + content, signature, keys):
        raise BadSignature("not a token of ours")
    return content


def _is_earlier(content: bytes, signature: bytes, keys: SigningKeys) -> bool:
    """Whether a signature of before, or its beginning, is over `content`. Compared in constant time."""
    return any(
        hmac.compare_digest(signature, hmac.digest(key.encode(), content, "sha256")[: len(signature)])
        for key in keys.oldest_first
    )
