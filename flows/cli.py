"""The command line `recsys`: all commands of `recsys.cli`, and nightly, serve and demo.

Prefect is imported when a command that runs flows does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

import recsys.cli  # noqa: F401 - puts its commands on the app
from recsys.cli.common import (
    AsOfText,
    ReplaceWhy,
    RunDate,
    Set,
    app,
    name_value_pairs,
    read_as_of,
    run_app,
)
from recsys.terminal import print_line

Train = Annotated[
    Literal["policy", "always", "never"],
    typer.Option(help="Train: as training.policy says, when data or settings changed, or never."),
]

_TRAINING = "training."


@app.command()
def nightly(
    train: Train = "policy",
    run_date: RunDate = None,
    as_of: AsOfText = None,
    replace: ReplaceWhy = None,
    changes: Set = None,
) -> None:
    """Run the whole night as a Prefect flow: ingest, train where asked, recommend, publish.

    Without PREFECT_API_URL it runs on a temporary Prefect server.

    --set takes k, steps, seed, block and seen (exclude or include), as `recsys recommend` does;
    with training. before it, what `recsys train` takes, such as training.epochs=2.
    """
    from flows.server import start_temporary_server
    from recsys.lake.tables import Lake
    from recsys.operations.summary import night_summary
    from recsys.settings import RecommendingChanges, Settings

    settings = Settings()
    pairs = name_value_pairs(changes)
    ours = [name for name in pairs if name.startswith(_TRAINING)]
    training = {name.removeprefix(_TRAINING): pairs.pop(name) for name in ours}
    recommending = RecommendingChanges.model_validate(pairs)
    settings.training.with_fields(training)  # refused now rather than by the flow
    day, known = run_date.date() if run_date else None, read_as_of(as_of)
    if day:
        settings.check_run_date(day)
    settings.required_source()
    start_temporary_server()
    from flows.nightly import nightly_flow

    nightly_flow(
        train=train,
        run_date=day,
        recommending=recommending,
        training=training or None,
        as_of=known,
        replace=replace,
    )
    print_line(f"\n{night_summary(Lake.from_settings(settings))}")


@app.command()
def serve(
    cron: Annotated[
        str | None,
        typer.Option(help='When nightly runs; "0 2 * * *", or what was set on Prefect\'s page.'),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Time zone of schedule and run dates; the settings' own.")
    ] = None,
    train: Annotated[
        Literal["policy", "always", "never"] | None,
        typer.Option(help="When a night trains; as the flow nightly does by default."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the Prefect server, if one is started.")
    ] = 4200,
) -> None:
    """Serve the deployments, nightly/daily and the others of prefect.yaml, until stopped.

    Starts a Prefect server when PREFECT_API_URL is not set.
    """
    from flows.server_checks import check_home, one_sentence_for_server_faults

    check_home()  # before Prefect is imported
    from flows.serve import serve_deployments

    with one_sentence_for_server_faults():
        serve_deployments(cron, timezone, train, port, print_line)


@app.command()
def alerts(
    webhook: Annotated[
        str | None,
        typer.Option(help='URL to tell: it gets a POST with {"text": "..."}, as Slack takes it.'),
    ] = None,
) -> None:
    """Let the Prefect server of PREFECT_API_URL tell you what goes wrong, and mend what it can.

    You are told of runs that failed, of refused batches, and of lists that are late at 06:00. Lost
    runs become Crashed, and a training starts when the data drifted; these need no --webhook.
    """
    from flows.server_checks import (
        check_home,
        configured_server,
        one_sentence_for_server_faults,
    )

    check_home()
    configured_server()
    from flows.alerts import make_alerts

    with one_sentence_for_server_faults():
        names = make_alerts(webhook)
    for name in names:
        print_line(name)


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
