"""The commands that need no Prefect. `flows.cli` adds those that run flows, and is `recsys`."""

from __future__ import annotations

import os
import sys
import tomllib
import uuid
from datetime import datetime
from pathlib import Path
from traceback import clear_frames
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import duckdb
import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from recsys.errors import ConfigurationError, RecsysError
from recsys.settings import MAX_SEED, Settings
from recsys.signals import exit_on_signals
from recsys.terminal import Format, bars, print_line, render_table

if TYPE_CHECKING:
    from recsys.benchmark.results import Splitting

app = typer.Typer(
    name="recsys",
    help="Nightly batch recommendations: interactions in, every user's top-K out, read with SQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change one setting; may be repeated."),
]
RunDate = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="Day the lists are for; today by default."),
]


@app.callback()
def _common(
    lake: Annotated[
        str | None,
        typer.Option(help="Root of the tables: a folder or s3://bucket/prefix. [RECSYS_LAKE]"),
    ] = None,
) -> None:
    if lake is not None:
        os.environ["RECSYS_LAKE"] = lake


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
    from recsys.settings import Source

    settings = _settings()
    chosen_source = None
    if source is not None:
        chosen_source = Source(
            uri=source, table=table, query=query, columns=name_value_pairs(column)
        )
    elif table or query or column:
        raise ConfigurationError("--table, --query and --column go with a SOURCE; give one")
    with record_run("ingest", _run_id(), settings, {"source": source}) as run, bars() as progress:
        result = batch.ingest(run.lake, settings, chosen_source, progress=progress)
        run.record("ingest", result)
        if settings.items is not None and chosen_source is None:
            ingest_items(run.lake, settings)
    print_line(
        f"{result.status}: {result.rows_in:,} rows read, {result.accepted:,} accepted, "
        f"{result.quarantined:,} quarantined, {result.duplicates:,} already in the lake"
    )


@app.command()
def train(changes: Set = None) -> None:
    """Train on the lake's interactions; the model serves if it passes the gate.

    Exits with 1 when the gate rejects it; the previous champion goes on serving.

    --set takes preset, epochs, seed, tolerance, and every field of the preset
    (such as dropout or max_length).
    """
    from recsys.operations.runs import record_run
    from recsys.registry import retrain

    settings = _settings()
    training = settings.training.with_fields(name_value_pairs(changes))
    with record_run("train", _run_id(), settings, training.model_dump()) as run, bars() as progress:
        result = retrain.train(run.lake, settings, training, progress=progress)
        run.record("train", result)
    print_line(f"{result.model_id}: {result.status}. {result.why}")
    if result.status == "rejected":
        raise typer.Exit(1)


@app.command()
def recommend(
    run_date: RunDate = None,
    changes: Set = None,
) -> None:
    """Make every user's list with the champion, check it, and publish it.

    --set takes k, steps, seed, block and seen (exclude or include).
    """
    from recsys.lists import recommend as lists
    from recsys.operations.runs import record_run

    settings = _settings()
    recommending = settings.recommending.changed(name_value_pairs(changes))
    run_id = _run_id()
    day = run_date.date() if run_date else settings.run_date()
    settings.check_run_date(day)
    parameters = {"run_date": day, **recommending.model_dump()}
    with record_run("recommend", run_id, settings, parameters) as run, bars() as progress:
        result = lists.recommend(
            run.lake,
            settings,
            recommending,
            run_date=day,
            run_id=run_id,
            progress=progress,
        )
        run.record("recommend", result)
    print_line(
        f"{result.status}: {result.rows:,} rows for {result.users:,} users on {result.run_date}, "
        f"{result.popular_users:,} of them get popular items"
    )


@app.command()
def sql(
    statement: Annotated[
        str, typer.Argument(help="A SELECT, or the name of a query in sql/queries.")
    ],
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Value of a $NAME in it; may be repeated."),
    ] = None,
    output: Annotated[Format, typer.Option("--format", "-f", help="How rows are shown.")] = "table",
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
    rows = query_catalog(Lake.from_settings(_settings()), statement, name_value_pairs(param))
    typer.echo(render_table(rows, output))


@app.command()
def models(
    output: Annotated[Format, typer.Option("--format", "-f", help="How rows are shown.")] = "table",
) -> None:
    """List the trained models, newest first, with their status and the reason for it."""
    import pyarrow as pa

    from recsys.lake.tables import Lake
    from recsys.registry.models import model_rows

    shown = ("model_id", "status", "preset", "validation_ndcg_10", "test_ndcg_10", "test_hr_10")
    rows = model_rows(Lake.from_settings(_settings()))
    if not rows:
        print_line("no model yet: run `recsys train`")
        return
    table = pa.Table.from_pylist(
        [{name: getattr(row, name) for name in (*shown, "trained_at", "why")} for row in rows]
    )
    typer.echo(render_table(table, output))


@app.command()
def benchmark(
    files: Annotated[list[Path], typer.Argument(help="Parquet of user_id, item_id, timestamp.")],
    preset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:FIELD=VALUE,...]",
            help="A preset, or popularity, transitions or item-knn; may be repeated. [best]",
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, max=MAX_SEED, help="Seed of every random draw; may be repeated. [0]"),
    ] = None,
    split: Annotated[str, typer.Option(help="leave-one-out, or temporal.")] = "leave-one-out",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    changes: Set = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the results; a run with a result there is not repeated.")
    ] = Path("build/benchmark"),
) -> None:
    """Train and evaluate every preset on every file with every seed; no lake, no Prefect."""
    from recsys.benchmark.matrix import matrix
    from recsys.benchmark.run import System
    from recsys.lake.engine import Limits
    from recsys.model.runtime import Runtime

    settings, overrides = Settings(), name_value_pairs(changes)
    with bars() as progress:
        text = matrix(
            files,
            [System.read(name, overrides) for name in preset or ["best"]],
            seed or [0],
            out,
            runtime=Runtime(settings.device, settings.threads),
            splitting=cast("Splitting", split),
            jobs=jobs,
            limits=Limits(settings.memory_limit),
            progress=progress,
        )
    typer.echo(text)
    print_line(f"wrote {out}: a JSON file for each run, results.parquet, tables.md")


def run_app() -> NoReturn:
    """Run the command line. Exit code: 0 done, 1 refused (data, gate), 2 usage, 128 + n signal."""
    try:
        with exit_on_signals():
            app(standalone_mode=True)
    except ValidationError as error:
        _refuse(_explanation(error), ConfigurationError.exit_code)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, SettingsError) as error:
        _refuse(f"the settings can't be read: {error}", ConfigurationError.exit_code)
    except RecsysError as error:
        clear_frames(error.__traceback__)
        _refuse(str(error), error.exit_code)
    except (duckdb.Error, OSError) as error:
        _refuse(f"{type(error).__name__}: {error}", RecsysError.exit_code)
    sys.exit(0)


def _settings() -> Settings:
    return Settings()


def _run_id() -> str:
    return str(uuid.uuid4())


def name_value_pairs(words: list[str] | None) -> dict[str, Any]:
    """Return NAME=VALUE words as a dict.

    Raises:
        ConfigurationError: a word without =, or one name twice.
    """
    pairs = {}
    for item in words or []:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise ConfigurationError(f"{item!r} should read NAME=VALUE")
        if name.strip() in pairs:
            raise ConfigurationError(f"{name.strip()!r} is given twice; give it once")
        pairs[name.strip()] = value
    return pairs


def _queries() -> list[str]:
    from importlib.resources import files

    return sorted(
        path.name.removesuffix(".sql")
        for path in files("sql").joinpath("queries").iterdir()
        if path.name.endswith(".sql")
    )


def _refuse(text: str, code: int) -> NoReturn:
    print_line(f"recsys: {text}")
    sys.exit(code)


def _explanation(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "it"
        lines.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
    return f"{error.title} is not valid: " + "; ".join(lines)


if __name__ == "__main__":
    run_app()
