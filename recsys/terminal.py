"""Progress bars and tables in a terminal."""

from __future__ import annotations

import csv
import io
import json
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from recsys.progress import Progress as Report

Format = Literal["table", "csv", "json"]


@contextmanager
def bars() -> Iterator[Report]:
    """Show one bar a stage on standard error; outside a terminal, a line as each stage ends."""
    console = Console(stderr=True)
    stages: dict[str, TaskID] = {}
    progress = Progress(
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=16),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=console,
    )

    def report(stage: str, done: int, total: int, note: str = "") -> None:
        if not stages:
            progress.start()  # only now: work that reports nothing leaves no empty line
        if stage not in stages:
            stages[stage] = progress.add_task(stage, total=total, note=note)
        progress.update(stages[stage], completed=done, total=total, note=note)

    try:
        yield report
    finally:
        if stages:
            progress.stop()


def print_line(text: str) -> None:
    """Print a line on standard error: standard output is for what the user asked for."""
    Console(stderr=True).print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def render_table(rows: pa.Table, output_format: Format, title: str | None = None) -> str:
    """Return rows as an aligned table, as CSV or as JSON (one array of objects)."""
    if output_format == "json":
        return json.dumps(rows.to_pylist(), default=str, ensure_ascii=False)
    if output_format == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(rows.column_names)
        writer.writerows(row.values() for row in rows.to_pylist())
        return text.getvalue().rstrip("\n")
    table = Table(title=title, title_justify="left")
    for field in rows.schema:
        numeric = str(field.type).startswith(("int", "uint", "float", "double", "decimal"))
        table.add_column(field.name, justify="right" if numeric else "left")
    for row in rows.to_pylist():
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    console = Console(width=None if Console().is_terminal else 160)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    return f"{value:.4f}" if isinstance(value, float) else str(value)
