"""Commands that bring data into the lake."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.cli.common import Set, app, name_value_pairs, new_run_id
from recsys.errors import ConfigurationError
from recsys.settings import Settings, Source
from recsys.terminal import bars, print_line, render_table

SourceUri = Annotated[
    str | None,
    typer.Argument(help="DuckDB file, or files by path or glob, local or s3://."),
]
Table = Annotated[str | None, typer.Option(help="Table of a DuckDB file.")]
Query = Annotated[str | None, typer.Option(help="Query on a DuckDB file.")]
Column = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OURS=THEIRS", help="Map a column, or `OURS=` to leave it out; may be repeated."
    ),
]


@app.command()
def ingest(
    source: SourceUri = None,
    table: Table = None,
    query: Query = None,
    column: Column = None,
    changes: Set = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Read all of the source once more, and replace what it brought before: after "
            "the mapping was corrected.",
        ),
    ] = False,
) -> None:
    """Read new interactions, check them, and add them to the lake.

    Without SOURCE, the configured source is read.

    --set takes drop_null_users, timestamp_unit, user_id_type, item_id_type, on_change and
    delete_scope.
    """
    from recsys.ingest import batch
    from recsys.ingest.items import ingest_items
    from recsys.operations.runs import record_run

    settings = Settings()
    chosen_source = _chosen_source(settings, source, table, query, column, changes)
    with (
        record_run("ingest", new_run_id(), settings, {"source": source, "again": again}) as run,
        bars() as progress,
    ):
        result = batch.ingest(run.lake, settings, chosen_source, again=again, progress=progress)
        run.record("ingest", result)
        understood = [result.understood]
        if settings.items is not None and source is None:
            items = ingest_items(run.lake, settings)
            run.record("items", items)
            understood.append(items.understood)
    print_line(
        f"{result.status}: {result.rows_in:,} rows read, {result.accepted:,} accepted, "
        f"{result.quarantined:,} quarantined, {result.duplicates:,} already in the lake"
        + (f", {result.anonymous:,} without a user" if result.anonymous else "")
        + (f"; {result.replaced:,} in the lake replaced" if result.replaced else "")
        + (f"; {result.deleted:,} in the lake deleted" if result.deleted else "")
    )
    for line in filter(None, understood):
        print_line(line)


@app.command()
def check_source(
    source: SourceUri = None,
    table: Table = None,
    query: Query = None,
    column: Column = None,
    changes: Set = None,
) -> None:
    """Say how a source is understood, and what an ingest would refuse; nothing is written.

    Without SOURCE, the configured source is read. Exits with 1 when the batch would be refused.

    --set takes drop_null_users, timestamp_unit, user_id_type, item_id_type, on_change and
    delete_scope.
    """
    from recsys.ingest import check_source as checks
    from recsys.lake.tables import Lake

    settings = Settings()
    chosen_source = _chosen_source(settings, source, table, query, column, changes)
    result = checks.check_source(Lake.from_settings(settings), settings, chosen_source)
    print_line(result.understood)
    typer.echo(render_table(result.first_rows, "First rows"))
    print_line(f"{result.explain()}\nNothing was written.")
    if result.broken_rules:
        raise typer.Exit(1)


def _chosen_source(
    settings: Settings,
    source: str | None,
    table: str | None,
    query: str | None,
    column: list[str] | None,
    changes: list[str] | None,
) -> Source | None:
    """Return the source that a command names or changes, or None for the configured one."""
    values = name_value_pairs(changes)
    if source is not None:
        values |= {"uri": source, "table": table, "query": query}
        return Source.model_validate({**values, "columns": name_value_pairs(column)})
    if values and not (table or query or column):
        return settings.required_source().changed(values)
    if table or query or column:
        raise ConfigurationError("--table, --query and --column go with a SOURCE; give one")
    return None
