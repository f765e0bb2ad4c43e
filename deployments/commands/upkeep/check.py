"""darkroom check: whether the stores agree with each other."""

from __future__ import annotations

import typer

from deployments.commands.operator import operator_stores
from flows.upkeep.reconcile import check_invariants
from storage.settings import load_settings


def check() -> None:
    """Compare the stores with each other: every row has its bytes, every job its facts, every index its rows.

    Repairs nothing; the flow `reconcile` does that every ten minutes. Exits with 1 when something is wrong.
    """
    with operator_stores(load_settings()) as stores:
        faults = check_invariants(stores)
    for fault in faults:
        typer.echo(fault)
    if faults:
        typer.echo(f"{len(faults)} faults. Repair what can be repaired: darkroom run reconcile", err=True)
        raise typer.Exit(1)
    typer.echo("the stores agree: every row has its bytes, every job its facts, every index its rows")
