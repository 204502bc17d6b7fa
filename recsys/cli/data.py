"""Commands that bring data into the lake."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.cli.common import app, name_value_pairs, new_run_id
from recsys.errors import ConfigurationError
from recsys.settings import Settings, Source
from recsys.terminal import bars, print_line


@app.command()
def ingest(
    source: Annotated[
        str | None,
        typer.Argument(help="DuckDB file, or files by path or glob, local or s3://."),
    ] = None,
    table: Annotated[str | None, typer.Option(help="Table of a DuckDB file.")] = None,
    query: Annotated[str | None, typer.Option(help="Query on a DuckDB file.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="Map a column; may be repeated."),
    ] = None,
) -> None:
    """Read new interactions, check them, and add them to the lake.

    Without SOURCE, the configured source is read.
    """
    from recsys.ingest import batch
    from recsys.ingest.items import ingest_items
    from recsys.operations.runs import record_run

    settings = Settings()
    chosen_source = None
    if source is not None:
        chosen_source = Source(
            uri=source, table=table, query=query, columns=name_value_pairs(column)
        )
    elif table or query or column:
        raise ConfigurationError("--table, --query and --column go with a SOURCE; give one")
    with (
        record_run("ingest", new_run_id(), settings, {"source": source}) as run,
        bars() as progress,
    ):
        result = batch.ingest(run.lake, settings, chosen_source, progress=progress)
        run.record("ingest", result)
        if settings.items is not None and chosen_source is None:
            ingest_items(run.lake, settings)
    print_line(
        f"{result.status}: {result.rows_in:,} rows read, {result.accepted:,} accepted, "
        f"{result.quarantined:,} quarantined, {result.duplicates:,} already in the lake"
    )
