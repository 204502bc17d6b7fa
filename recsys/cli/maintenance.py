"""Commands that keep a lake small, and erase a user."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.cli.common import app, new_run_id
from recsys.cli.sinks import deliver_lists
from recsys.settings import Settings
from recsys.terminal import bars, print_line


@app.command()
def maintain(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")
    ] = False,
) -> None:
    """Merge small files; expire old lists, results of checks, models and versions.

    The settings under `maintenance` say what stays for how long.
    """
    from recsys.lake.tables import Lake
    from recsys.operations import maintain as operations
    from recsys.operations.runs import record_run

    settings = Settings()
    if dry_run:
        with bars() as progress:
            lake = Lake.from_settings(settings)
            result = operations.maintain(lake, settings, dry_run=True, progress=progress)
    else:
        with record_run("maintain", new_run_id(), settings, {}) as run, bars() as progress:
            result = operations.maintain(run.lake, settings, progress=progress)
            run.record("maintain", result)
    for line in operations.report(result):
        print_line(line)


@app.command()
def erase(
    user: Annotated[str, typer.Option(help="The user's id.")],
    why: Annotated[str, typer.Option(help="The reason, which stays; without the user's name.")],
) -> None:
    """Erase a user from every table, cache and page; a salted hash of the id stays.

    No source brings the user back. Older versions of the tables hold the rows until
    `recsys maintain` removes them, after the setting `maintenance.retention`.
    """
    from recsys.operations import erase as operations
    from recsys.operations.runs import record_run

    settings = Settings()
    with record_run("erase", new_run_id(), settings, {"why": why}) as run:
        result = operations.erase(run.lake, user, why)
        run.record("erase", result)
        deliver_lists(run, ())
    print_line(
        f"erased: {result.interactions:,} interactions, {result.recommendations:,} rows of lists, "
        f"{result.quarantined:,} quarantined rows; older versions hold them for another "
        f"{settings.maintenance.retention.days} days, until `recsys maintain` runs"
    )
