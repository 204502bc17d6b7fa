"""The one Markdown writer: tables for cards, benchmarks and flow runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, and an empty line after it.

    A cell stays in its place, and makes neither a tag nor a link, whatever its text.
    """
    lines = [heads, ["---"] * len(heads), *rows]
    return [*("| " + " | ".join(map(_cell, cells)) + " |" for cells in lines), ""]


def _cell(text: str) -> str:
    text = " ".join(text.splitlines()).replace("|", "\\|")
    return text.replace("<", "&lt;").replace("](", "]\\(")


def code_block(text: str) -> str:
    """Return text as a block that shows it letter for letter, whatever marks it holds."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def markdown_values(title: str, values: Mapping[str, object]) -> str:
    """Return a heading and a table of names and values."""
    rows = [
        [name.replace("_", " "), f"{value:,.4g}" if isinstance(value, float) else str(value)]
        for name, value in values.items()
    ]
    return "\n".join([f"# {title}", "", *markdown_table(["", ""], rows)])
