"""Commands that make lists."""

from __future__ import annotations

from recsys.cli.common import RunDate, Set, app, name_value_pairs, new_run_id
from recsys.settings import Settings
from recsys.terminal import bars, print_line


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

    settings = Settings()
    recommending = settings.recommending.changed(name_value_pairs(changes))
    run_id = new_run_id()
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
