"""Columns of text, as wide as their content: ids stay whole, and other programs can read them."""

from __future__ import annotations

from collections.abc import Sequence

import typer

GAP = "  "


def echo_table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a line of titles and a line for each row, in aligned columns."""
    lines = [[str(cell) for cell in row] for row in (titles, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for number, line in enumerate(lines):
        text = GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        typer.secho(text, bold=number == 0)
