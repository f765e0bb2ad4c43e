"""darkroom notifications: announcements, channels paused and resumed, and what was given up, on the database itself."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from deployments.commands.operator import operator_stores
from deployments.commands.tables import echo_table
from storage.errors import DarkroomError, NotFound
from storage.postgres.accounts import accounts
from storage.postgres.connection import Script
from storage.postgres.notifications import deliveries, notifications, sendings
from storage.records.notifications.channels import OUTWARD, Channel
from storage.records.notifications.notifications import SystemNotice
from storage.settings import load_settings

app = typer.Typer(
    help="What readers are notified of, and what could not be sent.", no_args_is_help=True, add_completion=False
)

Outward = Annotated[Channel, typer.Argument(help=f"One of: {', '.join(OUTWARD)}.")]


class NoAddress(DarkroomError):
    """The list in the app has no address, so it cannot be paused."""

    code = "no_address"


@app.command()
def announce(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Names the announcement: the same key is sent once.")],
    title: Annotated[str, typer.Argument(metavar="TITLE", help="One line.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A few sentences.")],
    account: Annotated[list[str] | None, typer.Option(help="Only these; repeat it. Default: everybody.")] = None,
) -> None:
    """Notify everybody, or some accounts, with a system message: it passes quiet hours."""
    with operator_stores(load_settings()) as stores:
        added = stores.database.run(_announce(key, SystemNotice(title=title, text=text), account))
    typer.echo("it is being sent" if added else f"nothing: '{key}' was sent before")


@app.command()
def status() -> None:
    """Show what waits, what is paused, and how much was given up."""
    with operator_stores(load_settings()) as stores:
        fan_out = stores.database.run(notifications.lag())
        sending = stores.database.run(deliveries.lag())
        paused = stores.database.run(sendings.paused())
        failed = stores.database.run(notifications.failed())
    rows: list[tuple[object, ...]] = [
        ("notifications that wait for the fan-out", fan_out.waiting),
        ("deliveries and sendings that wait", sending.waiting + sending.sendings),
        ("seconds that the oldest is late", round(max(fan_out.oldest_seconds, sending.oldest_seconds), 1)),
        ("sendings given up", sending.dead_letters),
        ("left to another release, which knows their channel", sending.of_other_releases),
        ("channels paused", ", ".join(paused) or "none"),
    ]
    rows += [(f"cannot be delivered: {one.key}", one.error) for one in failed]
    echo_table(("what", "now"), rows)


@app.command()
def dead() -> None:
    """List sendings that were given up, the newest first."""
    with operator_stores(load_settings()) as stores:
        found = stores.database.run(sendings.dead())
    rows = [(one.id, one.channel, one.reader, one.attempts, one.last_error) for one in found]
    echo_table(("sending", "channel", "account", "tries", "error"), rows)


@app.command()
def replay(
    sending: Annotated[UUID, typer.Argument(metavar="SENDING", help="Its id from `darkroom notifications dead`.")],
) -> None:
    """Send what was given up after all, under the same id."""
    with operator_stores(load_settings()) as stores:
        found = stores.database.run(sendings.replay(sending))
    typer.echo(f"sending {found.id} is due again")


@app.command()
def pause(channel: Outward) -> None:
    """Send nothing on a channel; what falls due waits."""
    _check(channel)
    with operator_stores(load_settings()) as stores:
        stores.database.run(sendings.pause(channel))
    typer.echo(f"{channel} is paused; go on with: darkroom notifications resume {channel}")


@app.command()
def resume(channel: Outward) -> None:
    """Send on a channel again, also what has waited."""
    _check(channel)
    with operator_stores(load_settings()) as stores:
        was = stores.database.run(sendings.resume(channel))
    typer.echo(f"{channel} goes on" if was else f"{channel} was not paused")


def _check(channel: Channel) -> None:
    if channel not in OUTWARD:
        raise NoAddress(f"{channel} is shown, not sent, so it cannot be paused. There are: {', '.join(OUTWARD)}")


def _announce(key: str, notice: SystemNotice, names: list[str] | None) -> Script[list[int]]:
    numbers: list[int] = []
    for name in names or []:
        found = yield from accounts.users(name=name)
        if not found:
            raise NotFound(f"No account '{name}'.")
        numbers.append(found[0].number)
    return (yield from notifications.add(f"announcement:{key}", notice, numbers if names else None))
