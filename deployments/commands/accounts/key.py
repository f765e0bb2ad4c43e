"""darkroom key: API keys, made and revoked by the operator on the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from deployments.commands.operator import operator_stores
from deployments.commands.tables import echo_table
from storage.postgres.accounts import accounts
from storage.postgres.connection import Script
from storage.records.accounts.accounts import ApiKey, NewKey, Scope, make_key
from storage.settings import load_settings

app = typer.Typer(help="API keys, on this machine's database.", no_args_is_help=True, add_completion=False)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for, to know it again.")],
    scope: Annotated[list[Scope] | None, typer.Option(help="What it allows; repeat it. Default: everything.")] = None,
    account: Annotated[str, typer.Option(help="Whose data it reaches; made when new.")] = "owner",
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; default: never.")] = None,
) -> None:
    """Make a key and show it once."""
    key = make_key()
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    with operator_stores(load_settings()) as stores:
        stores.database.run(_add(account, key, name, scope or list(Scope), expires))
    # The key alone on standard output, the rest beside it: KEY=$(darkroom key create ...) works.
    typer.echo(key.text)
    typer.echo("Shown once and kept nowhere. Use it with: DARKROOM_API__KEY=<key> darkroom ...", err=True)


@app.command("list")
def list_keys() -> None:
    """List keys, never their secrets."""
    with operator_stores(load_settings()) as stores:
        found = stores.database.run(accounts.keys())
    now = datetime.now(UTC)
    rows = [
        (
            key.id,
            _state(key, now),
            _day(key.created_at),
            key.made_by or "not noted",
            _day(key.last_used_at),
            _day(key.expires_at),
            _scopes(key),
            key.name,
        )
        for key in found
    ]
    echo_table(("key", "state", "made", "by", "used", "expires", "scopes", "name"), rows)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's id from `darkroom key list`.")],
) -> None:
    """Make a key, and every key that it made, stop working with the next request."""
    with operator_stores(load_settings()) as stores:
        revoked = stores.database.run(accounts.revoke_key(key_id))
    for key in revoked:
        typer.echo(f"key {key.id} ({key.name}) is revoked")


def _add(account: str, key: NewKey, name: str, scopes: list[Scope], expires: datetime | None) -> Script[Any]:
    owner = yield from accounts.ensure_account(account)
    return (yield from accounts.make_key(owner.id, key, name, scopes, expires))


def _state(key: ApiKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "works"


def _scopes(key: ApiKey) -> str:
    return "everything" if set(key.scopes) >= {scope.value for scope in Scope} else " ".join(key.scopes)


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else moment.astimezone().strftime("%Y-%m-%d")
