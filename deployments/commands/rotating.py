"""darkroom rotate: another key that signs links or seals secrets; the one before it goes on holding for a while."""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Annotated

import typer

from deployments.local.seed import write_secret
from storage.errors import WrongState
from storage.settings import Settings, load_settings, previous_key_file


class KeyName(StrEnum):
    """A key of the data folder."""

    SIGNING = "signing"
    SEALING = "sealing"


_UNTIL = {
    KeyName.SIGNING: "Links that the old one signed work until they expire; those in e-mails while it is there.",
    KeyName.SEALING: "What the old one sealed still opens, and is sealed anew when it is used or changed next.",
}


def rotate(key: Annotated[KeyName, typer.Argument(help="Which key.")]) -> None:
    """Make a new signing or sealing key; the old one is kept beside it. Restart the platform to use it."""
    settings = load_settings()
    file = {KeyName.SIGNING: settings.signing_key_file, KeyName.SEALING: settings.sealing_key_file}[key]
    _check_ours(settings, key)
    before = previous_key_file(file)
    write_secret(before, file.read_text().strip())
    write_secret(file, secrets.token_hex(32))
    typer.echo(f"made a new {key} key in {file}")
    typer.echo(f"the old one is in {before}. {_UNTIL[key]}")
    typer.echo("restart the platform: darkroom down, then darkroom up")


def _check_ours(settings: Settings, key: KeyName) -> None:
    """Raises WrongState when the data folder's key is not the one in use."""
    group, field = ("api", "signing_key") if key is KeyName.SIGNING else ("notifications", "sealing_key")
    used = getattr(getattr(settings, group), field).get_secret_value()
    held = settings.own_secrets()[group, field]
    if not held:
        raise WrongState(f"There is no {key} key in {settings.data_folder}. Run darkroom up once.")
    if held != used:
        name = f"DARKROOM_{group.upper()}__{field.upper()}"
        raise WrongState(f"The {key} key comes from {name}: set another there, and the old one in its PREVIOUS_ name.")
