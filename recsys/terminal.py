"""Progress bars and tables in a terminal."""

from __future__ import annotations

import csv
import json
from contextlib import contextmanager
from datetime import datetime
from typing import IO, TYPE_CHECKING, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from recsys.progress import Progress as Report

Format = Literal["table", "csv", "json", "parquet"]
_TABLE_ROWS = 1_000


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


def write_rows(rows: pa.RecordBatchReader, output_format: Format, out: IO[str]) -> None:
    """Write rows as they come; of a table for the eye, the first thousand.

    Args:
        rows: they are read once, a batch at a time.
        output_format: csv, json (one array of objects, a line each) or table; or parquet, whose
            bytes go to the buffer under ``out``.
        out: where to.
    """
    if output_format == "table":
        _write_table(rows, out)
    elif output_format == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(rows.schema.names)
        for batch in rows:
            writer.writerows(row.values() for row in batch.to_pylist())
    elif output_format == "json":
        texts = (json.dumps(row, default=str, ensure_ascii=False) for row in _each(rows))
        out.write(f"[{next(texts, '')}")
        out.writelines(f",\n{text}" for text in texts)
        out.write("]\n")
    else:
        import pyarrow.parquet as pq  # here, since it takes time to import

        with pq.ParquetWriter(out.buffer, rows.schema) as file:  # type: ignore[attr-defined]
            for batch in rows:
                file.write_batch(batch)


def render_table(rows: pa.Table, title: str | None = None) -> str:
    """Return rows as an aligned table."""
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


def _each(rows: pa.RecordBatchReader) -> Iterator[dict[str, object]]:
    for batch in rows:
        yield from batch.to_pylist()


def _write_table(rows: pa.RecordBatchReader, out: IO[str]) -> None:
    import pyarrow as pa  # here, since it takes time to import

    batches, n_rows = [], 0
    for batch in rows:
        batches.append(batch.slice(0, _TABLE_ROWS - n_rows))
        n_rows += len(batch)
        if n_rows > _TABLE_ROWS:
            break
    out.write(f"{render_table(pa.Table.from_batches(batches, rows.schema))}\n")
    if n_rows > _TABLE_ROWS:
        print_line(f"these are the first {_TABLE_ROWS:,} rows; --format csv gives all of them")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    # A title or an id may hold what moves a terminal's cursor or changes its colours.
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
