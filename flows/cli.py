"""The command line `recsys`: all commands of `recsys.cli`, and nightly, serve and demo.

Prefect is imported when a command that runs flows does.
"""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from recsys.cli import app, run_app
from recsys.terminal import print_line

if TYPE_CHECKING:
    from recsys.lake.tables import Lake

Train = Annotated[
    Literal["auto", "always", "never"],
    typer.Option(help="Train: always, only while there is no champion (auto), or never."),
]


@app.command()
def nightly(
    train: Train = "auto",
    run_date: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Day the lists are for; today by default."),
    ] = None,
    k: Annotated[int | None, typer.Option("--k", min=1, max=10_000, help="Items per user.")] = None,
) -> None:
    """Run the whole night as a Prefect flow: ingest, train where asked, recommend, publish.

    Without PREFECT_API_URL it runs on a temporary Prefect server.
    """
    from recsys.lake.tables import Lake
    from recsys.settings import Settings

    settings = Settings()
    settings.required_source()
    _prepare_prefect()
    from flows.nightly import nightly as flow

    flow(train=train, run_date=run_date.date() if run_date else None, k=k)
    _summary(Lake.from_settings(settings))


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
    from flows.serve import serve as serve_flows

    serve_flows(cron, timezone, train, port, print_line)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything is put.")] = Path("demo"),
) -> None:
    """Run a whole night on MovieLens-100K and read the lists with SQL."""
    started = time.perf_counter()
    from recsys.benchmark.datasets import movielens_100k
    from recsys.settings import Settings

    source = movielens_100k(folder / "source.duckdb", say=print_line)
    lake = folder / "lake"
    os.environ |= {
        "RECSYS_LAKE": str(lake),
        "RECSYS_SOURCE": json.dumps(
            {
                "uri": str(source),
                "table": "ratings",
                "columns": {
                    "item_id": "movie_id",
                    "timestamp": "rated_at",
                    "value": "rating",
                },
            }
        ),
        "RECSYS_ITEMS": json.dumps(
            {
                "uri": str(source),
                "table": "movies",
                "columns": {"item_id": "movie_id", "category": "genres"},
            }
        ),
    }
    Settings.model_config["toml_file"] = None  # whatever lies in the working directory
    os.environ.pop("PREFECT_API_URL", None)  # a temporary server, whatever is configured here
    os.environ.setdefault("PREFECT_HOME", str((folder / "prefect").absolute()))
    _prepare_prefect()
    print_line("running the flow `nightly` (a temporary Prefect server takes a moment to start)")
    from flows.nightly import nightly as flow

    flow(train="always")
    _show(lake)
    print_line(f"\nThe whole demo took {time.perf_counter() - started:.0f} s. To go on:")
    for command in (
        f"recsys --lake {lake} sql user_list --param user_id=42",
        f"recsys --lake {lake} sql item_exposure",
        f"recsys --lake {lake} train --set seed=1",
    ):
        print_line(f"  .venv/bin/{command}")


def _summary(home: Lake) -> None:
    """Say in three lines what the newest night came to."""
    from recsys.catalog.publish import query_catalog

    newest = "select outcome from runs where flow = 'nightly' order by started desc limit 1"
    for row in query_catalog(home, newest).to_pylist():
        outcome = json.loads(row["outcome"])
        taken, made = outcome["ingest"], outcome["recommend"]
        trained = outcome.get("train", {"status": "not asked for", "why": "the champion serves"})
        why = trained.get("refused") or f"{trained['status']}, {trained['why']}"
        print_line(
            f"\ningest: {taken['status']}, {taken['accepted']:,} new interactions "
            f"({taken['duplicates']:,} held already, {taken['quarantined']:,} quarantined)\n"
            f"train: {why}\n"
            f"recommend: {made['status']}, {made['rows']:,} rows for {made['users']:,} users "
            f"on {made['run_date']}"
        )


def _show(lake: Path) -> None:
    """Print, out of the catalog, what the night came to."""
    from recsys.catalog.publish import CATALOG_FILE, query_catalog
    from recsys.lake.tables import Lake
    from recsys.settings import Settings
    from recsys.terminal import rendered
    from sql import load

    home = Lake.from_settings(Settings())
    _summary(home)
    users = query_catalog(home, load("queries/sample_users"), {"count": 3})
    for user in users["user_id"].to_pylist():
        seen = query_catalog(
            home, load("queries/user_history"), {"user_id": user, "count": 5}
        ).select(["timestamp", "title"])
        new = query_catalog(home, load("queries/user_list"), {"user_id": user}).slice(0, 10)
        print_line("\n" + rendered(seen, "table", f"User {user} watched last"))
        print_line(rendered(new.select(["rank", "title", "score"]), "table", "and is recommended"))
    figures = query_catalog(home, load("queries/champion_figures"))
    print_line("\n" + rendered(figures, "table", "On every user's withheld last item"))
    print_line(f"\nThe lake: {lake}, read with SQL through {lake / CATALOG_FILE}")


def _prepare_prefect() -> None:
    """Let bars, not log lines, tell how it goes; start the temporary server, where there is one.

    With a temporary server nobody reads Prefect's log afterwards, and an error reaches the person
    as a message of ours; with a configured one its own settings hold.
    """
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

    from prefect import settings
    from prefect.server.api.server import SubprocessASGIServer

    if settings.PREFECT_API_URL.value() or not settings.PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        return
    # Prefect would start it at its first call; Ctrl-C would then end it before the run that has
    # to report to it, and the run would wait a minute for an answer. Prefect stops it at the exit.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start(
            settings.PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main() -> NoReturn:
    """Run the command line."""
    run_app()


if __name__ == "__main__":
    main()
