"""darkroom backup: a backup now, what there is, whether one is whole, and the key that its secrets are sealed to."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from deployments.commands.operator import operator_stores
from deployments.commands.tables import echo_table
from flows.upkeep.backup import sealed_keys
from flows.upkeep.backup.backup import back_up_to
from flows.upkeep.backup.backup_store import BackupStore, check_there
from flows.upkeep.backup.verification import verify as verify_whole
from storage.errors import BackupFailed, BackupRefused, PostgresUnavailable
from storage.settings import Settings, load_settings

NOW = "now"


class _NowByDefault(TyperGroup):
    """`darkroom backup PLACE` is `darkroom backup now PLACE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--help" not in args[:1] and (not args or args[0] not in self.commands):
            args = [NOW, *args]
        return super().parse_args(ctx, args)


def _may_be_place(word: str) -> bool:
    """Whether a word that is no command is a place of backups: an URL, a path or a folder here."""
    return "/" in word or ":" in word or Path(word).is_dir()


app = typer.Typer(
    cls=_NowByDefault,
    help="Back the whole platform up while it works; list and verify backups.\n\n"
    "`darkroom backup PLACE` makes one now; `darkroom restore PLACE` brings the newest back.",
    add_completion=False,
)

Place = Annotated[str, typer.Argument(metavar="PLACE", help="Folder or fsspec URL that backups are kept in.")]
PlaceOrDestination = Annotated[
    str, typer.Argument(metavar="PLACE", help="Folder or fsspec URL; left out: DARKROOM_BACKUP__DESTINATION.")
]
Name = Annotated[str | None, typer.Option("--name", help="A backup of that place; left out: the newest.")]
PassphraseFile = Annotated[
    Path | None, typer.Option(help="File whose first line is the passphrase; left out: it is asked for.")
]


@app.command(NOW)
def now(
    place: PlaceOrDestination = "",
    passphrase_file: PassphraseFile = None,
) -> None:
    """Back everything up, while the platform works. The first one makes the backups' key and asks for a passphrase."""
    if place and not _may_be_place(place):
        # A mistyped command would make a backup, and end the alert that there is none.
        raise typer.BadParameter(f"'{place}' is neither a command nor a folder here. A new folder is ./{place}.")
    settings = load_settings()
    place = place or settings.backup.destination
    try:
        with operator_stores(settings) as stores:
            if place and not Path(settings.backup.key_file).exists():
                make_key(settings, passphrase_file)
            made = back_up_to(stores, place, typer.echo)
    except PostgresUnavailable as error:
        raise PostgresUnavailable(
            f"{str(error).rstrip('.')}. A backup is made of a platform that runs; one that does not run is started "
            "first: darkroom up --detach. Where it cannot start any more, restore the last backup: darkroom restore"
        ) from error
    for name, value in made.metrics().items():
        typer.echo(f"{name:>20} {value:>16,}")
    for missing in made.manifest.without:
        typer.echo(f"not in it: {missing}")
    typer.echo(f"backup {made.manifest.name} is in {made.place}")
    if complaint := made.complaint():
        raise BackupFailed(complaint)


@app.command()
def verify(place: Place, name: Name = None) -> None:
    """Read every byte of a backup and compare it with its hashes. Exits with 1 when a part is missing or changed.

    Damaged blobs are moved aside: the next backup copies them again.
    """
    store = BackupStore(place)
    check_there(store)
    name = store.newest(name)
    verify_whole(store, name)
    manifest = store.manifest(name)
    typer.echo(
        f"backup {name} is whole: {len(manifest.files)} files, {manifest.blobs.count:,} blobs of "
        f"{manifest.blobs.size:,} bytes, {manifest.artifacts.count:,} artifacts"
    )
    for fault in manifest.lost:
        typer.echo(f"lost before the backup: {fault}")


@app.command("list")
def list_backups(place: Place) -> None:
    """The finished backups of a place, the oldest first."""
    store = BackupStore(place)
    check_there(store)
    rows = [
        (name, f"{sum(file.size for file in each.files):,}", f"{each.blobs.count:,}", f"{each.blobs.size:,}")
        for name in store.finished()
        for each in [store.manifest(name)]
    ]
    if not rows:
        raise BackupRefused(f"There is no finished backup in {store.url}.")
    echo_table(("name", "bytes of its own", "blobs", "bytes of blobs"), rows)


@app.command()
def key(
    passphrase_file: PassphraseFile = None,
    replace: Annotated[bool, typer.Option("--replace", help="Later backups are sealed to a new key.")] = False,
) -> None:
    """Make the key pair that the secrets in backups are sealed to, under a passphrase."""
    settings = load_settings()
    file = Path(settings.backup.key_file)
    if file.exists() and not replace:
        raise BackupRefused(
            f"{file} is there already. With --replace later backups are sealed to a new key; those made so far still "
            "need the old passphrase."
        )
    make_key(settings, passphrase_file)


def make_key(settings: Settings, passphrase_file: Path | None) -> None:
    """Make the key pair. Raises BackupRefused for a passphrase that is short or not typed twice alike."""
    passphrase = passphrase_of(settings, passphrase_file, twice=True)
    file = Path(settings.backup.key_file)
    sealed_keys.write_key_pair(file, sealed_keys.make_key_pair(passphrase))
    typer.echo(f"{file} is made. Keep its passphrase where this machine is not: no backup can be restored without it.")


def passphrase_of(settings: Settings, file: Path | None, *, twice: bool = False) -> str:
    """The passphrase: from a file, or typed unseen. Raises BackupRefused where neither is possible."""
    file = file or (Path(settings.backup.passphrase_file) if settings.backup.passphrase_file else None)
    if file is not None:
        try:
            return (file.read_text().splitlines() or [""])[0]
        except (OSError, UnicodeDecodeError) as error:
            raise BackupRefused(f"{file} cannot be read as a passphrase ({type(error).__name__}).") from error
    if not sys.stdin.isatty():
        raise BackupRefused("No terminal to ask for the passphrase: name a file with --passphrase-file.")
    passphrase = getpass.getpass("Passphrase of the backups: ")
    if twice and getpass.getpass("The same again: ") != passphrase:
        raise BackupRefused("The two are not the same. Nothing was made.")
    return passphrase
