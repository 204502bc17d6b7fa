"""Commands that read the catalog, and the report that is made of it."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.common import Shown, app, name_value_pairs
from recsys.errors import ConfigurationError
from recsys.settings import Settings
from recsys.temporary import replace_file
from recsys.terminal import print_line, render_table, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recsys.catalog.views import View
    from recsys.lake.schemas import Table
    from recsys.lake.tables import Lake


@app.command()
def sql(
    statement: Annotated[
        str | None,
        typer.Argument(
            help="A SELECT, or the name of a query in sql/queries; a prompt opens without it."
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Value of a $NAME in it; may be repeated."),
    ] = None,
    output: Shown = "table",
    show_list: Annotated[
        bool, typer.Option("--list", help="List the queries that ship, and do nothing else.")
    ] = False,
    unsafe: Annotated[
        bool, typer.Option(help="Let the statement reach files and databases outside the lake.")
    ] = False,
) -> None:
    """Query the catalog: `recsys sql "select * from latest_recommendations limit 5"`.

    A statement reads the catalog and the lake's files. It can't write, and can't reach anything
    else, unless you say --unsafe.
    """
    from recsys.lake.tables import Lake

    if show_list:
        for name, meaning in _queries():
            typer.echo(f"{name}\n    {meaning}")
        return
    lake = Lake.from_settings(Settings())
    if statement is not None:
        _run_statement(lake, statement, output, name_value_pairs(param), unsafe=unsafe)
        return
    from recsys.cli.prompt import Prompt

    Prompt(_names(lake), lambda text: _run_statement(lake, text, output, {}, unsafe=unsafe)).run()


@app.command()
def tables(
    name: Annotated[str | None, typer.Argument(help="A table or a view; all without it.")] = None,
) -> None:
    """Say what the tables and views of the catalog hold, or what the columns of one mean."""
    import pyarrow as pa

    from recsys.catalog.views import VIEWS
    from recsys.lake.schemas import TABLES

    known: dict[str, Table | View] = {**TABLES, **VIEWS}
    if name is None:
        rows = [{"name": each.name, "meaning": each.meaning} for each in known.values()]
    elif name not in known:
        raise ConfigurationError(f"there is no table {name!r}; the tables are: {', '.join(known)}")
    else:
        described = known[name]
        print_line(described.meaning)
        rows = [
            {"column": column, "meaning": meaning}
            for column, meaning in described.meanings().items()
        ]
    typer.echo(render_table(pa.Table.from_pylist(rows)))


@app.command()
def report(
    run_date: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], help="Day whose lists it is about; the newest by default."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write it to this file, in place of the lake's reports/.")
    ] = None,
) -> None:
    """Write the report on a night's lists, one HTML file that needs no network.

    Every nightly and every training writes it too.
    """
    from recsys.catalog.report.files import make_report, write_report
    from recsys.lake.tables import Lake

    lake, day = Lake.from_settings(Settings()), run_date.date() if run_date else None
    if out is None:
        print_line(write_report(lake, day))
        return
    with replace_file(out.absolute()) as path:
        path.write_text(make_report(lake, day).html, encoding="utf-8")
    print_line(str(out))


@app.command()
def explore(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the pages; 0 takes a free one.")
    ] = 4201,
    show: Annotated[
        bool, typer.Option("--open", help="Open the first page in this machine's browser.")
    ] = False,
) -> None:
    """Look up users, items and nights on pages for a browser, on this machine, until stopped.

    The pages read the catalog by SQL, as `recsys sql` does, and change nothing.
    """
    import webbrowser

    from recsys.catalog.explore.server import serve_pages
    from recsys.lake.tables import Lake

    def ready(address: str) -> None:
        print_line(f"{address} shows the lake, until you stop this")
        if show:
            webbrowser.open(address)

    serve_pages(Lake.from_settings(Settings()), port, ready)


def _run_statement(
    lake: Lake, statement: str, output: Shown, parameters: Mapping[str, object], *, unsafe: bool
) -> None:
    from recsys.catalog.query import stream_catalog
    from sql import load

    if output == "parquet" and sys.stdout.isatty():
        raise ConfigurationError(
            "a terminal can't show Parquet: write it to a file, e.g. `recsys sql … -f parquet > "
            "lists.parquet`"
        )
    if statement.replace("_", "").isalnum():
        queries = dict(_queries())
        if statement not in queries:
            raise ConfigurationError(
                f"there is no query {statement!r}; the queries are: {', '.join(queries)}"
            )
        statement = load(f"queries/{statement}")
    with stream_catalog(lake, statement, parameters, unsafe=unsafe) as rows:
        write_rows(rows, output, sys.stdout)


def _queries() -> Iterator[tuple[str, str]]:
    """Yield the queries that ship, each with what its first comment says."""
    from importlib.resources import files

    folder = files("sql").joinpath("queries")
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".sql"):
            lines = path.read_text(encoding="utf-8").splitlines()
            n_comment = next(i for i, line in enumerate(lines) if not line.startswith("--"))
            comment = " ".join(line.removeprefix("--").strip() for line in lines[:n_comment])
            yield path.name.removesuffix(".sql"), comment


def _names(lake: Lake) -> list[str]:
    """Return what a prompt can complete: tables, columns and queries."""
    from recsys.catalog.query import query_catalog

    rows = query_catalog(
        lake, "select distinct unnest([table_name, column_name]) as name from duckdb_columns()"
    )
    return sorted({*rows["name"].to_pylist(), *dict(_queries())})
