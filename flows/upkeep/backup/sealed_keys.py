"""The data folder's secrets in a backup: sealed to a public key, whose private half travels sealed by a passphrase.

Both seals are age's (https://age-encryption.org, X25519 and scrypt, through rage): a backup's keys open with the `age`
program too. A scheduled backup needs the public key only, so nobody has to be there; restoring needs the passphrase.
"""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pyrage

from storage.errors import BackupDamaged, BackupRefused, SealBroken
from storage.secret_files import write_private
from storage.settings import Settings

MIN_PASSPHRASE_LENGTH = 12


class KeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """What `backup.key` holds. identity: the private half, sealed by the passphrase (age, armored)."""

    recipient: str
    identity: str


def make_key_pair(passphrase: str) -> KeyPair:
    """A new key pair under a passphrase. Raises BackupRefused for a short one. Takes seconds, on purpose."""
    if len(passphrase) < MIN_PASSPHRASE_LENGTH:
        raise BackupRefused(
            f"A passphrase of {len(passphrase)} characters is too short: {MIN_PASSPHRASE_LENGTH} at least."
        )
    identity = pyrage.x25519.Identity.generate()
    sealed = pyrage.passphrase.encrypt(str(identity).encode(), passphrase, armored=True)
    return KeyPair(recipient=str(identity.to_public()), identity=sealed.decode())


def write_key_pair(file: Path, pair: KeyPair) -> None:
    """Write a platform's key pair: whole, and for its owner alone, though without the passphrase it opens nothing."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(file, msgspec.json.encode(pair))


def read_key_pair(file: Path) -> KeyPair:
    """The key pair of a platform. Raises BackupRefused when there is none or the file is none."""
    if not file.exists():
        raise BackupRefused(
            f"There is no {file}: the backup's keys could not be sealed. Make it once: darkroom backup key"
        )
    try:
        pair = msgspec.json.decode(file.read_bytes(), type=KeyPair)
        # Tried now, so that a broken key ends the backup before it begins.
        pyrage.x25519.Recipient.from_str(pair.recipient)
    except (msgspec.DecodeError, pyrage.RecipientError) as error:
        raise BackupRefused(f"{file} holds no key pair ({error}). Move it away and run: darkroom backup key") from error
    return pair


def gather(settings: Settings) -> dict[str, bytes]:
    """Every secret of the platform by the name that its file has in a data folder, also those that are set outside,
    and the keys before them: what they sealed and signed must still open after a restore."""
    held = {
        str(file.relative_to(settings.data_folder)): file.read_bytes()
        for file in settings.backed_up_secrets
        if file.exists()
    }
    used = {
        file.name: getattr(getattr(settings, group), field).get_secret_value().encode()
        for (group, field), file in (settings.secret_files() | settings.previous_key_files()).items()
    }
    # Settings win over files: what is set outside is what the platform works with.
    return {name: content for name, content in (held | {n: c for n, c in used.items() if c}).items() if content}


def seal(secrets: dict[str, bytes], recipient: str) -> bytes:
    """Secrets sealed to a public key."""
    document = {name: base64.b64encode(content).decode() for name, content in secrets.items()}
    return bytes(pyrage.encrypt(msgspec.json.encode(document), [pyrage.x25519.Recipient.from_str(recipient)]))


def unseal(sealed: bytes, identity: str, passphrase: str) -> dict[str, bytes]:
    """The secrets of a backup. Raises SealBroken for a wrong passphrase, BackupDamaged for what it does not open."""
    try:
        private = pyrage.passphrase.decrypt(identity.encode(), passphrase)
    except pyrage.DecryptError as error:
        raise SealBroken(
            "The passphrase does not open this backup's keys. Nothing was written; try another."
        ) from error
    try:
        content = pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(private.decode())])
    except (pyrage.DecryptError, pyrage.IdentityError) as error:
        raise BackupDamaged(f"The backup's keys do not open ({error}). Take another backup.") from error
    document = msgspec.json.decode(content, type=dict[str, str])
    return {name: base64.b64decode(text) for name, text in document.items()}
