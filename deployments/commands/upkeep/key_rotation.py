"""darkroom rotate: another key that signs links or seals secrets; the one before it goes on holding for a while."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deployments.commands.operator import operator_stores
from deployments.local.state import holder, read_record
from storage.errors import SealBroken, WrongState
from storage.postgres.connection import Script
from storage.postgres.notifications import endpoints
from storage.postgres.notifications.endpoints import Endpoint
from storage.records.notifications.channels import BOUND
from storage.sealing import Seal
from storage.secret_files import write_secret
from storage.settings import Settings, load_settings, previous_key_file, variable_of


class KeyName(StrEnum):
    """A key of the data folder."""

    SIGNING = "signing"
    SEALING = "sealing"


_UNTIL = {
    KeyName.SIGNING: "Links that the old one signed work until they expire; those in e-mails while it is there.",
    KeyName.SEALING: "What the old one sealed still opens, and is sealed again when it is used or changed next.",
}


def rotate(
    key: Annotated[KeyName, typer.Argument(help="Which key.")],
    forget_previous: Annotated[
        bool, typer.Option("--forget-previous", help="Also when something still needs the key before this one.")
    ] = False,
) -> None:
    """Make a new signing or sealing key; the old one is kept beside it. Restart the platform to use it."""
    settings = load_settings()
    file = {KeyName.SIGNING: settings.signing_key_file, KeyName.SEALING: settings.sealing_key_file}[key]
    _check_ours(settings, key)
    before, current = previous_key_file(file), file.read_text().strip()
    # The same in both: a rotation died between its two writes, after it had looked.
    if before.exists() and before.read_text().strip() != current:
        _check_restarted(settings, before)
        _free_previous(settings, key, before, forget=forget_previous)
    # The old key's copy first: whoever dies in between leaves two equal keys, and has lost none.
    write_secret(before, current)
    write_secret(file, secrets.token_hex(32))
    typer.echo(f"made a new {key} key in {file}")
    typer.echo(f"the old one is in {before}. {_UNTIL[key]}")
    typer.echo("restart the platform: darkroom down, then darkroom up")


def reseal() -> None:
    """Seal all that the previous sealing key sealed under the current one, wherever the two come from.

    Exits with 1 while something still needs the previous key.
    """
    settings = load_settings()
    with operator_stores(settings) as stores:
        sealed, stuck = stores.database.run(lambda: seal_again(Seal(settings.notifications)))
    typer.echo(f"{sealed} addresses are sealed under the current key")
    if stuck:
        raise WrongState(_stuck_text(stuck))
    typer.echo("nothing needs the previous key")


def _stuck_text(stuck: int) -> str:
    return (
        f"{stuck} addresses open with the key before it only; push subscriptions are bound to it. They end "
        "with it: their readers register again."
    )


def _check_ours(settings: Settings, key: KeyName) -> None:
    """Raises WrongState when the data folder's key is not the one in use."""
    group, field = ("api", "signing_key") if key is KeyName.SIGNING else ("notifications", "sealing_key")
    used = getattr(getattr(settings, group), field).get_secret_value()
    held = settings.own_secrets()[group, field]
    if used and held != used:
        name = variable_of(group, field)
        raise WrongState(f"The {key} key comes from {name}: set another there, and the old one in its PREVIOUS_ name.")
    if not held:
        raise WrongState(f"There is no {key} key in {settings.data_folder}. Run darkroom up once.")
    if (
        getattr(getattr(settings, group), f"previous_{field}").get_secret_value()
        != settings.own_secrets()[group, f"previous_{field}"]
    ):
        name = variable_of(group, f"previous_{field}")
        raise WrongState(f"{name} is set and would hide the key that is kept now. Unset it first.")


def _check_restarted(settings: Settings, before: Path) -> None:
    """Raises WrongState while processes run that began before the last rotation: what they sign and seal, they do with
    the key that this rotation would forget."""
    record = read_record(settings.data_folder) if holder(settings.data_folder) else None
    if record and before.stat().st_mtime > record.supervisor.created:
        raise WrongState(
            "The platform that runs was started before the last rotation and still uses the key before it. No key was "
            "changed. Restart first: darkroom down && darkroom up"
        )


def _free_previous(settings: Settings, key: KeyName, file: Path, *, forget: bool) -> None:
    """See to it that nothing needs the key before the current one, whose place the current one takes.

    Raises WrongState when something does and it is not to be forgotten, StoreUnavailable.
    """
    if key is KeyName.SIGNING:
        left = file.stat().st_mtime + settings.api.link_lifetime_seconds - time.time()
        reason = f"Links that the key before it signed work for {left / 3600:.1f} h yet." if left > 0 else ""
    else:
        with operator_stores(settings) as stores:
            sealed, stuck = stores.database.run(lambda: seal_again(Seal(settings.notifications)))
        typer.echo(f"{sealed} addresses that the key before it had sealed are sealed again")
        reason = _stuck_text(stuck) if stuck else ""
    if reason and not forget:
        raise WrongState(f"{reason} No key was changed. Wait, or give that up: darkroom rotate {key} --forget-previous")


def seal_again(seal: Seal) -> Script[tuple[int, int]]:
    """Seal every address and secret under the current key, in one transaction. Those of push cannot be: browsers know
    their subscription by the key. Returns how many addresses were, and how many still need the previous key."""
    sealed = stuck = 0
    for endpoint in (yield from endpoints.all_held()):
        needing = [value for value in _sealed_of(endpoint) if not seal.is_current(value) and _opens(seal.open, value)]
        if not needing:
            continue  # or nothing that is there opens it
        if endpoint.channel in BOUND or not all(_opens(seal.open, value) for value in _sealed_of(endpoint)):
            stuck += 1
            continue
        yield from endpoints.reseal(endpoint, seal.renewed)
        sealed += 1
    return sealed, stuck


def _sealed_of(endpoint: Endpoint) -> list[bytes]:
    return [value for value in (endpoint.address, endpoint.secret, endpoint.old_secret) if value is not None]


def _opens(open_sealed: Callable[[bytes], str], value: bytes) -> bool:
    try:
        open_sealed(value)
    except SealBroken:
        return False
    return True
