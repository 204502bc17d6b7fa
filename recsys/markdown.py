"""The one Markdown writer: tables for cards, benchmarks and flow runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, and an empty line after it; a ``|`` in a cell is escaped."""
    lines = [heads, ["---"] * len(heads), *rows]
    return [
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines),
        "",
    ]


def markdown_values(title: str, values: Mapping[str, object]) -> str:
    """Return a heading and a table of names and values."""
    rows = [
        [name.replace("_", " "), f"{value:,.4g}" if isinstance(value, float) else str(value)]
        for name, value in values.items()
    ]
    return "\n".join([f"# {title}", "", *markdown_table(["", ""], rows)])
