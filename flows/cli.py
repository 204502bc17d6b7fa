"""The command line `recsys`: all commands of `recsys.cli`, and nightly, serve and demo.

Prefect is imported when a command that runs flows does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

import recsys.cli  # noqa: F401 - puts its commands on the app
from recsys.cli.common import RunDate, Set, app, name_value_pairs, run_app
from recsys.terminal import print_line

Train = Annotated[
    Literal["auto", "always", "never"],
    typer.Option(help="Train: always, only while there is no champion (auto), or never."),
]


@app.command()
def nightly(
    train: Train = "auto",
    run_date: RunDate = None,
    changes: Set = None,
) -> None:
    """Run the whole night as a Prefect flow: ingest, train where asked, recommend, publish.

    Without PREFECT_API_URL it runs on a temporary Prefect server.

    --set takes k, steps, seed, block and seen (exclude or include), as `recsys recommend` does.
    """
    from flows.server import start_temporary_server
    from recsys.lake.tables import Lake
    from recsys.operations.summary import night_summary
    from recsys.settings import RecommendingChanges, Settings

    settings = Settings()
    recommending = RecommendingChanges.model_validate(name_value_pairs(changes))
    day = run_date.date() if run_date else None
    if day:
        settings.check_run_date(day)
    settings.required_source()
    start_temporary_server()
    from flows.nightly import nightly_flow

    nightly_flow(train=train, run_date=day, recommending=recommending)
    print_line(f"\n{night_summary(Lake.from_settings(settings))}")


@app.command()
def serve(
    cron: Annotated[str, typer.Option(help="When nightly runs.")] = "0 2 * * *",
    timezone: Annotated[
        str | None, typer.Option(help="Time zone of schedule and run dates; the settings' own.")
    ] = None,
    train: Train = "auto",
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the Prefect server, if one is started.")
    ] = 4200,
) -> None:
    """Serve nightly/daily on a schedule and train/on-demand, until stopped.

    Starts a Prefect server when PREFECT_API_URL is not set.
    """
    from flows.serve import serve_deployments

    serve_deployments(cron, timezone, train, port, print_line)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything is put.")] = Path("demo"),
) -> None:
    """Run a whole night on MovieLens-100K and read the lists with SQL."""
    from flows.demo import run_demo

    run_demo(folder)


def main() -> NoReturn:
    """Run the command line."""
    run_app()


if __name__ == "__main__":
    main()
