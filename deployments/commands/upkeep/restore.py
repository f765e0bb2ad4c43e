"""darkroom restore: a platform from a backup, into an empty data folder."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.commands.upkeep.backup import Name, PassphraseFile, PlaceOrDestination, passphrase_of
from deployments.restore.restoration import Choices, Restored
from deployments.restore.restoration import restore as restore_backup
from storage.errors import BackupRefused
from storage.postgres.upkeep.restored import JUMP
from storage.settings import Settings, load_settings


def restore(
    place: PlaceOrDestination = "",
    name: Name = None,
    passphrase_file: PassphraseFile = None,
    jump: Annotated[
        int, typer.Option(min=0, help="Every number that is given out goes on so much higher than in the backup.")
    ] = JUMP,
    hold_notifications: Annotated[
        bool, typer.Option("--hold-notifications", help="Send nothing until `darkroom notifications resume CHANNEL`.")
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="The platform that used the named blob store and Elasticsearch is gone for good: blobs that are there "
            "are kept, searches move to new indexes.",
        ),
    ] = False,
    without_damaged: Annotated[
        bool,
        typer.Option(
            "--without-damaged",
            help="Leave out blobs that are missing or damaged in the backup, and name them. Rows that name them stay.",
        ),
    ] = False,
) -> None:
    """Bring a platform back from a backup, into a data folder that is empty or not there.

    Everything is checked first: nothing is written from a backup that is damaged, of another schema, or whose
    passphrase is not the one given. With --without-damaged only damaged blobs are no obstacle.
    """
    settings = load_settings()
    place = place or settings.backup.destination
    if not place:
        raise BackupRefused("Name the place of the backup, or set DARKROOM_BACKUP__DESTINATION.")
    choices = Choices(
        name=name,
        jump=jump,
        hold_notifications=hold_notifications,
        take_over=take_over,
        without_damaged=without_damaged,
    )
    # The passphrase is asked for by the restore, once all that can be refused without it has passed.
    done = restore_backup(settings, place, lambda: passphrase_of(settings, passphrase_file), typer.echo, choices)
    for line in report(done):
        typer.echo(line)
    typer.echo(f"{settings.data_folder} is restored. {next_step(settings)}")


def next_step(settings: Settings) -> str:
    """How a restored platform is started: by `darkroom up`, or as its servers are."""
    if not settings.has_embedded_stores:
        return "Its stores are servers of your own: start them and Darkroom's processes as before."
    return "Start it with: darkroom up"


def report(done: Restored) -> list[str]:
    """What an operator should know of a restore, a sentence each."""
    reopened, due = done.reopened, done.reopened.due
    lines = [
        f"{done.blobs:,} blobs, {done.artifacts:,} artifacts of MLflow, {len(done.secrets)} secrets",
        f"{len(reopened.sequences)} sequences moved on: numbers given out since the backup are not given out again",
        f"{reopened.again} unfinished jobs start again from their last checkpoint, {reopened.cancelled} that were "
        "being cancelled are cancelled",
    ]
    if reopened.uploads:
        lines.append(f"{reopened.uploads} unfinished uploads of model files are forgotten: their senders begin again")
    waiting = f"{due.deliveries:,} deliveries and {due.sendings:,} sendings were due outside the platform"
    if reopened.held:
        lines.append(f"{waiting}; they are held: darkroom notifications resume {' | '.join(reopened.held)}")
    else:
        lines.append(
            f"{waiting}: they are sent after the start, also those that were sent since the backup (webhooks with the "
            "same webhook-id)"
        )
    began = f"{done.manifest.started_at:%Y-%m-%d %H:%M} UTC"
    lines.append(f"keys revoked, accounts banned and models taken down after {began} are as before: do that again")
    return lines + done.notes
