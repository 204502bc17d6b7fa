"""Commands that read the catalog."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.cli.common import Shown, app, name_value_pairs
from recsys.errors import ConfigurationError
from recsys.settings import Settings
from recsys.terminal import render_table


@app.command()
def sql(
    statement: Annotated[
        str, typer.Argument(help="A SELECT, or the name of a query in sql/queries.")
    ],
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Value of a $NAME in it; may be repeated."),
    ] = None,
    output: Shown = "table",
) -> None:
    """Query the catalog: `recsys sql "select * from latest_recommendations limit 5"`."""
    from recsys.catalog.publish import query_catalog
    from recsys.lake.tables import Lake
    from sql import load

    if statement.replace("_", "").isalnum():
        try:
            statement = load(f"queries/{statement}")
        except FileNotFoundError:
            raise ConfigurationError(
                f"there is no query {statement!r}; the queries are: {', '.join(_queries())}"
            ) from None
    rows = query_catalog(Lake.from_settings(Settings()), statement, name_value_pairs(param))
    typer.echo(render_table(rows, output))


def _queries() -> list[str]:
    from importlib.resources import files

    return sorted(
        path.name.removesuffix(".sql")
        for path in files("sql").joinpath("queries").iterdir()
        if path.name.endswith(".sql")
    )
