"""Commands that make lists, and that decide which of them are served."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated

import typer

from recsys.cli.common import (
    AsOfText,
    ReplaceWhy,
    RunDate,
    Set,
    Shown,
    app,
    name_value_pairs,
    new_run_id,
    read_as_of,
)
from recsys.cli.sinks import deliver_lists
from recsys.errors import SinkError
from recsys.settings import Settings
from recsys.terminal import bars, print_line, write_rows

lists_app = typer.Typer(help="Show editions of lists, and roll one back.", no_args_is_help=True)
app.add_typer(lists_app, name="lists")

_DAY = ["%Y-%m-%d"]


@app.command()
def recommend(
    run_date: RunDate = None,
    as_of: AsOfText = None,
    replace: ReplaceWhy = None,
    changes: Set = None,
) -> None:
    """Make every user's list with the champion, check it, and publish it.

    Lists for a day know what happened before its end. Lists that were published for that day stand
    as they were served, unless --replace says why.

    --set takes the fields of [recommending], such as k=10, seen=include or min_confidence=0.2.
    """
    from recsys.distributed.shards_on_ray import strategy
    from recsys.lake.bound import Bound
    from recsys.lists import recommend as lists
    from recsys.operations.runs import record_run
    from recsys.operations.summary import list_summary

    settings = Settings()
    recommending = settings.recommending.changed(name_value_pairs(changes))
    run_id = new_run_id()
    day = run_date.date() if run_date else settings.run_date()
    settings.check_run_date(day)
    bound = Bound.of(settings, day, read_as_of(as_of))
    parameters = {
        "run_date": day,
        "as_of": as_of,
        "replace": replace,
        **recommending.model_dump(),
    }
    with record_run("recommend", run_id, settings, parameters) as run:
        with bars() as progress:
            result = lists.recommend(
                run.lake,
                settings,
                recommending,
                run_date=day,
                run_id=run_id,
                bound=bound,
                replace_why=replace,
                make_shards=strategy(settings),
                progress=progress,
            )
        run.record("recommend", result)
        print_line(list_summary(run.outcome["recommend"]))
        deliver_lists(run, {day})


@app.command()
def backfill(
    first: Annotated[datetime, typer.Option("--from", formats=_DAY, help="The first day.")],
    last: Annotated[datetime, typer.Option("--to", formats=_DAY, help="The last day.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, and change nothing.")
    ] = False,
    as_of: AsOfText = None,
    changes: Set = None,
) -> None:
    """Make the lists of days that have none, in order; those that stand are left alone.

    --set takes what `recsys recommend` takes.
    """
    from recsys.distributed.shards_on_ray import strategy
    from recsys.lake.tables import Lake
    from recsys.lists import recommend as lists
    from recsys.lists.backfill import plan_backfill
    from recsys.operations.runs import record_run
    from recsys.operations.summary import list_summary

    settings, day_of = Settings(), datetime.date
    recommending = settings.recommending.changed(name_value_pairs(changes))
    span = (day_of(first), day_of(last), read_as_of(as_of))
    if dry_run:
        for planned in plan_backfill(Lake.from_settings(settings), settings, *span):
            print_line(str(planned))
        return
    run_id, made = new_run_id(), set()
    parameters = {"from": span[0], "to": span[1], "as_of": as_of, **recommending.model_dump()}
    with record_run("backfill", run_id, settings, parameters) as run:
        for planned in plan_backfill(run.lake, settings, *span):
            if planned.standing:
                print_line(str(planned))
                continue
            with bars() as progress:
                result = lists.recommend(
                    run.lake,
                    settings,
                    recommending,
                    run_date=planned.run_date,
                    run_id=run_id,
                    bound=planned.bound,
                    make_shards=strategy(settings),
                    progress=progress,
                )
            run.record(f"recommend {planned.run_date}", result)
            made.add(planned.run_date)
            print_line(list_summary(run.outcome[f"recommend {planned.run_date}"]))
        deliver_lists(run, made)


@app.command()
def deliver(
    run_date: Annotated[
        datetime | None,
        typer.Option(formats=_DAY, help="Day whose lists are delivered, or read back there."),
    ] = None,
    sink: Annotated[str | None, typer.Option(help="The sink of this name alone.")] = None,
) -> None:
    """Deliver the lists that are served to the [[sinks]] of the settings: what they miss.

    --run-date delivers a day that the sink does not have, or reads back the rows that it has and
    puts them right. By default the newest day is read back.
    """
    from recsys.lists.editions import all_editions
    from recsys.operations.runs import record_run

    settings = Settings()
    sinks = settings.chosen_sinks(sink)
    parameters = {"run_date": run_date and run_date.date(), "sink": sink}
    with record_run("deliver", new_run_id(), settings, parameters) as run:
        served = {row.run_date for row in all_editions(run.lake) if row.status == "current"}
        days = {run_date.date()} if run_date else {max(served)} if served else set()
        if not days or not days <= served:
            raise SinkError(
                f"there are no lists{f' for {run_date.date()}' if run_date else ''} to deliver; "
                "`recsys lists show` has those that are served"
            )
        failed = deliver_lists(run, days, sinks)
        if failed:
            raise failed[0]


@app.command()
def explain(
    user: Annotated[str, typer.Option(help="The user's id.")],
    item: Annotated[
        str | None, typer.Option(help="This item alone, also one that is not in the list.")
    ] = None,
    run_date: Annotated[
        datetime | None, typer.Option(formats=_DAY, help="Day of the list; the newest by default.")
    ] = None,
    output: Shown = "table",
) -> None:
    """Say why each item is in a user's list: what speaks most for it in the user's history.

    An item of the history is left out, and the user is scored again: times_as_likely is how many
    times likelier the listed item is with it. For a popular item it says how often it was taken.
    """
    from recsys.lake.tables import Lake
    from recsys.lists.explain import explain_user

    settings, day = Settings(), run_date.date() if run_date else None
    rows = explain_user(Lake.from_settings(settings), settings, user, item=item, run_date=day)
    write_rows(rows.to_reader(), output, sys.stdout)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A day with lists, a run that published, or a model.")],
    b: Annotated[str, typer.Argument(help="Another one; a model beside a model.")],
    users: Annotated[int, typer.Option(min=1, help="Users whose lists two models make.")] = 2000,
    output: Shown = "table",
) -> None:
    """Compare two days' lists, or two models: overlap, rank moves, coverage, who changes most.

    The lists of two days or runs are read as they were served. Two models make the lists of a
    sample of users now, and nothing is published.
    """
    from recsys.lake.tables import Lake
    from recsys.lists import compare as lists

    settings = Settings()
    with bars() as progress:
        lake = Lake.from_settings(settings)
        rows = lists.compare(lake, settings, a, b, users=users, progress=progress)
    write_rows(rows.to_reader(), output, sys.stdout)


@lists_app.command()
def show(output: Shown = "table") -> None:
    """Show every edition, newest first: what was published when, and what is served."""
    from recsys.catalog.query import stream_catalog
    from recsys.lake.tables import Lake
    from sql import load

    with stream_catalog(Lake.from_settings(Settings()), load("queries/list_editions")) as rows:
        write_rows(rows, output, sys.stdout)


@lists_app.command()
def rollback(
    run_date: Annotated[
        datetime, typer.Option(formats=_DAY, help="The day whose lists are rolled back.")
    ],
    why: Annotated[str, typer.Option(help="The reason, which is kept.")],
    to: Annotated[
        int | None,
        typer.Option(min=1, help="The edition to serve, also a later one; the one before."),
    ] = None,
) -> None:
    """Serve an earlier edition of a day's lists again.

    Where there is no earlier one, the lists are withdrawn, and latest_recommendations shows the
    day before. Nothing is deleted: --to serves any edition again.
    """
    from recsys.account import current_account
    from recsys.lists.rollback import roll_back
    from recsys.operations.runs import record_run

    settings, day = Settings(), run_date.date()
    parameters = {"run_date": day, "to": to, "why": why}
    with record_run("lists-rollback", new_run_id(), settings, parameters) as run:
        result = roll_back(run.lake, day, to=to, why=why, who=current_account(), run_id=run.run_id)
        run.record("rollback", result)
        print_line(str(result))
        deliver_lists(run, {day})
